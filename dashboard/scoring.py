"""The safety classifier for the pages: loaded at the first question, its answers kept while they are of use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from dashboard.flips import Heads, Key, key_of
from evaluation.records import Sample
from evaluation.report.data import RunData

if TYPE_CHECKING:
    from safety_classifier.api import Classifier

_BATCH = 64


class Scoring:
    """Scores of answers by the shipped classifier, kept for a few runs.

    The scores follow from the answers alone, so that sharing them between users shows nobody another's doings.

    Args:
        runs: runs whose scores are kept; the one not used for longest is dropped first.
    """

    def __init__(self, runs: int = 3) -> None:
        self._runs = runs
        self._kept: OrderedDict[str, dict[Key, Heads]] = OrderedDict()
        self._lock = Lock()

    @property
    def classifier(self) -> Classifier:
        """The classifier itself. The first use loads JAX and takes seconds.

        Raises:
            UserError: there is no artifact, or it is damaged.
        """
        from evaluation.evaluators.classifier import load_classifier
        from safety_classifier.api import Classifier

        found = load_classifier()
        assert isinstance(found, Classifier)
        return found

    def known(self, run: RunData) -> Mapping[Key, Heads]:
        """What has been scored of ``run``."""
        return self._kept.get(run.results.run_id, {})

    def score(self, run: RunData, samples: Sequence[Sample]) -> Iterator[int]:
        """Score ``samples`` of ``run``, each beside its prompt, and say after every batch how many are done.

        Raises:
            UserError: the classifier is absent.
        """
        from evaluation.evaluators.classifier import classifier_context, classifier_scores

        with self._lock:
            kept = self._kept.setdefault(run.results.run_id, {})
            self._kept.move_to_end(run.results.run_id)
            while len(self._kept) > self._runs:
                self._kept.popitem(last=False)
        due = [sample for sample in samples if key_of(sample) not in kept]
        for start in range(0, len(due), _BATCH):
            part = due[start : start + _BATCH]
            scores = classifier_scores(
                [sample.response for sample in part], [classifier_context(sample.prompt) for sample in part]
            )
            kept.update({key_of(sample): row for sample, row in zip(part, scores, strict=True)})
            yield len(samples) - len(due) + start + len(part)
