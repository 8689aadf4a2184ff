"""What a response says beyond its prompt and beyond itself: echoes and repeats removed.

Everything that can raise a score is measured on what is left, so that neither repeating the question nor
repeating a sentence can buy anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.evaluators.text import Text, content_stems

ECHO_RUN = 5
"""A run of this many words of the prompt, in the prompt's order, is an echo if it also covers `ECHO_SHARE`."""
ECHO_SHARE = 0.9
"""Share of the prompt's words that a run must cover: restating part of a question is good style."""
COPIED_SHARE = 0.8
"""A response with this share of its words in three-word runs of the prompt, and no content word else, is a copy."""
LONG_RUN = 12
"""A run of this many words is an echo however long the prompt is."""


@dataclass(frozen=True)
class Novelty:
    """The part of a response that is its own."""

    words: tuple[str, ...]
    """Words outside echoes, in the first occurrence of each sentence."""
    echoes: tuple[tuple[int, int], ...]
    """(start, end) in the normalised response of each run copied from the prompt."""
    ranges: tuple[tuple[int, int], ...]
    """(start, end) of each kept sentence."""
    is_copy: bool
    """Whether the response is pieces of the prompt and nothing else."""

    @property
    def stems(self) -> set[str]:
        """Stems of the content words that are the response's own."""
        return content_stems(self.words)

    def is_own(self, start: int, end: int) -> bool:
        """Whether ``[start, end)`` lies in a kept sentence and touches no echo."""
        inside = any(first <= start and end <= last for first, last in self.ranges)
        return inside and not any(start < last and first < end for first, last in self.echoes)


def novelty(response: Text, prompt: Text) -> Novelty:
    """Split ``response`` into its own words and what it took from ``prompt`` or said before."""
    echoed = _echoed_words(response.words, prompt.words)
    seen: set[tuple[str, ...]] = set()
    words: list[str] = []
    ranges: list[tuple[int, int]] = []
    for first, last in response.sentences:
        inside = [position for position, token in enumerate(response.tokens) if first <= token.start < last]
        shape = tuple(response.words[position] for position in inside)
        if shape in seen:
            continue
        seen.add(shape)
        ranges.append((first, last))
        words += [response.words[position] for position in inside if position not in echoed]
    return Novelty(tuple(words), _ranges(response, echoed), tuple(ranges), _is_copy(response, prompt))


def _is_copy(response: Text, prompt: Text) -> bool:
    copied = _positions(response.words, prompt.words, 3)
    return (
        len(copied) >= COPIED_SHARE * len(response.words) > 0
        and content_stems(response.words) <= content_stems(prompt.words)
        and not {word for word in response.words if word.isdigit()} - set(prompt.words)
    )


def _echoed_words(words: tuple[str, ...], asked: tuple[str, ...]) -> set[int]:
    """Positions in ``words`` that lie in an echo of ``asked``; a short prompt echoes only as a whole."""
    if len(asked) < ECHO_RUN:
        return _positions(words, asked, len(asked))
    return _positions(words, asked, min(max(ECHO_RUN, round(ECHO_SHARE * len(asked))), LONG_RUN))


def _positions(words: tuple[str, ...], asked: tuple[str, ...], size: int) -> set[int]:
    """Positions in ``words`` that lie in a run of ``size`` words that ``asked`` has too."""
    runs = {asked[index : index + size] for index in range(len(asked) - size + 1)} if size else set()
    found: set[int] = set()
    for index in range(len(words) - size + 1):
        if words[index : index + size] in runs:
            found.update(range(index, index + size))
    return found


def _ranges(response: Text, positions: set[int]) -> tuple[tuple[int, int], ...]:
    """Character ranges of the runs of consecutive word positions."""
    ranges: list[tuple[int, int]] = []
    previous = -2
    for position in sorted(positions):
        token = response.tokens[position]
        if position == previous + 1:
            ranges[-1] = (ranges[-1][0], token.end)
        else:
            ranges.append((token.start, token.end))
        previous = position
    return tuple(ranges)
