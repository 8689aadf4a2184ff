"""The dashboard for programs: named endpoints for `gradio_client`, with typed arguments and JSON results."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.events import api

from dashboard.flips import ALL, MOST_QUERY, Flip, Query, metrics_of
from dashboard.views.flips import Finder, contrast_choices, row_key
from runs.errors import UsageError, UserError

MOST_ROWS = 500
"""Rows of one answer of ``/flips``."""
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Api:
    """The endpoints, over the same store as the page.

    Args:
        finder: the runs, their flips, and the safety classifier, which the first call of ``/classify`` loads.
    """

    def __init__(self, finder: Finder) -> None:
        self._store, self._scoring, self._finder = finder.store, finder.scoring, finder

    def runs(self) -> list[dict[str, Any]]:
        """Every run under the results root: name, state, models, prompts, date, and what is wrong with it."""
        return [
            {
                "name": entry.name,
                "state": entry.state,
                "run_id": entry.run_id,
                "models": list(entry.models),
                "prompts": entry.prompts,
                "created": entry.created,
                "limited": entry.limited,
                "why": entry.why,
            }
            for entry in self._store.runs
        ]

    def verdicts(self, run: str) -> list[dict[str, Any]]:
        """The declared contrasts of a run: estimate, interval, adjusted p-value, outcome, sentence."""
        found = self._store.load(run)
        return [
            {**verdict.model_dump(mode="json"), "standing": found.doubtful.get(verdict.contrast.metric, "")}
            for verdict in found.analysis.primary
        ]

    def flips(
        self,
        run: str,
        contrast: str = "",
        metric: str = "",
        cell: str = ALL,
        category: str = ALL,
        text: str = "",
        sort: str = "surprise",
        limit: int = 50,
    ) -> dict[str, Any]:
        """The 2 x 2 of a contrast, and its prompts. ``contrast`` is ``base>stage3``; empty takes the whole way."""
        if not 0 <= limit <= MOST_ROWS:
            raise UsageError(f"limit is {limit}.", mend=f"Ask for 0 to {MOST_ROWS} rows.")
        data = self._store.load(run)
        choices = contrast_choices(data)
        if not choices:
            raise UserError("The run has one model: there is nothing to compare.")
        flips = self._finder.find(data, contrast or choices[0][1], metric or metrics_of(data)[0])
        found = flips.select(Query(cell, category, text[:MOST_QUERY], sort))
        return {
            "treatment": flips.treatment,
            "control": flips.control,
            "metric": flips.metric,
            "counts": dict(flips.counts),
            "unpaired": flips.unpaired,
            "found": len(found),
            "rows": [_row(flip) for flip in found[:limit]],
        }

    def flip(self, run: str, row: str) -> dict[str, Any]:
        """One prompt with every model's answer, scores and evidence. ``row`` is from ``/flips``."""
        prompt, _, sample = row.partition(".")
        for found in self._store.load(run).rows:
            first = next(iter(found.answers.values()))
            if prompt and first.prompt_id.startswith(prompt) and str(first.sample) == (sample or "0"):
                return {
                    "prompt": found.prompt.model_dump(mode="json"),
                    "answers": {name: one.model_dump(mode="json") for name, one in found.answers.items()},
                }
        raise UsageError(f"The run has no row '{row[:60]}'.", mend="Take it from /flips.")

    def classify(self, text: str, prompt: str = "") -> dict[str, Any]:
        """The safety classifier on one text, alone or as the answer to ``prompt``."""
        from dashboard.classify import check_text

        check_text(text), check_text(prompt, "prompt")
        return self._scoring.classifier.classify([text], [prompt] if prompt else None)[0].model_dump(mode="json")


def _row(flip: Flip) -> dict[str, Any]:
    return {
        "row": row_key(flip),
        "prompt": flip.row.prompt.text,
        "category": flip.row.prompt.category,
        "cell": flip.cell,
        "before": flip.before,
        "after": flip.after,
        "surprise": flip.surprise,
    }


def add_api(finder: Finder) -> None:
    """Register the endpoints in the page that is being built."""
    served = Api(finder)
    for endpoint in (served.runs, served.verdicts, served.flips, served.flip):
        api(_told(endpoint), api_name=endpoint.__name__)
    api(_told(served.classify), api_name="classify", concurrency_id="classifier", concurrency_limit=1)


def _told(endpoint: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Errors that a caller can act on arrive as such, with what, why and mend; all others stay hidden."""

    @wraps(endpoint)
    def call(*values: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            return endpoint(*values, **named)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call
