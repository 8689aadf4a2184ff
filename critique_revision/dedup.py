"""Pairs that are copies of others: exact ones, floods of one text, and near-copies.

MinHash signatures (Broder 1997) in bands of a locality-sensitive index (Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, chapter 3) find candidates; the exact Jaccard similarity of their shingles decides. So a text that is
no near-copy is never taken for one, and what the index misses are rare copies close to the threshold.

The index is datasketch's. `safety_classifier.data.minhash` stays beside it: its constants and hashes decide on which
side of the classifier's splits a row is, and so what its published numbers were measured on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from critique_revision.config import Dedup, FilterSettings, Reason
from critique_revision.dialogue import conversation_text
from critique_revision.filters import Standing
from critique_revision.text import words
from inference.records import normalise

if TYPE_CHECKING:
    from datasketch import MinHash

_RECALL = (0.1, 0.9)
"""How much a false candidate and a missed one weigh when the bands are chosen. A false one costs a set intersection."""


def shingles(text: str, size: int) -> frozenset[str]:
    """All runs of ``size`` characters of the text's words; a shorter text is one shingle."""
    flat = " ".join(words(text)) or normalise(text)
    return frozenset(flat[start : start + size] for start in range(max(len(flat) - size, 0) + 1))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(first & second) / len(first | second)


class NearTexts:
    """Texts by number, and which of them a further text is nearly equal to.

    The same texts in the same order give the same answers on every machine: shingles are hashed by SHA-1, and the
    permutations are seeded.
    """

    def __init__(self, settings: Dedup) -> None:
        from datasketch import MinHash, MinHashLSH

        self.settings = settings
        self._empty = MinHash(num_perm=settings.permutations, seed=settings.seed)
        # At a threshold of 1 no choice of bands is better than another, and datasketch finds none.
        self._index = MinHashLSH(
            threshold=min(settings.threshold, 0.99), num_perm=settings.permutations, weights=_RECALL
        )
        self._shingles: list[frozenset[str]] = []

    def near(self, text: str) -> list[int]:
        """The numbers of the texts that are nearly equal to ``text``, ascending."""
        own = shingles(text, self.settings.shingle)
        found = sorted(self._index.query(self.signature(own)))
        return [number for number in found if jaccard(own, self._shingles[number]) >= self.settings.threshold]

    def add(self, text: str) -> int:
        """Take ``text`` in, and give its number: they count from 0."""
        own = shingles(text, self.settings.shingle)
        self._index.insert(len(self._shingles), self.signature(own))
        self._shingles.append(own)
        return len(self._shingles) - 1

    def signature(self, own: frozenset[str]) -> MinHash:
        """The MinHash signature of a set of shingles."""
        made = self._empty.copy()
        made.update_batch([shingle.encode() for shingle in sorted(own)])
        return made


class _Kept:
    """The pairs that are kept so far."""

    def __init__(self, settings: FilterSettings) -> None:
        self.settings = settings
        self.items: list[Standing] = []
        self.exact: set[tuple[str, str]] = set()
        self.same: Counter[str] = Counter()
        self.prompts, self.chosen = NearTexts(settings.dedup), NearTexts(settings.dedup)

    def reason(self, item: Standing) -> Reason | None:
        """Why ``item`` would repeat what is kept; None: it would not."""
        found: dict[Reason, bool] = {
            "duplicate": (item.prompt_id, normalise(item.chosen)) in self.exact,
            "boilerplate": self.same[normalise(item.chosen)] >= self.settings.max_same_chosen,
        }
        for reason, holds in found.items():
            if holds and reason not in self.settings.skip:
                return reason
        return "near_duplicate" if "near_duplicate" not in self.settings.skip and self._near(item) else None

    def _near(self, item: Standing) -> bool:
        # A harmful request and its harmless twin differ in a word and in their tag: that contrast is the point of both.
        asked = [self.items[number] for number in self.prompts.near(conversation_text(item.messages))]
        if any(other.prompt_id != item.prompt_id and other.tag == item.tag for other in asked):
            return True
        said = [self.items[number].prompt_id == item.prompt_id for number in self.chosen.near(item.chosen)]
        return any(said) or len(said) >= self.settings.max_same_chosen

    def keep(self, item: Standing) -> None:
        self.items.append(item)
        self.exact.add((item.prompt_id, normalise(item.chosen)))
        self.same[normalise(item.chosen)] += 1
        self.prompts.add(conversation_text(item.messages))
        self.chosen.add(item.chosen)


def copies(items: Sequence[Standing], settings: FilterSettings) -> list[Reason | None]:
    """For each pair in order, why it repeats the ones kept before it; None: it is kept.

    ``duplicate``: the same prompt with the same chosen text. ``boilerplate``: ``max_same_chosen`` pairs have that very
    text chosen. ``near_duplicate``: another prompt with the same tag is nearly the same; or the same prompt has nearly
    that text chosen, or ``max_same_chosen`` pairs of any prompts have.
    """
    kept = _Kept(settings)
    found = []
    for item in items:
        reason = kept.reason(item)
        found.append(reason)
        if reason is None:
            kept.keep(item)
    return found
