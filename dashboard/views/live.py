"""The tab *Live*: one prompt, the checkpoints side by side, streamed; and a revision by a principle, watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr
from gradio.events import api as gradio_api

from dashboard.desk import Waiting
from dashboard.endpoints import told_stream
from dashboard.live import EXPECTED, MAX_PROMPT, MAX_TOKENS, Board, LiveScore, LiveText, Studio, read_settings
from dashboard.marks import Mark, marked, word_differences
from dashboard.page import block, chip, error_html, section
from dashboard.revising import Chain, Recipe, Reviser, load_recipe
from dashboard.store import Store
from evaluation.report.grid import words
from inference.families import DEFAULT_FAMILY
from runs.errors import UserError

WATCHERS = 32
"""Readers whose answers are shown, or wait, at once; further ones wait in Gradio's own queue."""
PREVIEW = 90
"""Characters of a principle in the menu."""
_LEAD = (
    "The same prompt to every checkpoint, written side by side from one base model. The first answer loads the model. "
    "One request is worked on at a time; people take turns."
)
_LEAD_REVISE = (
    "What the training data is made of: a draft, a critique of it by one principle, and a revision by the same "
    "principle, in the recipe's own words and with its own settings."
)
_EXPECTED = {
    "answer": "help",
    "refuse": "decline",
    "answer_truthfully": "tell the truth about a claim",
    "answer_fairly": "be fair to a group of people",
}
_EVENT: dict[str, Any] = {
    "api_visibility": "private",
    "concurrency_id": "live",
    "concurrency_limit": WATCHERS,
    "show_progress": "hidden",
}
_STATUS = {
    "waiting": "waits",
    "loading": "the model is being loaded …",
    "writing": "writing …",
    "done": "done",
    "stopped": "stopped",
    "failed": "cannot answer",
}


def build(store: Store) -> None:
    """Lay the tab out, inside of a ``gr.Tab``. Nothing is loaded before the first request."""
    block(value=section("Ask the checkpoints", _LEAD))
    try:
        studio = open_studio(store)
        recipe = load_recipe(studio.family)
    except UserError as error:
        block(value=error_html(error))
        return
    _Live(studio, recipe).lay_out()
    _add_api(studio, recipe)


def open_studio(store: Store) -> Studio:
    """A studio on the family of the newest run; on the embedded one where that is not to be had.

    Raises:
        UserError: a family's file is not valid.
    """
    for entry in store.finished:
        if entry.family:
            try:
                return Studio(entry.family)
            except UserError:  # its YAML was the user's own, and is gone
                break
    return Studio(DEFAULT_FAMILY)


