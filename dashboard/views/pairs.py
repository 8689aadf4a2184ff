"""Two parts of the tab *Training*: reading the preference pairs, and ranking them blind."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from dashboard.marks import marked, word_differences
from dashboard.page import block, error_html, section
from dashboard.pairs import ACCEPTED_ONLY, ALL, PairView, find_sources, read_pairs, reasons_of, select
from dashboard.rankings import Agreement, Rankings, agreement, first_side, next_pair
from dashboard.store import Store
from evaluation.report.grid import interval_text, words
from runs.errors import UserError, unknown_name

_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_MAKE = "uv run critique-revision generate --config configs/critique_revision/smollm2-135m.yaml"
_KEPT = 3
_LEAD_RANK = (
    "Two texts for one prompt, their order drawn by chance. Which one follows the principle better? What is shown as "
    "preferred in the data appears after your vote; votes are appended to a file and never changed."
)

Values = Mapping[Any, Any]


class Pairs:
    """The pairs of a few folders, kept while their files are the same.

    Args:
        store: where the folders are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: OrderedDict[str, tuple[int, list[PairView]]] = OrderedDict()
        self._lock = Lock()

    def sources(self) -> dict[str, Path]:
        """Name → folder."""
        return find_sources(self.store)

    def read(self, name: str) -> list[PairView]:
        """The pairs called ``name``.

        Raises:
            UsageError: there are none of that name.
            UserError: they cannot be read.
        """
        sources = self.sources()
        if name not in sources:
            raise unknown_name("set of pairs", name[:80], sources)
        version = (sources[name] / "pairs.jsonl").stat().st_mtime_ns
        with self._lock:
            held = self._kept.get(name)
            if held is None or held[0] != version:
                held = (version, read_pairs(sources[name]))
                self._kept[name] = held
            self._kept.move_to_end(name)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return held[1]


def no_pairs_html() -> str:
    """Said where no folder holds pairs."""
    return (
        "<div class='notice'><h3>No pairs here yet</h3><p>Adapters are kept without the texts that they learnt from. "
        f"To make the pairs again, with critiques and revisions:</p><p><code>{escape(_MAKE)}</code></p></div>"
    )


def build_browser(store: Store) -> None:
    """The part *Pairs*."""
    _Browser(Pairs(store))


