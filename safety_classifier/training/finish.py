"""From the best weights to an artifact: storage precision, calibration, thresholds, scores on the test split, card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runs.console import Reporter, plain
from runs.paths import shown
from safety_classifier.artifact import Provenance, save_artifact
from safety_classifier.calibration import Calibration, calibration_report, fit_calibration
from safety_classifier.model import Leaves, WideAndDeep
from safety_classifier.quantisation import dequantise_model, quantisation_error, quantise_model
from safety_classifier.thresholds import Policy, Thresholds, choose_thresholds
from safety_classifier.training import scoring
from safety_classifier.training.setup import Session

if TYPE_CHECKING:
    import pandas

Floats = NDArray[np.float32]

STORAGE_ROWS = 512
"""Validation rows on which the storage error is measured."""


def write_artifact(
    session: Session, weights: Leaves, metrics: dict[str, Any], reporter: Reporter, *, command: str
) -> Path:
    """Write the artifact.

    The weights are stored as int8, so everything that goes with them (calibration, thresholds, scores) is measured on
    the stored weights and not on those that training saw.

    Args:
        session: the finished run.
        weights: the best trained arrays.
        metrics: what training measured; it goes into the manifest.
        reporter: shows what is being done.
        command: makes the artifact again.

    Returns:
        The artifact's folder.
    """
    trained = session.model_with(weights)
    stored = quantise_model(trained)
    score = _scorer(session, dequantise_model(stored))
    reporter.say("Calibrating on the calibration split, choosing thresholds on the validation split.")
    calibration, thresholds, report = calibrate(session, score)
    folder = session.run.artifact or session.run.output_dir / "artifact"
    save_artifact(
        folder,
        stored,
        config=session.model_config,
        labels=session.labels,
        tokenizer_json=session.tokenizer_file,
        calibration=calibration,
        thresholds=thresholds,
        provenance=Provenance(
            command=command,
            config=session.run.model_dump(mode="json"),
            inputs=session.inputs,
            seeds={"train": session.run.train.seed, "data": session.run.data.seed},
            data=session.data_manifest,
            metrics={
                "training": {**metrics, "steps": session.steps, "precision": session.precision},
                "calibration": report,
                "quantisation": _storage_error(session, trained, stored),
            },
            wall_seconds=metrics["seconds"],
        ),
    )
    reporter.say(f"[green]Artifact:[/] {plain(shown(folder))}")
    return folder


def _storage_error(session: Session, trained: WideAndDeep, stored: WideAndDeep) -> dict[str, Any]:
    """What storing as int8 changed, on validation rows."""
    part = session.frame[session.frame["split"] == "validation"].head(STORAGE_ROWS)
    encoded = session.featuriser.encode(part["text"].tolist(), part["context"].tolist())
    batches = [
        session.featuriser.pad(
            encoded, list(range(start, min(start + 64, len(encoded)))), session.run.train.buckets[-1]
        )
        for start in range(0, len(encoded), 64)
    ]
    return quantisation_error(trained, stored, batches, session.labels.names).model_dump(mode="json")


def calibrate(session: Session, score: Any) -> tuple[Calibration, Thresholds, dict[str, Any]]:
    """Calibration from the calibration split, thresholds from the validation split."""
    logits, targets = _part(session, score, "calibration")
    calibration = fit_calibration(session.labels, logits, targets, method="vector")
    logits, targets = _part(session, score, "validation")
    thresholds = choose_thresholds(session.labels, calibration.apply(logits), targets, policy=Policy(aim="f1"))
    report = calibration_report(session.labels, calibration, logits, targets)
    return calibration, thresholds, {name: entry.model_dump(mode="json") for name, entry in report.items()}


def _scorer(session: Session, model: WideAndDeep) -> Any:
    import jax

    from safety_classifier.model import split

    leaves, merge = split(model)
    forward = jax.jit(lambda arrays, batch: merge(arrays)(batch, precision=session.precision))

    def score(frame: pandas.DataFrame) -> Floats:
        return scoring.frame_logits(
            frame,
            session.featuriser,
            lambda batch: forward(leaves, batch),
            session.run.train.buckets,
            session.run.train.tokens_per_batch,
            len(session.labels.names),
        )

    return score


def _part(session: Session, score: Any, split: str) -> tuple[Floats, NDArray[np.float64]]:
    """Logits and targets of the single rows of a split."""
    part = session.frame[(session.frame["split"] == split) & (session.frame["pair"] < 0)]
    targets = np.stack([part[name].to_numpy(np.float64, na_value=np.nan) for name in session.labels.names], axis=1)
    return score(part), targets
