"""`uv run evaluate`: checkpoints in, verdict out. Bare `evaluate --models …` is `evaluate run --models …`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluation.calibrate.cli import register as register_calibrate
from evaluation.report.cli import register as register_reading_commands
from runs.cli import make_app, run_app, split_names

if TYPE_CHECKING:
    from runs.console import Reporter

app = make_app("Compare checkpoints of one family: generate, score, compare. Checkpoints in, verdict out.")

RESULTS = Path("results")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show the result only.")]


@app.command()
def run(
    models: Annotated[
        str | None, typer.Option(help="Checkpoints, separated by spaces or commas.", metavar="NAME …")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Model family (configs/models/) or a family YAML.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON-lines file of prompts; default: the shipped ones.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only N prompts, spread evenly. Stamped.")] = None,
    evaluators: Annotated[str | None, typer.Option(help="Evaluators by name; default: all.", metavar="NAME …")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 is greedy.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Prompts decoded together.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling and of the statistics.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    benchmarks: Annotated[
        str | None, typer.Option(help="lm-eval tasks on the same loaded models.", metavar="TASK …")
    ] = None,
    benchmarks_path: Annotated[
        Path | None, typer.Option(help="Folder of YAML tasks, such as configs/evaluation/benchmarks.")
    ] = None,
    benchmark_limit: Annotated[int | None, typer.Option(min=1, help="Questions a task. Stamped.")] = None,
    responses: Annotated[
        Path | None, typer.Option(help="Score answers made elsewhere: JSON lines or CSV with prompt, response, model.")
    ] = None,
    allow_different_settings: Annotated[
        bool, typer.Option("--allow-different-settings", help="With --responses: stamp other settings, do not refuse.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="INDEX/COUNT, from 0: that part of the prompts; `score` merges. auto: as the Job says."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and figures as well.")] = True,
    quantization: Annotated[str | None, typer.Option(help="4bit or 8bit (bitsandbytes).")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the same settings (configs/evaluation/).")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE into the config.")] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="The run's folder; default: results/<family>-<run id>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where an earlier process stopped.")
    ] = True,
    dry_run: Annotated[bool, typer.Option(help="Show the resolved config and stop.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer every prompt with every checkpoint, score the answers, and compare the checkpoints in pairs."""
    from evaluation.config import EvaluationRun
    from evaluation.outputs import show
    from runs import config as configs
    from runs.console import Reporter, plain
    from runs.job import parse_shard, preemptible
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    values = configs.apply_overrides(configs.read_yaml(config) if config else {}, overrides or [])
    given = {
        "models": split_names(models) if models is not None else None,
        "family": family,
        "prompts": prompts,
        "limit": limit,
        "evaluators": split_names(evaluators) if evaluators is not None else None,
        "batch_size": batch_size,
        "device": device,
        "quantization": quantization,
        "benchmarks": split_names(benchmarks) if benchmarks is not None else None,
        "benchmarks_path": benchmarks_path,
        "benchmark_limit": benchmark_limit,
        "shard": str(parse_shard(shard)) if shard is not None else None,
    }
    decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    values |= {key: value for key, value in given.items() if value is not None}
    sampling = {key: value for key, value in decoding.items() if value is not None}
    if sampling:
        values["sampling"] = {**EvaluationRun().sampling.model_dump(), **values.get("sampling", {}), **sampling}
    settings = configs.parse(EvaluationRun, values, source=str(config) if config else "The command line")
    if dry_run:
        reporter.result(settings.model_dump(mode="json"), [plain(settings.model_dump_json(indent=2))])
        return
    command = " ".join(["uv run evaluate", *sys.argv[1:]])
    if responses is not None:
        from evaluation.answered import evaluate_responses

        folder, results = evaluate_responses(
            settings if "models" in values else settings.model_copy(update={"models": ()}),
            responses,
            all_prompts="prompts" in values,
            allow_different_settings=allow_different_settings,
            output_dir=output_dir,
            results_root=RESULTS,
            resume=resume,
            reporter=reporter,
            command=command,
        )
    else:
        from evaluation.run import evaluate

        with preemptible():
            folder, results = evaluate(
                settings, output_dir=output_dir, results_root=RESULTS, resume=resume, reporter=reporter, command=command
            )
    if report:
        write_missing_report(folder, reporter)
    show(results, reporter)
    names = (*(("report.html",) if report else ()), "results.json", "comparison.csv", "samples.jsonl")
    reporter.result(
        {"folder": str(folder), **results.model_dump(mode="json")},
        [*(f"{plain(verdict.sentence)}" for verdict in results.verdicts if verdict.outcome != "undecided"), ""]
        + [f"[bold]{plain(shown(folder / name))}[/]" for name in names],
    )


def write_missing_report(folder: Path, reporter: Reporter) -> None:
    """The report of a finished run, unless it is there already. Raises as `evaluation.report.export.write_report`."""
    from evaluation.report.data import load_run
    from evaluation.report.export import LAST_WRITTEN, write_report

    if not (folder / LAST_WRITTEN).is_file():
        reporter.say("Writing the report")
        write_report(load_run(folder), folder)


register_reading_commands(app)
register_calibrate(app)


@app.command()
def ls(
    what: Annotated[str, typer.Argument(help="models, evaluators or runs")] = "runs",
    json_output: Json = False,
) -> None:
    """List what there is: model families, evaluators, or the runs under results/."""
    from evaluation.listing import Listing, list_evaluators, list_models, list_runs
    from runs.console import Reporter
    from runs.errors import unknown_name

    listings: dict[str, Callable[[], Listing]] = {
        "models": list_models,
        "evaluators": list_evaluators,
        "runs": partial(list_runs, RESULTS),
    }
    if what not in listings:
        raise unknown_name("listing", what, listings)
    title, columns, rows = listings[what]()
    reporter = Reporter(json_output=json_output)
    reporter.table(title, columns, rows)
    if json_output:
        reporter.result({what: [dict(zip(columns, row, strict=True)) for row in rows]}, [])


def main() -> None:
    """Entry point of `evaluate`."""
    run_app(app, lists=("--models", "--evaluators", "--benchmarks", "--max-regression"), default="run")
