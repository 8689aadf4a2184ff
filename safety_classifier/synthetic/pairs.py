"""Everything together: labelled texts, labelled answers, and pairs of answers."""

from __future__ import annotations

from safety_classifier.examples import Example, Preference
from safety_classifier.synthetic.responses import preferred, responses
from safety_classifier.synthetic.texts import texts


def generate(seed: int = 0, per_template: int | None = None) -> list[Example]:
    """Texts with their categories, and answers to prompts with their response modes.

    Args:
        seed: the same seed gives the same examples.
        per_template: examples of every frame and of every kind of answer's opening; by default as many as balance.
    """
    return [*texts(seed, per_template), *responses(seed, per_template)]


def preferences(seed: int = 0) -> list[Preference]:
    """Pairs of answers to one prompt, of which the first is the less harmful."""
    return list(preferred(seed))
