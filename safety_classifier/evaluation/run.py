"""The evaluation from end to end: score, measure, write. A second run with the same artifact reuses the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runs.atomic import make_folder, write_text
from runs.console import Reporter
from runs.errors import UserError
from safety_classifier.calibration import HeadCalibration, calibration_report
from safety_classifier.evaluation.baselines import fit_baseline
from safety_classifier.evaluation.card import card
from safety_classifier.evaluation.config import Settings
from safety_classifier.evaluation.fairness import measure_fairness
from safety_classifier.evaluation.frame import TEST, TRAIN, VALIDATION, Rows, rows_of
from safety_classifier.evaluation.latency import measure_latency
from safety_classifier.evaluation.metrics import (
    Curve,
    metric_table,
    pair_accuracies,
    precision_recall,
    within_source,
)
from safety_classifier.evaluation.report import write_report
from safety_classifier.evaluation.results import CLASSIFIER, Results, judge, read_results
from safety_classifier.evaluation.robustness import attack_losses, sample_rows
from safety_classifier.evaluation.scorer import RememberedScorer, Scorer, Scores, calibration_of
from safety_classifier.evaluation.suites import SuiteResult, evaluate_suite, read_suite
from safety_classifier.labels import Labels

if TYPE_CHECKING:
    import pandas as pd

Scorers = dict[str, RememberedScorer]


def evaluate_classifier(
    scorer: Scorer | None,
    frame: pd.DataFrame,
    *,
    suites: Sequence[tuple[str, Path]] = (),
    baselines: Sequence[str] = (),
    folder: Path,
    reporter: Reporter,
    seed: int = 0,
    settings: Settings | None = None,
    identity: str = "",
) -> Results:
    """Evaluate one scorer beside baselines fitted on the same rows; write results, report, figures, card and scores.

    Args:
        scorer: the thing under evaluation; None takes all its scores from ``folder`` and leaves the latency out.
        frame: the prepared table (see `frame.rows_of`) with the splits train, validation and test.
        suites: names and files.
        baselines: names of `baselines.BASELINES`.
        folder: gets results.json, report.html, card.md, figures/, predictions.parquet and scores/.
        reporter: says what is being done.
        seed: of baselines, attacks, swaps and bootstraps.
        settings: how much is measured.
        identity: a digest of the artifact; stored scores are used again only under the same one.

    Raises:
        UserError: the data or a suite's file has a fault, or the scorer returns broken scores.
        UsageError: a suite or baseline has no such name.
    """
    settings = settings or Settings()
    make_folder(folder / "scores")
    scorers: Scorers = {CLASSIFIER: _remember(scorer, folder, CLASSIFIER, identity)}
    labels = scorers[CLASSIFIER].labels
    # Everything that a user can have got wrong comes before the hours of work.
    read = {name: read_suite(name, path, labels) for name, path in suites}
    rows = rows_of(frame, labels, TEST)
    if scorer is None:
        scorers |= {name: _remember(None, folder, name, "") for name in baselines}
    else:
        scorers |= _baselines(labels, frame, baselines, folder, reporter, seed)
    scores = {}
    for name, one in scorers.items():
        reporter.say(f"Scoring {len(rows):,} test rows: {name}")
        scores[name] = one.probabilities(rows.texts, rows.contexts)
        one.save()
    _write_predictions(folder / "predictions.parquet", labels, rows, scores)
    results = _measure_test(labels, frame, rows, scorers, scores, settings, seed, reporter)
    results |= _measure_surface(scorers, rows, settings, seed, reporter)
    found: dict[str, dict[str, SuiteResult]] = {}
    for name, data in read.items():
        reporter.say(f"Suite {name}: {len(data.texts):,} texts")
        found[name] = {
            who: evaluate_suite(one, name, data, resamples=settings.resamples, seed=seed)
            for who, one in scorers.items()
        }
    for one in scorers.values():
        one.save()
    inner = scorers[CLASSIFIER].inner
    if inner is not None:
        reporter.say("Latency")
    latency = (
        measure_latency(
            inner, rows.texts, batches=settings.latency_batches, seconds=settings.latency_seconds, seed=seed
        )
        if inner is not None
        else []
    )
    record = Results.model_validate(
        results
        | {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "settings": settings,
            "labels": labels,
            "suites": found,
            "latency": latency,
            "figures": {},
        }
    )
    record = judge(record)
    write_text(folder / "results.json", record.model_dump_json(indent=1) + "\n")
    render(folder)
    return record


def render(folder: Path) -> None:
    """Draw report.html, figures/ and card.md anew from results.json. Raises `UserError` if it is absent or broken."""
    results = read_results(folder / "results.json")
    write_report(results, folder)
    write_text(folder / "card.md", card(results))


def _remember(scorer: Scorer | None, folder: Path, name: str, identity: str) -> RememberedScorer:
    return RememberedScorer(scorer, folder / "scores" / f"{name}.parquet", identity=identity)


def _baselines(
    labels: Labels, frame: pd.DataFrame, names: Sequence[str], folder: Path, reporter: Reporter, seed: int
) -> Scorers:
    if not names:
        return {}
    if CLASSIFIER in names:
        raise UserError(f"'{CLASSIFIER}' is the name of the thing under evaluation.")
    train, validation = rows_of(frame, labels, TRAIN), rows_of(frame, labels, VALIDATION)
    found: Scorers = {}
    for name in names:
        reporter.say(f"Fitting the baseline {name} on {len(train):,} rows")
        baseline = fit_baseline(name, labels, train, validation, seed=seed)
        if baseline.unfitted:
            reporter.warn(
                f"{name}: no training rows of both classes for {', '.join(baseline.unfitted)}; it never flags them."
            )
        found[name] = _remember(baseline, folder, name, "")
    return found


def _measure_test(
    labels: Labels,
    frame: pd.DataFrame,
    rows: Rows,
    scorers: Scorers,
    scores: Mapping[str, Scores],
    settings: Settings,
    seed: int,
    reporter: Reporter,
) -> dict[str, object]:
    """Tables, curves and calibration on the test split."""
    many = {"resamples": settings.resamples, "seed": seed}
    tables, sources, pairs = {}, {}, {}
    for name, one in scorers.items():
        reporter.say(f"Metrics with {settings.resamples:,} resamples: {name}")
        tables[name] = metric_table(labels, rows, scores[name], one.thresholds, **many)
        pairs[name] = pair_accuracies(labels, rows, scores[name], **many)
        if name == CLASSIFIER or name in settings.compare:
            sources[name] = within_source(labels, rows, scores[name], **many)
    curves: dict[str, dict[str, Curve]] = {}
    for head in labels.of("category", "response"):
        column = labels.column(head)
        drawn = {name: precision_recall(rows.targets[:, column], one[:, column]) for name, one in scores.items()}
        curves[head] = {name: curve for name, curve in drawn.items() if curve is not None}
    calibration = calibration_of(scorers[CLASSIFIER])
    reliability: dict[str, HeadCalibration] = {}
    if calibration is not None:
        logits = calibration.invert(scores[CLASSIFIER])
        reliability = calibration_report(labels, calibration, logits, rows.targets)
    return {
        "counts": {str(split): _counts(labels, part) for split, part in frame.groupby("split")},
        "tables": tables,
        "within_source": sources,
        "pairs": pairs,
        "curves": {head: drawn for head, drawn in curves.items() if drawn},
        "calibration": calibration,
        "reliability": reliability,
    }


def _measure_surface(
    scorers: Scorers, rows: Rows, settings: Settings, seed: int, reporter: Reporter
) -> dict[str, object]:
    """Attacks and fairness, of the classifier and of the baselines that it is compared with there."""
    chosen = {name: one for name, one in scorers.items() if name == CLASSIFIER or name in settings.compare}
    some = rows.take(sample_rows(scorers[CLASSIFIER].labels, rows, per_class=settings.attack_rows, seed=seed))
    attacks, fairness = {}, {}
    for name, one in chosen.items():
        reporter.say(f"{len(settings.attacks)} attacks on {len(some):,} rows: {name}")
        attacks[name] = attack_losses(
            one, some, attacks=settings.attacks, resamples=settings.attack_resamples, seed=seed
        )
        reporter.say(f"Fairness: {name}")
        fairness[name] = measure_fairness(one, rows, resamples=settings.fairness_resamples, seed=seed)
        one.save()
    return {"attacks": attacks, "fairness": fairness}


def _counts(labels: Labels, part: pd.DataFrame) -> dict[str, int]:
    counts = {"rows": len(part), "sources": int(part["source"].nunique())}
    for name in labels.names:
        counts[f"{name}, labelled"] = int(part[name].notna().sum())
        counts[f"{name}, positive"] = int((part[name] >= 0.5).sum())
    return counts


def _write_predictions(path: Path, labels: Labels, rows: Rows, scores: Mapping[str, Scores]) -> None:
    """The test rows' labels and scores, without their texts, for whoever wants to compute another figure."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from runs.atomic import write_bytes

    columns: dict[str, object] = {"row": np.arange(len(rows)), "source": rows.sources, "cluster": rows.clusters}
    for column, head in enumerate(labels.names):
        columns[f"label.{head}"] = rows.targets[:, column]
        for name, one in scores.items():
            columns[f"{name}.{head}"] = one[:, column]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    write_bytes(path, buffer.getvalue())
