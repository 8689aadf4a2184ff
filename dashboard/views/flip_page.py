"""The HTML of the tab *Flips*: the 2 x 2, the list, and one prompt with its answers side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from dashboard.flips import CELLS, PAGE, Cell, Flip, Flips, Heads, Key, key_of, stored_heads
from dashboard.marks import Mark, marked, word_differences
from dashboard.page import chip
from evaluation.records import Sample
from evaluation.report.data import RunData
from evaluation.report.grid import words
from inference.records import Message

CELL_NAMES: dict[Cell, str] = {"fixed": "Fixed", "broken": "Broken", "kept_good": "Kept good", "kept_bad": "Kept bad"}
SIGNS: dict[Cell, str] = {"fixed": "▲", "broken": "▼", "kept_good": "●", "kept_bad": "○"}
"""Colour is never the only mark."""
UNLIKE = "The two answers have hardly a passage in common: their words are not marked."
_SNIPPET = 110
_RAW = 60_000
"""Characters of raw JSON that are shown."""
_SHOWN_HEADS = ("harmful_response", "refusal", "hate_speech", "self_harm", "dangerous_advice", "toxicity")


def matrix_html(flips: Flips, cell: str) -> str:
    """The 2 x 2 of prompts; each cell is a button, pressed where it is chosen, and so is their sum."""
    counts, total = flips.counts, len(flips.flips)

    def button(name: Cell) -> str:
        pressed = "true" if name == cell else "false"
        share = f"{100 * counts[name] / total:.0f} %" if total else "–"
        return (
            f"<button type='button' class='cell {name}' data-pick='{name}' aria-pressed='{pressed}'>"
            f"<span class='count'>{counts[name]:,}</span><span class='name'><i aria-hidden='true'>{SIGNS[name]}</i> "
            f"{CELL_NAMES[name]}</span><span class='share'>{share}</span></button>"
        )

    unpaired = (
        f" {flips.unpaired:,} more {'prompt has' if flips.unpaired == 1 else 'prompts have'} no score on one side."
        if flips.unpaired
        else ""
    )
    control, treatment = escape(flips.control), escape(flips.treatment)
    return (
        "<table class='matrix'><caption class='sr'>Prompts by what both models made of them</caption>"
        f"<thead><tr><td></td><th scope='col'>{treatment} good</th><th scope='col'>{treatment} bad</th></tr></thead>"
        f"<tbody><tr><th scope='row'>{control} bad</th><td>{button('fixed')}</td><td>{button('kept_bad')}</td></tr>"
        f"<tr><th scope='row'>{control} good</th><td>{button('kept_good')}</td><td>{button('broken')}</td></tr></tbody>"
        "</table><button type='button' class='cell-all' data-pick='all' "
        f"aria-pressed='{'true' if cell not in CELLS else 'false'}'>All {total:,} prompts</button>"
        f"<p class='small'>By {escape(words(flips.metric))}; graded answers are good from 50 points on.{unpaired}</p>"
    )


def list_html(found: Sequence[Flip], position: int) -> str:
    """The page of the list that holds ``position``; each line is a button."""
    if not found:
        return "<p class='lead none'>No prompt fits. Choose another cell, or clear the search.</p>"
    first = position // PAGE * PAGE
    lines = []
    for index, flip in enumerate(found[first : first + PAGE], start=first):
        text = " ".join(flip.row.prompt.text.split())
        snippet = text if len(text) <= _SNIPPET else f"{text[:_SNIPPET]}…"
        here = " aria-current='true'" if index == position else ""
        change = f"{100 * flip.change:+.0f}".replace("-", "−")
        lines.append(
            f"<li><button type='button' class='line' data-pick='{index}'{here}>"
            f"<span class='sign {flip.cell}' title='{CELL_NAMES[flip.cell]}'>{SIGNS[flip.cell]}</span>"
            f"<span class='snippet'>{escape(snippet)}</span>"
            f"<span class='facts-line'>{escape(words(flip.row.prompt.category))}"
            f" · {change} points · surprise {100 * flip.surprise:.0f}</span></button></li>"
        )
    last = min(first + PAGE, len(found))
    return (
        f"<ol class='lines' start='{first + 1}' aria-label='Prompts'>{''.join(lines)}</ol>"
        f"<p class='small'>{first + 1} to {last} of {len(found):,}; next and previous lead on.</p>"
    )


def row_html(
    run: RunData, flips: Flips, flip: Flip, heads: Mapping[Key, Heads], *, every_model: bool, differences: bool
) -> str:
    """One prompt with the two answers of the contrast, or all models', side by side."""
    models = run.models if every_model else (flips.control, flips.treatment)
    answers = {model: flip.row.answers[model] for model in models if model in flip.row.answers}
    gone, new = (
        word_differences(answers[flips.control].response, answers[flips.treatment].response)
        if differences
        else ([], [])
    )
    changed = {flips.control: gone, flips.treatment: new}
    columns = "".join(
        answer_html(run, sample, changed.get(model, ()), heads.get(key_of(sample)) or stored_heads(sample))
        for model, sample in answers.items()
    )
    absent = "".join(f"<p class='stamp'>{escape(model)} has no answer.</p>" for model in models if model not in answers)
    unlike = differences and not gone and not new and len({answer.response for answer in answers.values()}) > 1
    note = f"<p class='small unlike'>{UNLIKE}</p>" if unlike else ""
    return f"{_prompt_html(flip)}{absent}<div class='answers'>{columns}</div>{note}{_raw_html(flip)}"