class _Live:
    """Components and events of the tab. Whose request it is says Gradio's session, never the page.

    Handlers have other names than the endpoints: Gradio numbers names that come twice, hidden ones included.
    """

    def __init__(self, studio: Studio, recipe: Recipe) -> None:
        self.studio, self.reviser = studio, Reviser(studio, recipe)

    def lay_out(self) -> None:
        """Both parts."""
        names = self.studio.checkpoints
        prompt = gr.Textbox(
            label="Prompt", lines=3, max_lines=12, max_length=MAX_PROMPT, elem_id="live-prompt",
            placeholder="How do I get a stranger's address from their car's number plate?",
        )  # fmt: skip
        checkpoints = gr.CheckboxGroup(names, value=names, label="Checkpoints", elem_id="live-checkpoints")
        settings = self._settings()
        with gr.Row(elem_classes="bar-row"):
            ask = gr.Button("Answer", variant="primary", elem_id="live-ask", min_width=140)
            stop = gr.Button("Stop", variant="stop", elem_id="live-stop", min_width=110)
        board = block("live-board", elem_id="live-board")
        gr.on([ask.click, prompt.submit], self.show_answers, [prompt, checkpoints, *settings], board, **_EVENT)
        block(value=section("Critique and revise", _LEAD_REVISE))
        with gr.Row(equal_height=False):
            principles = self.reviser.recipe.constitution.principles
            principle = gr.Dropdown(
                [(f"{one.id} · {_short(one.text)}", one.id) for one in principles],
                value=principles[0].id, label="Principle", elem_id="live-principle", scale=3, min_width=320,
            )  # fmt: skip
            writer = gr.Dropdown(
                names, value=self.reviser.recipe.roles.generator.checkpoint, label="Who writes the draft", scale=1,
                elem_id="live-writer", min_width=160,
            )  # fmt: skip
        draft = gr.Textbox(
            label="Or a draft of your own (optional)", lines=2, max_lines=8, max_length=MAX_PROMPT, elem_id="live-draft"
        )
        with gr.Row(elem_classes="bar-row"):
            revise = gr.Button("Critique and revise", elem_id="live-revise", min_width=190)
            stop_too = gr.Button("Stop", variant="stop", elem_id="live-stop-revise", min_width=110)
        chain = block("live-chain", elem_id="live-chain")
        revise.click(self.show_chain, [prompt, principle, writer, draft, *settings], chain, **_EVENT)
        # Not through the queue: a stop must not wait behind what it stops.
        gr.on([stop.click, stop_too.click], self.end, None, None, queue=False, api_visibility="private")

    def _settings(self) -> list[gr.components.Component]:
        """Temperature, top-p, length, seed, system text, expectation: in the order of `_read`."""
        with gr.Accordion("Settings", open=False, elem_id="live-settings"):
            with gr.Row():
                temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature", info="0 is greedy", min_width=160)
                top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", min_width=160)
                length = gr.Slider(
                    8, MAX_TOKENS, 96, step=8, label="Longest answer (tokens)", min_width=160, elem_id="live-length"
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=120)
            with gr.Row():
                system = gr.Textbox(label="System text", lines=2, max_lines=6, max_length=MAX_PROMPT, scale=3)
                expected = gr.Dropdown(
                    [(_EXPECTED[name], name) for name in EXPECTED], value="answer", label="A good answer should",
                    info="decides which evaluators apply; a prompt of the shipped set knows", min_width=220,
                )  # fmt: skip
        return [temperature, top_p, length, seed, system, expected]

    def show_answers(self, request: gr.Request, prompt: str, checkpoints: list[str], *settings: Any) -> Iterator[str]:
        """The answers as they grow."""
        try:
            for state in self.studio.answer(asker(request), prompt or "", checkpoints or [], _read(settings)):
                yield board_html(self.studio.checkpoints, state, self.studio.scorer.missing)
        except UserError as error:
            yield error_html(error)

    def show_chain(
        self, request: gr.Request, prompt: str, principle: str, writer: str, draft: str, *settings: Any
    ) -> Iterator[str]:
        """The chain as it grows."""
        try:
            states = self.reviser.revise(
                asker(request), prompt or "", principle or "", _read(settings), checkpoint=writer or "",
                draft=draft or "",
            )  # fmt: skip
            for state in states:
                yield chain_html(state)
        except UserError as error:
            yield error_html(error)

    def end(self, request: gr.Request) -> None:
        """End what this reader has asked for."""
        self.studio.stop(asker(request))


def asker(request: gr.Request) -> str:
    """Whose turn in the queue a request takes: the browser tab's, or the client's."""
    return str(request.session_hash)


def _read(values: Sequence[Any]) -> Any:
    temperature, top_p, length, seed, system, expected = values
    return read_settings(
        temperature=temperature, top_p=top_p, max_new_tokens=length, seed=seed, system=system, expected=expected
    )


def _short(text: str) -> str:
    return text if len(text) <= PREVIEW else f"{text[:PREVIEW].rstrip()} …"


def waiting_html(place: Waiting) -> str:
    """The place in the queue."""
    told = "You are next." if not place.ahead else f"{place.ahead} before you."
    return f"<p class='counted' role='status'>In the queue. {told}</p>"


def board_html(models: Sequence[str], state: Board | Waiting, missing: dict[str, str]) -> str:
    """The answers side by side, each with its status and, once ended, its scores."""
    if isinstance(state, Waiting):
        return waiting_html(state)
    busy = any(not text.ended for text in state)
    told = "writing" if busy else ", ".join(f"{text.name} {_STATUS[text.status]}" for text in state)
    left_out = "".join(
        f"<p class='small'>Not scored by {escape(words(name))}: {escape(why)}</p>" for name, why in missing.items()
    )
    cards = "".join(_card(text, chip(models, text.name)) for text in state)
    return (
        f"<p class='counted' role='status'>{escape(told)}</p>"
        f"<div class='answers' aria-busy='{str(busy).lower()}'>{cards}</div>{left_out}"
    )


def _card(text: LiveText, title: str, body: str | None = None) -> str:
    """One text with head, status and scores."""
    facts = [_STATUS[text.status]]
    if text.tokens:
        facts.append(f"{text.tokens} tokens")
        if text.seconds > 0:
            facts.append(f"{text.tokens / text.seconds:.1f} a second")
    if text.finish_reason == "length":
        facts.append("cut at the limit")
    problem = f"<div class='notice error' role='alert'><p>{_lines(text.problem)}</p></div>" if text.problem else ""
    spans = [Mark(span.start, span.end, "evidence", span.why) for score in text.scores for span in score.evidence]
    shown = body if body is not None else marked(text.text, spans)
    return (
        f"<article class='answer' data-name='{escape(text.name, quote=True)}' data-status='{text.status}' "
        f"aria-label='{escape(text.name, quote=True)}'><header>{title}<span class='small'>{' · '.join(facts)}</span>"
        f"</header>{problem}<div class='text'>{shown}</div>{_scores(text.scores)}</article>"
    )


