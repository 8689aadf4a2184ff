"""`safety-classifier evaluate`: from flags and config to the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runs.config import apply_overrides, parse, read_yaml
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.paths import shown
from safety_classifier.evaluation.config import EvaluateConfig

if TYPE_CHECKING:
    import pandas as pd

    from safety_classifier.evaluation.results import Results

HEADLINES = ("auprc", "f1", "auroc", "ece_mass")
PREPARE = "safety-classifier prepare --config configs/safety_classifier/minilm.yaml --output-dir DIR"


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None leaves it to the config."""

    config: Path
    overrides: tuple[str, ...] = ()
    artifact: Path | None = None
    data: Path | None = None
    suites: tuple[tuple[str, Path], ...] = ()
    limit: int | None = None
    baselines: bool = True
    folder: Path = Path("results/safety_classifier/evaluation")
    update_card: bool = False
    seed: int | None = None
    precision: str = "auto"


def run_evaluation(request: Request, reporter: Reporter) -> Results:
    """Evaluate a classifier and say what came of it.

    Raises:
        UsageError: the config, a suite or a baseline is not known.
        UserError: artifact, data or a suite's file is missing or broken.
    """
    settings = resolved(request)
    frame = limited(read_data(settings.data), request.limit)
    from safety_classifier.api import Classifier
    from safety_classifier.evaluation.run import evaluate_classifier

    classifier = Classifier.load(settings.artifact, precision=request.precision)
    results = evaluate_classifier(
        classifier,
        frame,
        suites=[(one.suite, one.path) for one in settings.suites],
        baselines=settings.baselines,
        folder=request.folder,
        reporter=reporter,
        seed=settings.seed,
        settings=settings.settings,
        identity=classifier.identity,
    )
    if request.update_card:
        from safety_classifier.artifact import add_evaluation

        table = (request.folder / "card.md").read_text(encoding="utf-8")
        add_evaluation(classifier.artifact.folder, table, {"figures": results.figures})
    _show(results, request.folder, reporter)
    return results


def resolved(request: Request) -> EvaluateConfig:
    """The config with the flags in it. Raises `UsageError` as `runs.config.parse` does."""
    values = apply_overrides(read_yaml(request.config), request.overrides)
    given: dict[str, Any] = {"artifact": request.artifact, "data": request.data, "seed": request.seed}
    values |= {key: value for key, value in given.items() if value is not None}
    if request.suites:
        values["suites"] = [{"suite": name, "path": path} for name, path in request.suites]
    if not request.baselines:
        values["baselines"] = []
        values["settings"] = {**(values.get("settings") or {}), "compare": []}
    return parse(EvaluateConfig, values, source=shown(request.config))


def read_data(path: Path) -> pd.DataFrame:
    """The prepared table: a folder that `prepare` made, the folder above a single one, or a Parquet file.

    Raises:
        UserError: there is none, or more than one.
    """
    import pandas as pd

    from safety_classifier.data.prepare import open_prepared

    if path.is_file():
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{shown(path)} is not a Parquet table.", why=str(error)) from error
    found = [path] if (path / "rows.parquet").is_file() else sorted(path.glob("*/rows.parquet"))
    if len(found) != 1:
        raise UserError(
            f"{shown(path)} holds {len(found) or 'no'} prepared tables.",
            mend=f"Name one with --data. To make one: {PREPARE}",
        )
    return open_prepared(found[0] if found[0] == path else found[0].parent).frame()


def limited(frame: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """At most ``limit`` rows of each split, spread evenly over it; both rows of a preference pair stay together."""
    if limit is None:
        return frame
    import numpy as np
    import pandas as pd

    parts = []
    for _, part in frame.groupby("split", sort=False):
        places = np.unique(np.linspace(0, len(part) - 1, min(limit, len(part))).astype(int))
        pairs = set(part["pair"].iloc[places]) - {-1}
        chosen = part["pair"].isin(pairs).to_numpy(copy=True)
        chosen[places] = True
        parts.append(part[chosen])
    return pd.concat(parts).sort_index().reset_index(drop=True)


def _show(results: Results, folder: Path, reporter: Reporter) -> None:
    """The headline table, the goals, and where the report is."""
    rows = []
    for name, table in results.tables.items():
        metrics = table.macro.metrics
        values = [metrics[metric].value if metric in metrics else None for metric in HEADLINES]
        rows.append([name, *("–" if value is None else f"{value:.3f}" for value in values)])
    reporter.table("Macro over the headline categories, test split", ["", "AUPRC", "F1", "AUROC", "ECE"], rows)
    goals = [
        [goal.figure, goal.goal, "–" if goal.value is None else f"{goal.value:.3f}", _verdict(goal.reached)]
        for goal in results.goals
    ]
    if goals:
        reporter.table("Goals", ["figure", "goal", "measured", "reached"], goals)
    found = {
        "folder": str(folder),
        "figures": results.figures,
        "goals": [goal.model_dump(mode="json") for goal in results.goals],
    }
    reporter.result(found, [f"[bold]{plain(shown(folder / name))}[/]" for name in ("report.html", "results.json")])


def _verdict(reached: bool | None) -> str:
    return "not measured" if reached is None else "yes" if reached else "no"