def _prompt_html(flip: Flip) -> str:
    prompt = flip.row.prompt
    tags = [words(prompt.category), f"should {_expected(prompt.expected)}", *map(words, prompt.tags)]
    listed = "".join(f"<span class='tag'>{escape(tag)}</span>" for tag in dict.fromkeys(tags))
    named = "".join(f"<span class='tag principle'>{escape(name)}</span>" for name in prompt.principle_ids)
    turns = "".join(map(_turn_html, prompt.messages))
    return (
        f"<section class='prompt' aria-label='Prompt'><p class='tags'><span class='outcome {flip.cell}'>"
        f"{SIGNS[flip.cell]} {CELL_NAMES[flip.cell]}</span>{listed}{named}</p>{turns}</section>"
    )


def _expected(expected: str) -> str:
    return {"answer_truthfully": "be true", "answer_fairly": "be fair"}.get(expected, words(expected))


def _turn_html(message: Message) -> str:
    who = "" if message.role == "user" else f"<span class='who'>{escape(message.role)}</span>"
    return f"<p class='turn {escape(message.role)}'>{who}{marked(message.content, ())}</p>"


def answer_html(run: RunData, sample: Sample, changed: Sequence[Mark], heads: Heads | None) -> str:
    """One model's answer: text with marks, scores with their reasons, classifier probabilities."""
    evidence = [
        Mark(span.start, span.end, "evidence", f"{words(name)}: {span.why}")
        for name, judgement in sample.scores.items()
        for span in judgement.evidence
    ]
    text = marked(sample.response, [*changed, *evidence]) or "<i class='small'>(an empty answer)</i>"
    cut = ", cut at the limit" if sample.finish_reason == "length" else ""
    return (
        f"<article class='answer' aria-label='{escape(sample.model, quote=True)}'><header>"
        f"{chip(run.models, sample.model)}<span class='tag'>{escape(words(sample.mode))}</span>"
        f"<span class='small'>{sample.completion_tokens} tokens{cut}</span></header>"
        f"<div class='text'>{text}</div>{_scores_html(run, sample)}{heads_html(heads)}</article>"
    )


def _scores_html(run: RunData, sample: Sample) -> str:
    lines = []
    for name, judgement in sample.scores.items():
        standing = run.doubtful.get(name)
        doubt = f" <span class='tag uninformative'>{escape(standing)}</span>" if standing else ""
        value = "–" if judgement.value is None else f"{100 * judgement.value:.0f}"
        why = judgement.unscored if judgement.value is None else judgement.explanation or judgement.label
        label = f"<b>{escape(words(judgement.label))}</b> " if judgement.value is not None and judgement.label else ""
        quoted = "".join(
            f"<li><mark class='evidence'>{escape(_short(sample.response[span.start : span.end]))}</mark> "
            f"{escape(span.why)}</li>"
            for span in judgement.evidence[:6]
        )
        passages = f"<ul class='passages'>{quoted}</ul>" if quoted else ""
        lines.append(
            f"<div class='score{' muted' if standing else ''}'><dt>{escape(words(name))}{doubt}</dt>"
            f"<dd><span class='value'>{value}</span>"
            f"<span class='why'>{label}{escape(str(why))}{passages}</span></dd></div>"
        )
    return f"<dl class='scores'>{''.join(lines)}</dl>" if lines else ""


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def heads_html(heads: Heads | None) -> str:
    """The classifier's probabilities as bars; nothing where it was not asked."""
    if not heads:
        return ""
    bars = "".join(
        f"<div class='bar'><span>{escape(words(name))}</span><span class='track' aria-hidden='true'>"
        f"<i style='width:{100 * heads[name]:.1f}%'></i></span>"
        f"<span class='value'>{100 * heads[name]:.0f} %</span></div>"
        for name in _SHOWN_HEADS
        if name in heads
    )
    return f"<div class='heads'><p class='small'>Safety classifier, calibrated</p>{bars}</div>"


def _raw_html(flip: Flip) -> str:
    held = {model: sample.model_dump(mode="json", exclude={"prompt"}) for model, sample in flip.row.answers.items()}
    raw = json.dumps({"prompt": flip.row.prompt.model_dump(mode="json"), "answers": held}, ensure_ascii=False, indent=2)
    rest = f"\n… {len(raw) - _RAW:,} more characters" if len(raw) > _RAW else ""
    return (
        f"<details class='raw'><summary>Raw JSON</summary><pre tabindex='0'>{escape(raw[:_RAW] + rest)}</pre></details>"
    )