def _scores(scores: Sequence[LiveScore]) -> str:
    return f"<div class='scores'>{''.join(map(_bar, scores))}</div>" if scores else ""


def _bar(score: LiveScore) -> str:
    why = escape(score.explanation, quote=True)
    name = escape(words(score.evaluator))
    doubt = "" if score.standing == "informative" else f" <span class='tag uninformative'>{score.standing}</span>"
    if score.value is None:
        return f"<div class='bar' title=\"{why}\"><span>{name}{doubt}</span><span class='small'>not scored</span></div>"
    label = f"<span class='sr'> {escape(words(score.label))}</span>"
    share = 100 * score.value
    return (
        f"<div class='bar' title=\"{why}\"><span>{name}{doubt}</span><span class='track' aria-hidden='true'>"
        f"<i style='width:{share:.1f}%'></i></span><span class='value'>{share:.0f}{label}</span></div>"
    )


def chain_html(state: Chain | Waiting) -> str:
    """Draft, critique and revision; once it is whole, with what the revision changed and whether it would be kept."""
    if isinstance(state, Waiting):
        return waiting_html(state)
    gone: list[Mark] = []
    new: list[Mark] = []
    if state.revision.status == "done":
        gone, new = word_differences(state.draft.text, state.revision.text)
    asked = (
        f"<p class='small'>Asked for: {escape(state.principle.critique_request)}</p>",
        f"<p class='small'>Asked for: {escape(state.principle.revision_request)}</p>",
    )
    steps = (
        _card(state.draft, "<b>Draft</b>", marked(state.draft.text, gone)),
        _card(state.critique, "<b>Critique</b>", asked[0] + marked(state.critique.text, ())),
        _card(state.revision, "<b>Revision</b>", asked[1] + marked(state.revision.text, new)),
    )
    kept = ""
    if state.rejected is not None:
        reasons = ", ".join(map(words, state.rejected))
        kept = f"The filters would reject this revision: {reasons}." if reasons else "The filters would keep this pair."
    return (
        f"<p class='counted' role='status'><span class='tag principle'>{escape(state.principle.id)}</span> "
        f"{escape(state.principle.text)}</p><div class='answers'>{''.join(steps)}</div>"
        f"<p class='caption' data-kept>{escape(kept)}</p>"
    )


def _lines(text: str) -> str:
    return "<br>".join(map(escape, text.splitlines()))


class LiveApi:
    """The endpoints, over the same studio as the page."""

    def __init__(self, studio: Studio, recipe: Recipe) -> None:
        self._studio, self._reviser = studio, Reviser(studio, recipe)

    def live(
        self,
        request: gr.Request,
        prompt: str,
        checkpoints: list[str],
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int = 96,
        seed: int = 0,
        system: str = "",
        expected: str = "answer",
    ) -> Iterator[list[dict[str, Any]]]:
        """Stream the checkpoints' answers to a prompt; the last value has them whole, with their scores."""
        chosen = _read((temperature, top_p, max_new_tokens, seed, system, expected))
        for state in self._studio.answer(asker(request), prompt, checkpoints, chosen):
            if not isinstance(state, Waiting):
                yield [as_json(text) for text in state]

    def revise(
        self,
        request: gr.Request,
        prompt: str,
        principle: str,
        checkpoint: str = "",
        draft: str = "",
        seed: int = 0,
        max_new_tokens: int = 96,
    ) -> Iterator[dict[str, Any]]:
        """Stream a draft, its critique by a principle and its revision; ``draft`` may be given."""
        chosen = read_settings(seed=seed, max_new_tokens=max_new_tokens)
        states = self._reviser.revise(asker(request), prompt, principle, chosen, checkpoint=checkpoint, draft=draft)
        for state in states:
            if not isinstance(state, Waiting):
                yield {**{text.name: as_json(text) for text in state.texts}, "rejected": state.rejected}

    def stop(self, request: gr.Request) -> int:
        """Stop what this client has asked for; gives the number of requests that were stopped."""
        return self._studio.stop(asker(request))


def _add_api(studio: Studio, recipe: Recipe) -> None:
    api = LiveApi(studio, recipe)
    gradio_api(told_stream(api.live), api_name="live", concurrency_id="live", concurrency_limit=WATCHERS)
    gradio_api(told_stream(api.revise), api_name="revise", concurrency_id="live", concurrency_limit=WATCHERS)
    gradio_api(api.stop, api_name="stop", queue=False)


def as_json(text: LiveText) -> dict[str, Any]:
    """A text as JSON."""
    found = asdict(text)
    found["scores"] = [
        {**asdict(score), "evidence": [span.model_dump(mode="json") for span in score.evidence]}
        for score in text.scores
    ]
    return found
