"""`evaluate calibrate --fit DATA`: fit every linear model of the evaluators and write their weights files.

The order matters: the topic model is part of the response mode, the wording is a feature of the preference models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.calibrate import development
from evaluation.calibrate.classifier_rows import head_scores, unseen_pairs
from evaluation.calibrate.fit_answers import fit_refusal, fit_topic
from evaluation.calibrate.fit_pairs import Table, feature_table, fit_pairs, fit_phrases, fit_stack, write_wording
from evaluation.calibrate.gold import GoldPair, Task
from evaluation.calibrate.models import PAIR_MODELS
from evaluation.evaluators import linear
from evaluation.evaluators.features import NAMES
from evaluation.evaluators.linear import LinearModel, Weights
from evaluation.evaluators.response_mode import response_mode
from runs.atomic import write_text
from runs.identity import file_digest

COMMAND = "uv run evaluate calibrate --fit DATA"
NOTES = (
    "Truthfulness and fairness have no development data: their sub-scores are averaged with equal weights.",
    "Cross-validation is by the dialogue's first request; constitution pairs are fitted on and not counted.",
)
TASKS: tuple[Task, ...] = ("harmless_pairs", "helpful_pairs")
OWN_HEAD: dict[Task, str] = {"harmless_pairs": "harmlessness", "helpful_pairs": "helpfulness"}
"""The classifier's preference head of each kind of pairs."""
Say = Callable[[str], None]


def fit(root: Path, say: Say, classifier_rows: Path | None = None) -> Weights:
    """Fit all models on the data below ``root`` and write the weights files.

    Args:
        root: the data root; see `development.FILES`.
        say: told what is going on.
        classifier_rows: the table of rows (``rows.parquet``) that the shipped classifier was trained from: with it,
            the models that add the classifier are fitted, on the pairs that its training left out.

    Raises:
        UserError: a development file, or the classifier, is missing.
    """
    development.require(root)
    inputs = {name: f"sha256:{file_digest(root / name)}" for name in development.FILES}
    models: dict[str, LinearModel] = {}

    def keep(name: str, model: LinearModel) -> None:
        models[name] = LinearModel.model_validate(_rounded(model.model_dump()))
        linear.try_out(Weights(version=1, command=COMMAND, inputs=inputs, models=dict(models), notes=NOTES))
        response_mode.cache_clear()
        measured = {key: round(value, 4) for key, value in model.cross_validated.items()}
        say(f"{name}: {measured}")

    pairs = {
        task: (development.preference_pairs(root, task), development.constitution_pairs(root, task)) for task in TASKS
    }
    keep("topic", fit_topic([*pairs["helpful_pairs"][0], *pairs["helpful_pairs"][1]]))
    keep("refusal", fit_refusal(root))
    say("Wording of the harmless pairs")
    unseen, phrases = fit_phrases([*pairs["harmless_pairs"][0], *pairs["harmless_pairs"][1]])
    for task, (every, extra) in pairs.items():
        chosen = development.spread(every, development.MOST_PAIRS)
        if classifier_rows is not None:  # all that the classifier has not seen, or the stack has little to learn from
            chosen = sorted({*chosen, *unseen_pairs(every, classifier_rows)})
        main = [every[index] for index in chosen]
        rows = [*chosen, *range(len(every), len(every) + len(extra))]
        say(f"Features of {len(main) + len(extra)} {task.replace('_', ' ')}")
        table = feature_table(main, extra, unseen[rows] if task == "harmless_pairs" else None)
        for spec in PAIR_MODELS:
            if spec.task != task:
                continue
            model, margins = fit_pairs(spec, table)
            keep(spec.name, model)
            if classifier_rows is not None and spec.name.endswith("_preference"):
                stacked = _stack(table, margins, model, [*main, *extra], OWN_HEAD[task], classifier_rows)
                keep(f"{spec.name}_classifier", stacked)
    write_wording(phrases)
    _write(linear.weights())
    return linear.weights()


def _stack(
    table: Table, margins: Any, model: LinearModel, pairs: list[GoldPair], own: str, classifier_rows: Path
) -> LinearModel:
    import numpy as np

    heads, scores = head_scores(pairs, unseen_pairs(pairs, classifier_rows))
    weights = np.array([model.coefficients.get(name, 0.0) for name in NAMES])
    readable = np.column_stack([table.better @ weights, table.worse @ weights])
    return fit_stack(table, margins, readable, heads, scores, own)


def _write(found: Weights) -> None:
    """Write the weights file, whole."""
    import yaml

    head = "# Fitted weights of the evaluators. Made by the command below; not to be edited by hand.\n"
    values = {"version": 1} | found.model_dump(mode="json", exclude_defaults=True)
    write_text(linear.WEIGHTS, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110))


def _rounded(value: Any) -> Any:
    """Floats to six significant digits: what is printed is what is used."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
