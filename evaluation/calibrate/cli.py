"""`evaluate calibrate`: how far can the evaluators be trusted, and the fit of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runs.paths import PROJECT_ROOT

if TYPE_CHECKING:
    from evaluation.calibrate.card import ReportCard
    from runs.console import Reporter

GOLD = PROJECT_ROOT / "evaluation" / "gold"
"""The gold set that ships."""
_SHOWN = ("evaluator", "gold", "n (clusters)", "accuracy", "AUC", "F1", "rank corr. with length", "above length alone")
"""The card's columns that fit a terminal; the files have them all."""


def register(app: typer.Typer) -> None:
    """Add the ``calibrate`` command to ``app``."""
    app.command()(calibrate)


def calibrate(
    gold_dir: Annotated[
        list[Path] | None, typer.Option(help="Folder of labelled files (may be repeated); default: the shipped set.")
    ] = None,
    evaluators: Annotated[
        str | None, typer.Option(help="Evaluators by name; default: all that need no artifact.", metavar="NAME …")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows of each file, spread evenly. Stamped.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where report_card.json and .md go; default: results/calibration.")
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(help="Fit the weights on the development data in this folder, and stop.")
    ] = None,
    classifier_rows: Annotated[
        Path | None, typer.Option(help="With --fit: the classifier's rows.parquet; adds the models that use it.")
    ] = None,
    guide: Annotated[bool, typer.Option("--guide", help="Also write the tables into docs/evaluators.md.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the card as JSON on stdout, all else on stderr.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show the result only.")] = False,
) -> None:
    """Score the evaluators against people's labels, beside length alone and a constant."""
    from evaluation.calibrate.markdown import card_markdown
    from evaluation.calibrate.run import calibrate as make_card
    from evaluation.evaluators import registry
    from runs.atomic import make_folder, write_text
    from runs.cli import split_names
    from runs.console import Reporter, plain
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    if fit is not None:
        from evaluation.calibrate.fit import fit as fit_weights

        fit_weights(fit, lambda line: reporter.say(plain(line)), classifier_rows)
        if guide:
            _write_guide(None)
        return
    names = split_names(evaluators) if evaluators is not None else _available()
    folders = gold_dir or [GOLD]
    card = make_card(
        folders,
        registry.get(names),
        command=_command(folders, evaluators, limit),
        limit=limit,
        seed=seed,
        say=lambda line: reporter.say(plain(line)),
    )
    folder = make_folder(output_dir or Path("results") / "calibration")
    write_text(folder / "report_card.json", card.model_dump_json(indent=1) + "\n")
    write_text(folder / "report_card.md", card_markdown(card))
    if guide:
        _write_guide(card)
    _show(card, reporter, limited=limit is not None)
    reporter.result(
        card.model_dump(mode="json"),
        [*(plain(note) for note in card.notes), f"[bold]{plain(shown(folder / 'report_card.md'))}[/]"],
    )


def _command(folders: list[Path], evaluators: str | None, limit: int | None) -> str:
    """The command as a card names it: folders by their names, since a card travels and paths do not."""
    words = ["uv run evaluate calibrate", *(f"--gold-dir {folder.resolve().name}" for folder in folders)]
    words += [f"--evaluators {evaluators}"] if evaluators is not None else []
    words += [f"--limit {limit}"] if limit is not None else []
    return " ".join(words)


def _available() -> list[str]:
    """Evaluators that ship and can be used now; the judge only by name, since it runs a language model."""
    from evaluation.evaluators import registry

    listed = registry.entries()
    return [entry.name for entry in listed if not entry.version.startswith("not available") and entry.name != "judge"]


def _write_guide(card: ReportCard | None) -> None:
    """Put the card's table and the coefficients into docs/evaluators.md."""
    from evaluation.calibrate.markdown import (
        CARD_MARKS,
        WEIGHT_MARKS,
        coefficients_markdown,
        guide_card,
        replace_block,
    )
    from evaluation.evaluators.linear import weights
    from runs.atomic import write_text

    path = PROJECT_ROOT / "docs" / "evaluators.md"
    text = replace_block(path.read_text(encoding="utf-8"), WEIGHT_MARKS, coefficients_markdown(weights()))
    if card is not None:
        text = replace_block(text, CARD_MARKS, guide_card(card))
    write_text(path, text)


def _show(card: ReportCard, reporter: Reporter, *, limited: bool) -> None:
    from evaluation.calibrate.markdown import COLUMNS, cells

    columns = [COLUMNS.index(name) for name in _SHOWN]
    stamp = "LIMITED: not to be reported. " if limited else ""
    for task in dict.fromkeys(row.task for row in card.rows):
        lines = [cells(row) for row in card.rows if row.task == task]
        rows = [[line[index] for index in columns] for line in lines]
        caption = f"{stamp}95 % intervals by clusters; a line on data that the weights were fitted on proves nothing."
        reporter.table(task.replace("_", " "), list(_SHOWN), rows, caption=caption)
    standings = [[name, card.standings.get(name, "unvalidated")] for name in card.evaluators]
    reporter.table("Standing", ["evaluator", "against length alone"], standings)