class _Browser:
    """Components and events of the part *Pairs*; it holds nothing of any reader."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        block(value=section("What it learnt from", "Every revision with its principle, and what became of it."))
        self.notice = block()
        with gr.Column(visible=False) as self.body:
            with gr.Row(elem_classes="controls"):
                self.source = gr.Dropdown([], label="Pairs of", min_width=220)
                self.reason = gr.Dropdown([ALL], value=ALL, label="Accepted or rejected for", min_width=200)
                self.principle = gr.Dropdown([ALL], value=ALL, label="Principle", min_width=150)
                self.text = gr.Textbox(label="Search", max_length=200, placeholder="words in any text")
            with gr.Row(elem_classes="bar-row"):
                previous = gr.Button("← Previous", size="sm", elem_id="pairs-previous", min_width=90)
                following = gr.Button("Next →", size="sm", elem_id="pairs-next", min_width=90)
            self.row = block("row-block", elem_id="pairs-row")
        self.position = gr.State(0)
        filters: list[Any] = [self.reason, self.principle, self.text]
        inputs: set[Any] = {self.source, *filters, self.position}
        results = [self.row, self.position]
        root = gr.context.Context.root_block
        assert root is not None  # inside of a page
        root.load(self.arrive, None, [self.notice, self.body, self.source, *filters, *results], **_QUIET)
        self.source.input(self.open, self.source, [*filters, *results], **_QUIET)
        # Not the search's input event: it misses what is pasted into a field that the page filled.
        changed = [self.reason.input, self.principle.input, self.text.change]
        gr.on(changed, self.first, inputs, results, trigger_mode="always_last", **_QUIET)
        previous.click(self.back, inputs, results, **_QUIET)
        following.click(self.on, inputs, results, **_QUIET)

    def arrive(self) -> list[Any]:
        """The page was opened."""
        names = list(self.pairs.sources())
        if not names:
            return [no_pairs_html(), gr.update(visible=False), *[gr.skip()] * 6]
        return ["", gr.update(visible=True), gr.update(choices=names, value=names[0]), *self.open(names[0])]

    def open(self, name: str) -> list[Any]:
        """A set of pairs was chosen."""
        try:
            found = self.pairs.read(name)
        except UserError as error:
            return [gr.skip(), gr.skip(), gr.skip(), error_html(error), 0]
        reasons = reasons_of(found)
        accepted = sum(view.accepted for view in found)
        kinds = [(f"all ({len(found):,})", ALL), (f"accepted ({accepted:,})", ACCEPTED_ONLY)]
        kinds += [(f"{words(name)} ({count:,})", name) for name, count in reasons.most_common()]
        principles = [ALL, *sorted({view.principle_id for view in found if view.principle_id})]
        return [
            gr.update(choices=kinds, value=ALL),
            gr.update(choices=principles, value=ALL),
            "",
            browser_html(found, 0),
            0,
        ]

    def show(self, values: Values, place: Callable[[int], int]) -> list[Any]:
        """The row, and its position."""
        try:
            found = select(
                self.pairs.read(str(values[self.source])),
                reason=str(values[self.reason] or ALL),
                principle=str(values[self.principle] or ALL),
                text=str(values[self.text] or "")[:200],
            )
        except UserError as error:
            return [error_html(error), 0]
        position = min(max(place(int(values[self.position] or 0)), 0), max(len(found) - 1, 0))
        return [browser_html(found, position), position]

    def first(self, values: Values) -> list[Any]:
        """After a change of the filters; the search changes when the page is built as well, before a source is read."""
        return self.show(values, lambda _: 0) if values[self.source] else [gr.skip(), gr.skip()]

    def back(self, values: Values) -> list[Any]:
        """To the pair before."""
        return self.show(values, lambda position: position - 1)

    def on(self, values: Values) -> list[Any]:
        """To the next pair."""
        return self.show(values, lambda position: position + 1)


def browser_html(found: Sequence[PairView], position: int) -> str:
    """One revision with its history; said so where there is none."""
    if not found:
        return "<p class='lead none'>No pair fits.</p>"
    view = found[position]
    counted = f"<p class='counted' aria-live='polite'>{position + 1:,} of {len(found):,}</p>"
    return counted + pair_html(view)


def pair_html(view: PairView) -> str:
    """Prompt, principle, critique, and both sides with their differences."""
    state = "accepted" if view.accepted else f"rejected: {', '.join(map(words, view.reasons))}"
    kind = "fixed" if view.accepted else "broken"
    turned = "<span class='tag'>turned round: the revision refused a harmless request</span>" if view.turned else ""
    label = "" if view.label_prob is None else f"<span class='tag'>labeller {view.label_prob:.2f}</span>"
    gone, new = word_differences(view.rejected, view.chosen)
    names = ("Rejected side", "Chosen side")
    if not view.accepted:
        names = ("First answer", "Revision, rejected") if view.revised else ("Worse side", "Better side, left out")
    sides = "".join(
        f"<article class='answer' aria-label='{name}'><header><b>{name}</b></header>"
        f"<div class='text'>{marked(text, marks)}</div></article>"
        for name, text, marks in zip(names, (view.rejected, view.chosen), (gone, new), strict=True)
    )
    critique = (
        f"<section class='critique' aria-label='Critique'><p class='small'>Critique</p>"
        f"<p class='turn'>{marked(view.critique, ())}</p></section>"
        if view.critique
        else ""
    )
    return (
        f"{_prompt_html(view, f'<span class=outcome>{escape(state)}</span>', kind)}{critique}{turned}{label}"
        f"<div class='answers'>{sides}</div>"
    )


def _prompt_html(view: PairView, state: str, kind: str) -> str:
    state = state.replace("class=outcome", f"class='outcome {kind}'")
    turns = "".join(
        f"<p class='turn {escape(one.role)}'>"
        f"{'' if one.role == 'user' else f'<span class=who>{escape(one.role)}</span>'}{marked(one.content, ())}</p>"
        for one in view.prompt
    )
    named = f"<span class='tag principle'>{escape(view.principle_id)}</span>" if view.principle_id else ""
    tag = f"<span class='tag'>{escape(words(view.tag))}</span>" if view.tag else ""
    principle = f"<p class='small'>{escape(view.principle)}</p>" if view.principle else ""
    return (
        f"<section class='prompt' aria-label='Prompt'><p class='tags'>{state}{tag}{named}"
        f"<span class='tag'>step {view.step}</span></p>{turns}{principle}</section>"
    )


def build_ranking(store: Store) -> None:
    """The part *Rank pairs*."""
    _Ranking(Pairs(store), Rankings(store.annotations))


class _Ranking:
    """Components and events of the part *Rank pairs*; who ranks is a random name in the visit's own state."""

    def __init__(self, pairs: Pairs, rankings: Rankings) -> None:
        self.pairs, self.rankings = pairs, rankings
        block(value=section("Do people agree with the pairs?", _LEAD_RANK))
        self.notice = block()
        with gr.Column(visible=False) as self.body:
            self.source = gr.Dropdown([], label="Pairs of", elem_id="rank-source")
            self.shown = block("row-block", elem_id="rank-row")
            with gr.Row(elem_classes="bar-row votes"):
                buttons = [
                    gr.Button(label, elem_id=f"rank-{name}", min_width=110)
                    for name, label in (
                        ("a", "A is better"), ("b", "B is better"), ("tie", "Tie"), ("both_bad", "Both bad"),
                    )
                ]  # fmt: skip
            self.told = block(elem_id="rank-told")
        self.rater, self.key = gr.State(""), gr.State("")
        root = gr.context.Context.root_block
        assert root is not None  # inside of a page
        results = [self.shown, self.told, self.key]
        root.load(self.arrive, None, [self.notice, self.body, self.source, self.rater, *results], **_QUIET)
        self.source.input(self.open, [self.source, self.rater], results, **_QUIET)
        state = [self.source, self.rater, self.key]
        for button, name in zip(buttons, ("a", "b", "tie", "both_bad"), strict=True):
            button.click(self.voting(name), state, results, **_QUIET)

    def arrive(self) -> list[Any]:
        """The page was opened: a new rater."""
        names = list(self.pairs.sources())
        if not names:
            return [no_pairs_html(), gr.update(visible=False), *[gr.skip()] * 5]
        rater = secrets.token_hex(6)
        opened = self.open(names[0], rater)
        return ["", gr.update(visible=True), gr.update(choices=names, value=names[0]), rater, *opened]

    def open(self, source: str, rater: str) -> list[Any]:
        """The next pair of ``source``."""
        try:
            return self.next(source, rater, "")
        except UserError as error:
            return [error_html(error), "", ""]

    def voting(self, name: str) -> Callable[[str, str, str], list[Any]]:
        """What a button does: append the vote, tell which side was which, and go on."""

        def vote(source: str, rater: str, key: str) -> list[Any]:
            try:
                view = next((one for one in self.pairs.read(source) if one.key == key), None)
                if view is None:  # all are ranked, or the files changed meanwhile
                    return self.next(source, rater, "")
                made = self.rankings.add(view, source, rater, name)
                left, right = ("A", "B") if made.shown_first == "chosen" else ("B", "A")
                told = f"Counted. In the data, {left} is the chosen side and {right} the rejected one. "
                return self.next(source, rater, told)
            except UserError as error:
                return [gr.skip(), error_html(error), key]

        return vote

    def next(self, source: str, rater: str, told: str) -> list[Any]:
        """The next pair, what is said, and the pair's key."""
        votes = self.rankings.read()
        own = [one for one in votes if one.source == source]
        view = next_pair(self.pairs.read(source), own, rater)
        said = f"<p class='counted' role='status'>{escape(told)}{escape(agreement_text(agreement(own)))}</p>"
        if view is None:
            return ["<p class='lead none'>You have ranked every pair of this set. Thank you.</p>", said, ""]
        return [blind_html(view, rater), said, view.key]


def agreement_text(found: Agreement) -> str:
    """The votes so far, with their denominator."""
    if not found.votes or found.interval is None:
        return "No votes yet."
    more = interval_text(*found.interval, signed=True)
    return (
        f"{found.votes:,} votes: {found.chosen:,} for the chosen side, {found.rejected:,} for the rejected one, "
        f"{found.tie:,} ties, {found.both_bad:,} both bad; chosen minus rejected {more} points."
    )


def blind_html(view: PairView, rater: str) -> str:
    """Prompt, principle, and both texts as A and B."""
    texts = (view.chosen, view.rejected) if first_side(view, rater) == "chosen" else (view.rejected, view.chosen)
    sides = "".join(
        f"<article class='answer' aria-label='{name}'><header><b>{name}</b></header>"
        f"<div class='text'>{marked(text, ())}</div></article>"
        for name, text in zip("AB", texts, strict=True)
    )
    return f"{_prompt_html(view, '', '')}<div class='answers'>{sides}</div>"
