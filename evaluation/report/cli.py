"""The commands that read finished runs: `report`, `score`, `compare`, `gate`. None loads a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show the result only.")]
Run = Annotated[str, typer.Argument(help="A run's folder, the beginning of its id, or 'last'.")]
OutputDir = Annotated[Path | None, typer.Option(help="Where to write; see the command's help for the default.")]
DifferentSettings = Annotated[
    bool, typer.Option("--allow-different-settings", help="Stamp other generation settings instead of refusing.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (report, score, compare, gate):
        app.command()(command)


def report(
    run: Run = "last",
    output_dir: OutputDir = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw PNG and SVG as well.")] = True,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a finished run's report: one HTML file that opens without a network, figures, files for other tools.

    Default place: the run's own folder. Never runs a model.
    """
    from evaluation.report.data import find_run, load_run
    from evaluation.report.export import write_report
    from runs.console import Reporter, plain
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    folder = find_run(run, RESULTS)
    reporter.say(f"Reading {plain(shown(folder))}")
    data = load_run(folder)
    written = write_report(data, output_dir or folder, figures=figures)
    reporter.result(
        {"page": str(written.page), "figures": list(map(str, written.figures)), "files": list(map(str, written.files))},
        [f"[bold]{plain(shown(written.page))}[/]", *(plain(shown(path)) for path in written.files)]
        + ([f"{len(written.figures)} figures in {plain(shown(written.figures[0].parent))}"] if written.figures else []),
    )


def score(
    runs: Annotated[list[str], typer.Argument(help="Finished runs, or a folder of shards.")],
    evaluators: Annotated[
        str | None, typer.Option(help="Evaluators by name; default: the run's.", metavar="NAME …")
    ] = None,
    output_dir: OutputDir = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep what is scored already.")] = True,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score stored answers again, after evaluators changed; several runs are merged as shards of one.

    The result is a run of its own, by default results/FAMILY-ID; the old ones stay.
    """
    from evaluation.outputs import show
    from evaluation.report.data import find_run
    from evaluation.rescore import rescore, shard_folders
    from runs.cli import split_names
    from runs.console import Reporter, plain
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    named = [Path(name) if Path(name).is_dir() else find_run(name, RESULTS) for name in runs]
    folder, results = rescore(
        shard_folders(named),
        evaluators=split_names(evaluators) if evaluators is not None else None,
        output_dir=output_dir,
        results_root=RESULTS,
        resume=resume,
        reporter=reporter,
        command=_command(),
    )
    show(results, reporter)
    reporter.result({"folder": str(folder), **results.model_dump(mode="json")}, [f"[bold]{plain(shown(folder))}[/]"])


def compare(
    run_a: Annotated[str, typer.Argument(help="The run to compare with: folder, id, or 'last'.")],
    run_b: Annotated[str, typer.Argument(help="The run that is compared.")],
    model_a: Annotated[str | None, typer.Option(help="Model of the first run; default: the last one.")] = None,
    model_b: Annotated[str | None, typer.Option(help="Model of the second run; default: the last one.")] = None,
    allow_different_settings: DifferentSettings = False,
    output_dir: OutputDir = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a model of one run with a model of another, paired on the prompts that both answered.

    The comparison is a run of its own, by default results/compare-ID, which `evaluate report` reads.
    """
    from evaluation.between import check_two, compare_runs, join, pick_model
    from evaluation.config import EvaluationRun
    from evaluation.outputs import show
    from evaluation.report.data import find_run, load_run
    from runs import config as configs
    from runs.console import Reporter, plain
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    first, second = (load_run(find_run(name, RESULTS)) for name in (run_a, run_b))
    models = pick_model(first, model_a), pick_model(second, model_b)
    check_two(f"{first.results.run_id}:{models[0]}", f"{second.results.run_id}:{models[1]}")
    joined = join(first, second, models, allow_different_settings=allow_different_settings)
    folder, results = compare_runs(
        joined,
        configs.load(EvaluationRun, first.folder / "config.yaml"),
        output_dir=output_dir,
        results_root=RESULTS,
        command=_command(),
    )
    show(results, reporter)
    if results.stamp:
        reporter.warn(plain(results.stamp))
    reporter.result({"folder": str(folder), **results.model_dump(mode="json")}, [f"[bold]{plain(shown(folder))}[/]"])


def gate(
    baseline: Annotated[str, typer.Option(help="The run that must not be fallen behind: folder, id, or 'last'.")],
    max_regression: Annotated[
        list[str], typer.Option(help="Largest loss let through, 0 to 1; repeatable.", metavar="METRIC=MARGIN …")
    ],
    candidate: Annotated[str, typer.Option(help="The run at the gate.")] = "last",
    baseline_model: Annotated[str | None, typer.Option(help="Model of the baseline; default: the candidate's.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the candidate; default: its last one.")] = None,
    allow_different_settings: DifferentSettings = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> int:
    """Pass (0), fail (3) or stay undecided (4): has a metric lost more than its margin, by the interval?

    Fails only when the interval shows a loss beyond the margin; undecided when it holds both, a loss and none.
    """
    from evaluation.between import join, pick_model
    from evaluation.gate import gate_table, parse_margins, run_gate
    from evaluation.report.data import find_run, load_run
    from runs.console import Reporter, plain

    reporter = Reporter(json_output=json_output, quiet=quiet)
    margins = parse_margins(max_regression)
    first, second = (load_run(find_run(name, RESULTS)) for name in (baseline, candidate))
    chosen = pick_model(second, model)
    against = baseline_model or (chosen if chosen in first.models else None)
    joined = join(
        first, second, (pick_model(first, against), chosen), allow_different_settings=allow_different_settings
    )
    decided = run_gate(joined, margins)
    columns, rows = gate_table(decided)
    for row in decided.rows:
        if row.metric in second.doubtful:
            why = "it does not beat answer length on people's labels"
            reporter.warn(
                f"{plain(row.metric)} is {second.doubtful[row.metric]}: {why}, or was never held against them."
            )
    title = f"{joined.treatment} against {joined.control}"
    reporter.table(
        title, columns, rows, caption=f"Points of 100. Bounds are one-sided, each at {100 * (1 - decided.level):.3g} %."
    )
    if joined.stamp:
        reporter.warn(plain(joined.stamp))
    colour = {"passed": "green", "failed": "red", "undecided": "yellow"}[decided.outcome]
    sentences = [plain(row.result.sentence) for row in decided.rows if row.outcome != "passed"]
    reporter.result(decided.model_dump(mode="json"), [*sentences, f"[bold {colour}]{decided.outcome}[/]"])
    return int(decided.exit_code)


def _command() -> str:
    return " ".join(["uv run evaluate", *sys.argv[1:]])
