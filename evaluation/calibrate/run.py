"""`evaluate calibrate --gold-dir DIR`: gold in, report card out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.calibrate.card import GoldSource, ReportCard
from evaluation.calibrate.gold import Gold
from evaluation.calibrate.lines import Draws, baseline_lines, evaluator_lines
from evaluation.calibrate.measures import DRAWS
from evaluation.calibrate.readers import GoldFile, read_folder
from evaluation.calibrate.scoring import Scored, is_for, score_gold
from evaluation.calibrate.standings import cross_validated, standings
from evaluation.evaluators.guarded import Guarded
from evaluation.evaluators.linear import weights
from evaluation.evaluators.protocol import Evaluator
from runs.errors import UserError
from runs.identity import file_digest

Say = Callable[[str], None]


def calibrate(
    folders: Sequence[Path],
    evaluators: Sequence[Evaluator],
    *,
    command: str,
    limit: int | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    say: Say,
) -> ReportCard:
    """Score every gold file with every evaluator that it is for.

    Args:
        folders: gold folders, read in this order.
        evaluators: whom the card is about.
        command: what made the card.
        limit: rows of each file, spread evenly; None for all.
        seed: of the bootstrap.
        draws: of the bootstrap.
        say: told what is going on.

    Raises:
        UserError: a gold file is faulty, or no evaluator has a task in the gold.
    """
    files = [file for folder in folders for file in read_folder(folder, limit)]
    fitted = set(weights().inputs.values())
    sources = [_source(file, fitted) for file in files]
    seen = {source.name for source in sources if source.fitted_on}
    rows = [row for file in files for row in file.gold]
    say(f"{len(rows)} gold rows in {len(files)} files")
    scored = score_gold(rows, evaluators)
    settings = Draws(seed, draws)
    lines = [
        line
        for evaluator in evaluators
        for task, dataset, part in _groups(scored[evaluator.name])
        for line in evaluator_lines(
            evaluator, task, dataset, part, "fitted on" if dataset in seen else "held out", settings
        )
    ]
    if not lines:
        raise UserError("None of the evaluators has a task in this gold.", mend="See docs/evaluators.md for the tasks.")
    plain = [Scored(row, ()) for row in rows if row.task != "harm_class" and _is_asked(row, evaluators)]
    lines += [line for task, dataset, part in _groups(plain) for line in baseline_lines(task, dataset, part, settings)]
    lines += cross_validated(evaluators)
    return ReportCard(
        command=command,
        evaluators={evaluator.name: evaluator.version for evaluator in evaluators},
        gold=sources,
        rows=lines,
        standings=standings(lines, evaluators),
        notes=_notes(evaluators),
        seed=seed,
        draws=draws,
    )


def _source(file: GoldFile, fitted: set[str]) -> GoldSource:
    digest = f"sha256:{file_digest(file.path)}"
    return GoldSource(
        name=file.name,
        format=file.format,
        sha256=digest,
        rows=len(file.gold),
        rejected=file.rejected,
        fitted_on=digest in fitted,
    )


def _groups(scored: Sequence[Scored]) -> list[tuple[str, str, list[Scored]]]:
    """(task, data set, rows), in the order of their first row; the samples of all systems are one set."""
    groups: dict[tuple[str, str], list[Scored]] = {}
    for row in scored:
        dataset = "CAI samples" if row.gold.task == "evasive" else row.gold.dataset
        groups.setdefault((row.gold.task, dataset), []).append(row)
    return [(task, dataset, rows) for (task, dataset), rows in groups.items()]


def _is_asked(row: Gold, evaluators: Sequence[Evaluator]) -> bool:
    return any(is_for(evaluator, row) for evaluator in evaluators)


def _notes(evaluators: Sequence[Evaluator]) -> list[str]:
    """What a reader must know beside the numbers: plug-ins that failed."""
    return [
        f"{evaluator.name} raised {kind} on {count} answers: those are unscored."
        for evaluator in evaluators
        if isinstance(evaluator, Guarded)
        for kind, count in sorted(evaluator.failures.items())
    ]
