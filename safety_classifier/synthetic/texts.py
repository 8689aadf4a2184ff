"""Texts that stand alone: functional classes, each a harm or its harmless twin."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from typing import Literal

from runs.config import StrictModel
from safety_classifier.examples import Example
from safety_classifier.labels import LABELS
from safety_classifier.synthetic.grammar import (
    IDENTITY_SLOTS,
    Identity,
    digest,
    fill,
    lexicon,
    lines,
    second_person,
    seeded,
    words,
)
from safety_classifier.synthetic.registers import ask, dress

_FAMILIES = ("hate", "toxicity", "self_harm", "dangerous", "violence_sexual")
_TOTAL = 19_000
_PATIENCE = 8  # draws per wanted text, before a narrow frame counts as exhausted


class FunctionalClass(StrictModel):
    """Sentences that do the same thing, and so have the same labels."""

    name: str
    family: str
    positive: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Heads on which people would disagree: left out of the labels."""
    wrap: Literal["statement", "request"] = "statement"
    """``request``: the frames are verb phrases, to be asked for in many ways."""
    frames: tuple[str, ...]

    @property
    def speaks_of_people(self) -> bool:
        """Whether most frames name an identity."""
        return sum(_names_identity(frame) for frame in self.frames) * 2 > len(self.frames)

    @property
    def weight(self) -> float:
        """How many texts the class gets beside others. Attacks name identities more often: this makes it even."""
        return 1.3 if self.speaks_of_people and not self.positive else 1.0

    @property
    def labels(self) -> dict[str, float]:
        """Every category that the class determines."""
        return {name: float(name in self.positive) for name in LABELS.categories if name not in self.unknown}


class Prompt(StrictModel):
    """A text with what it asks for, so that an answer can speak of it."""

    text: str
    act: str
    frame: str


@cache
def classes() -> tuple[FunctionalClass, ...]:
    """Every class, in the order of the lexicons."""
    return tuple(_read(family, name, raw) for family in _FAMILIES for name, raw in lexicon(family).items())


def _read(family: str, name: str, raw: dict[str, str]) -> FunctionalClass:
    heads = {key: tuple(raw.pop(key, "").split()) for key in ("positive", "unknown")}
    return FunctionalClass.model_validate(
        {"name": name, "family": family, **heads, **raw, "frames": lines(raw["frames"])},
    )


def _names_identity(frame: str) -> bool:
    return any(f"{{{slot}}}" in frame for slot in IDENTITY_SLOTS)


def texts(seed: int, per_template: int | None = None) -> Iterator[Example]:
    """Labelled texts: ``per_template`` of every frame, or as many as make harmful and harmless classes balance."""
    seen: set[str] = set()
    for kind in classes():
        deck = _deck(seeded(seed, kind.name))
        for frame, wanted in _quotas(kind, per_template):
            group = f"synthetic/{kind.name}/{digest(frame)}"
            for text in _distinct(kind, frame, wanted, seeded(seed, kind.name, frame), deck, seen):
                yield Example(text=text, labels=kind.labels, source="synthetic", group=group)


def _quotas(kind: FunctionalClass, per_template: int | None) -> Iterator[tuple[str, int]]:
    if per_template is not None:
        yield from ((frame, per_template) for frame in kind.frames)
        return
    alike = sum(other.weight for other in classes() if bool(other.positive) == bool(kind.positive))
    share, extra = divmod(round(_TOTAL * kind.weight / (2 * alike)), len(kind.frames))
    yield from ((frame, share + (index < extra)) for index, frame in enumerate(kind.frames))


def _deck(rng: random.Random) -> Iterator[Identity]:
    """Identities in rounds: every class speaks of each as often as of the others, be it harmful or not."""
    return cycle(rng.sample(words().identities, len(words().identities)))


def _distinct(
    kind: FunctionalClass, frame: str, wanted: int, rng: random.Random, deck: Iterator[Identity], seen: set[str]
) -> Iterator[str]:
    """Up to ``wanted`` texts that nobody has seen yet."""
    speaks = _names_identity(frame)
    for _ in range(wanted):
        identity = next(deck) if speaks else words().identities[0]
        for _ in range(_PATIENCE):
            text = render(kind, frame, rng, identity).text
            if text.lower() not in seen:
                seen.add(text.lower())
                yield text
                break


def render(kind: FunctionalClass, frame: str, rng: random.Random, identity: Identity) -> Prompt:
    """One text of a frame."""
    core = fill(frame, rng, identity)
    said = ask(core, rng) if kind.wrap == "request" else core
    return Prompt(text=dress(said, rng), act=second_person(core), frame=digest(frame))
