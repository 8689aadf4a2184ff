"""Answers to prompts, put together from parts. Prompts come in twins, so that a prompt alone tells nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Literal

from runs.config import StrictModel
from safety_classifier.examples import Example, Preference
from safety_classifier.synthetic.grammar import digest, fill, lexicon, lines, seeded, sentence_case, words
from safety_classifier.synthetic.registers import dress
from safety_classifier.synthetic.texts import FunctionalClass, Prompt, classes, render

Audience = Literal["harmful", "harmless", "method", "abusive", "civil", "distress", "sad", "apology"]
"""The prompts that a mode meets: requests, statements about people, cries for help, and tasks about apologies."""

_CIVIL = ("identity_positive", "counter_negated", "counter_direct", "hate_of_things", "blunt_criticism", "reclaimed")
_DISTRESS = ("suicidal_ideation", "suicide_plan", "burden_implicit", "self_injury", "suicide_method", "eating_disorder")
_SAD = ("low_mood", "grief")


class Mode(StrictModel):
    """A way of answering, and what it says about the response heads."""

    name: str
    audience: Audience
    parts: str
    """Parts in order: ``a|b`` takes one of them, ``a?`` is optional, ``a+b`` lists two to five entries of both."""
    refusal: float | None
    harmful: float | None
    count: int

    @property
    def labels(self) -> dict[str, float]:
        """The response heads that the mode determines."""
        heads = {"refusal": self.refusal, "harmful_response": self.harmful}
        return {name: value for name, value in heads.items() if value is not None}


def _mode(
    name: str, audience: Audience, parts: str, count: int, *, refusal: float | None = None, harmful: float | None = None
) -> Mode:
    return Mode(name=name, audience=audience, parts=parts, refusal=refusal, harmful=harmful, count=count)


MODES = (
    _mode("refusal_engaged", "harmful", "decline reason? alternative?", 500, refusal=1, harmful=0),
    _mode("refusal_reordered", "harmful", "pseudo_calm decline reason alternative", 150, refusal=1, harmful=0),
    _mode("refusal_bare", "harmful", "bare", 150, refusal=1, harmful=0),
    _mode("refusal_premise", "harmful", "premise alternative?", 120, refusal=1, harmful=0),
    _mode("refusal_warning", "harmful", "warning reason? alternative?", 120, refusal=1, harmful=0),
    _mode("refusal_of_method", "method", "decline support? support_more", 180, refusal=1, harmful=0),
    _mode("compliance_with_method", "method", "comply_open step+step_harm", 120, refusal=0, harmful=1),
    _mode("refusal_of_harmless", "harmless", "decline|bare reason? alternative?", 350, refusal=1, harmful=0),
    _mode("compliance_harmful", "harmful", "comply_open step+step_harm comply_close?", 500, refusal=0, harmful=1),
    _mode("compliance_eager", "harmful", "comply_open step|step_harm comply_close?", 200, refusal=0, harmful=1),
    _mode("compliance_harmless", "harmless", "comply_open step+step_safe comply_close?", 500, refusal=0, harmful=0),
    _mode("compliance_short", "harmless", "comply_open step|step_safe comply_close?", 200, refusal=0, harmful=0),
    _mode("pseudo_refusal_harmful", "harmful", "pseudo_open comply_open? step+step_harm", 200, refusal=0, harmful=1),
    _mode("pseudo_refusal_harmless", "harmless", "pseudo_open comply_open? step+step_safe", 300, refusal=0, harmful=0),
    _mode("partial_compliance", "harmful", "partial_open step+step_harm", 160, harmful=1),
    _mode("refusal_words_in_content", "apology", "answer", 300, refusal=0, harmful=0),
    _mode("deflection", "harmful", "deflect", 120, harmful=0),
    _mode("agrees_with_abuse", "abusive", "agree agree_more?", 260, refusal=0, harmful=1),
    _mode("disagrees_with_abuse", "abusive", "disagree disagree_more?", 260, harmful=0),
    _mode("agrees_with_civil", "civil", "agree agree_more?", 260, refusal=0, harmful=0),
    _mode("supports_distress", "distress", "support support_more support_more?", 260, harmful=0),
    _mode("worsens_distress", "distress", "encourage encourage_more?", 260, refusal=0, harmful=1),
    _mode("supports_sad", "sad", "support support_more?", 120, refusal=0, harmful=0),
)
"""Every mode. *Deflection*, *partial compliance* and support leave the refusal open: people disagree on it."""

RUDE = _mode("rude", "harmless", "rude", 0)
"""Only ever the worse of two: whether rudeness does harm is arguable, that courtesy does less is not."""

_CHOICES: tuple[tuple[str, str, int], ...] = (
    ("refusal_engaged", "compliance_harmful", 320),
    ("refusal_engaged", "pseudo_refusal_harmful", 120),
    ("refusal_warning", "compliance_eager", 120),
    ("refusal_premise", "partial_compliance", 100),
    ("refusal_bare", "compliance_harmful", 100),
    ("refusal_of_method", "compliance_with_method", 160),
    ("disagrees_with_abuse", "agrees_with_abuse", 240),
    ("supports_distress", "worsens_distress", 260),
    ("compliance_harmless", "rude", 240),
    ("compliance_short", "rude", 100),
)
"""Which mode people prefer to which, and how many pairs."""


@cache
def _part(name: str) -> tuple[str, ...]:
    return lines(lexicon("responses")[name])


@cache
def _audience(audience: Audience) -> tuple[FunctionalClass, ...]:
    """The classes whose texts are prompts for this audience."""
    named = {"civil": _CIVIL, "distress": _DISTRESS, "sad": _SAD}
    if audience in named:
        return tuple(kind for kind in classes() if kind.name in named[audience])
    if audience == "abusive":
        people = ("hate", "toxicity")
        return tuple(kind for kind in classes() if kind.positive and kind.wrap == "statement" and kind.family in people)
    requests = (kind for kind in classes() if kind.wrap == "request")
    if audience == "harmless":
        return tuple(kind for kind in requests if not kind.positive)
    # Whoever asks how to die needs another answer than whoever asks how to steal.
    return tuple(kind for kind in requests if kind.positive and (kind.family == "self_harm") == (audience == "method"))


def _prompt(audience: Audience, rng: random.Random) -> Prompt:
    identity = rng.choice(words().identities)
    kind = rng.choice(_audience(audience))
    return render(kind, rng.choice(kind.frames), rng, identity)


def _answer(mode: Mode, prompt: Prompt, rng: random.Random) -> tuple[str, str]:
    """An answer, and the template of its first part."""
    said: list[str] = []
    core = ""
    for part in mode.parts.split():
        if part.endswith("?") and rng.random() < 0.4:
            continue
        chosen = _draw(part.replace("?", ""), rng)
        core = core or chosen[0]
        # Only the template names the act: alternatives inside an act were settled when the prompt was made.
        filled = [fill(line.replace("{act}", "\x00"), rng, rng.choice(words().identities)) for line in chosen]
        said.append(_listed([line.replace("\x00", prompt.act) for line in filled], rng))
    return _spelt(" ".join(said).replace("\n ", "\n"), rng), core


def _draw(part: str, rng: random.Random) -> list[str]:
    if "+" in part:
        pool = [line for name in part.split("+") for line in _part(name)]
        return rng.sample(pool, rng.randint(2, 5))
    return [rng.choice(_part(rng.choice(part.split("|"))))]


def _listed(entries: list[str], rng: random.Random) -> str:
    style = rng.random() if len(entries) > 1 else 1.0
    if style < 0.25:
        return "\n" + "\n".join(f"{number}. {entry}" for number, entry in enumerate(entries, 1)) + "\n"
    if style < 0.4:
        return "\n" + "\n".join(f"- {entry}" for entry in entries) + "\n"
    return " ".join(entries)


def _spelt(text: str, rng: random.Random) -> str:
    text = sentence_case(text.strip())
    roll = rng.random()
    if roll < 0.25:
        return text.replace("'", "’")
    return text.lower() if roll < 0.32 else text


def _exchange(mode: Mode, rng: random.Random) -> tuple[Prompt, str, str]:
    """A prompt, its answer, and the template that makes them one group."""
    if mode.audience != "apology":
        prompt = _prompt(mode.audience, rng)
        return prompt, *_answer(mode, prompt, rng)
    task = rng.choice(_part("apology_tasks"))
    # Both sides fill as one text, so that the answer speaks of the same person and place as the task.
    asked, answered = fill(task, rng, words().identities[0]).split(" => ")
    return Prompt(text=dress(asked, rng), act=asked, frame=digest(task)), _spelt(answered, rng), task


def responses(seed: int, per_template: int | None = None) -> Iterator[Example]:
    """Labelled answers; with ``per_template``, that many for every opening that the mode knows."""
    seen: set[tuple[str, str]] = set()
    for mode in MODES:
        rng = seeded(seed, "response", mode.name)
        wanted = mode.count if per_template is None else per_template * len(_openings(mode))
        for _ in range(wanted):
            prompt, answer, core = _exchange(mode, rng)
            if (prompt.text, answer) not in seen:
                seen.add((prompt.text, answer))
                group = f"synthetic/response_{mode.name}/{digest(core)}"
                yield Example(text=answer, context=prompt.text, labels=mode.labels, source="synthetic", group=group)


def _openings(mode: Mode) -> list[str]:
    if mode.audience == "apology":
        return list(_part("apology_tasks"))
    first = mode.parts.split()[0].replace("?", "")
    return [line for name in first.replace("+", "|").split("|") for line in _part(name)]


def preferred(seed: int) -> Iterator[Preference]:
    """Pairs of answers to one prompt, of which the first does less harm."""
    modes = {mode.name: mode for mode in (*MODES, RUDE)}
    for better, worse, count in _CHOICES:
        rng = seeded(seed, "preference", better, worse)
        for _ in range(count):
            prompt = _prompt(modes[better].audience, rng)
            chosen, core = _answer(modes[better], prompt, rng)
            rejected, _ = _answer(modes[worse], prompt, rng)
            yield Preference(
                context=prompt.text,
                chosen=chosen,
                rejected=rejected,
                head="harmlessness",
                source="synthetic",
                group=f"synthetic/preference_{better}_{worse}/{digest(core)}",
            )
