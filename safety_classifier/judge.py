"""What prediction and serving ask of a classifier, so that both run on a stand-in as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from safety_classifier.labels import Labels

if TYPE_CHECKING:
    from safety_classifier.api import Classification


class Judge(Protocol):
    """Texts in, judgements out; `safety_classifier.api.Classifier` is one."""

    @property
    def labels(self) -> Labels:
        """The heads."""
        ...

    @property
    def identity(self) -> str:
        """Digest of everything that could change a judgement."""
        ...

    @property
    def thresholds(self) -> dict[str, float]:
        """A text is flagged when its probability is at least this."""
        ...

    def classify(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Sequence[Classification]:
        """One judgement a text. ``contexts``: the prompts that the texts answer, "" where a text stands alone."""
        ...


class WarmJudge(Judge, Protocol):
    """A judge that compiles ahead."""

    def warm(
        self,
        buckets: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile for these padded lengths and row counts, or for all that are used."""
        ...
