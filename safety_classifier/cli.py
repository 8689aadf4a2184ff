"""The command line: `safety-classifier {train,prepare,evaluate,predict,serve,explain,export}`; heavy imports inside."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runs.cli import make_app, run_app, split_names
from runs.config import apply_overrides, parse, read_yaml
from runs.console import Reporter, plain
from runs.errors import ExitCode, UsageError
from runs.memory import keep_freed_memory
from runs.paths import CONFIGS, PROJECT_ROOT, shown

if TYPE_CHECKING:
    from safety_classifier.config import ClassifierRun

app = make_app(
    "Judge texts for harm: calibrated probabilities of hate speech, self-harm, dangerous advice and toxicity."
)

PROFILED = (20, 24)
"""Steps that --profile traces: by then everything is compiled."""

ConfigOption = Annotated[
    Path, typer.Option("--config", help="YAML file; configs/safety_classifier has the shipped ones.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, repeatable: train.learning_rate=1e-4")]
ArtifactOption = Annotated[
    Path | None, typer.Option("--artifact", help="The classifier's folder; default: the shipped.")
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, int8, bfloat16 or float32.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Sets train.seed and data.seed.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows of each source.")]
ResumeOption = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where an earlier process stopped.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, all else on stderr.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]


@app.command()
def train(
    config: ConfigOption,
    overrides: SetOption = None,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", help="Folder of the run.")] = None,
    resume: ResumeOption = True,
    limit: LimitOption = None,
    seed: SeedOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Trace a few steps with jax.profiler.")] = False,
    finish_now: Annotated[
        bool, typer.Option("--finish-now", help="No more steps: write the artifact from the best weights so far.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a classifier, calibrate it, and write it as an artifact."""
    reporter = Reporter(json_output=json_output, quiet=quiet)
    run, command = _read_run("train", config, overrides, output_dir, limit, seed, profile=profile)
    if dry_run:
        from safety_classifier.training.run import describe
        from safety_classifier.training.setup import open_session

        described = describe(open_session(run, reporter))
        reporter.result(described, [f"{plain(key)}: {plain(value)}" for key, value in described.items()])
        return
    from runs.manifest import read_manifest
    from safety_classifier.training import run as training

    folder = training.train(run, reporter, command=command, resume=resume, steps=not finish_now)
    if folder is None:  # another process of this run writes the artifact
        return
    manifest = read_manifest(folder, rebuild=command)
    reporter.result({"artifact": str(folder), "metrics": manifest.metrics}, [f"[bold]{plain(shown(folder))}[/]"])


@app.command()
def prepare(
    config: ConfigOption,
    overrides: SetOption = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Where prepared data goes; default: the cache that train reads.")
    ] = None,
    limit: LimitOption = None,
    seed: SeedOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read, clean, deduplicate and split the sources of a training config."""
    from runs.paths import cache_dir
    from safety_classifier.data.prepare import prepare as prepare_data

    reporter = Reporter(json_output=json_output, quiet=quiet)
    run, _ = _read_run("prepare", config, overrides, None, limit, seed)
    prepared = prepare_data(run.data, output_dir or cache_dir() / "safety_classifier", reporter=reporter)
    counts = prepared.frame()["split"].value_counts()
    rows = {str(split): int(count) for split, count in counts.items()}
    lines = [*(f"{name}: {count:,} rows" for name, count in rows.items()), f"[bold]{plain(shown(prepared.folder))}[/]"]
    reporter.result({"folder": str(prepared.folder), "rows": rows}, lines)


@app.command()
def evaluate(
    config: ConfigOption = CONFIGS / "safety_classifier" / "evaluate.yaml",
    overrides: SetOption = None,
    artifact: ArtifactOption = None,
    data: Annotated[Path | None, typer.Option("--data", help="Prepared data: what `prepare` wrote.")] = None,
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="Name of a suite; its file follows as --path.")
    ] = None,
    path: Annotated[list[Path] | None, typer.Option("--path", help="File of the suite before it.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows of each split.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Fit and measure baselines.")] = True,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder of the report.")] = Path(
        "results/safety_classifier/evaluation"
    ),
    update_card: Annotated[
        bool, typer.Option("--update-card", help="Put the tables into the artifact's model card.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Of baselines, attacks and bootstraps.")] = None,
    precision: PrecisionOption = "auto",
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a classifier beside baselines: accuracy, calibration, fairness, robustness, suites, speed."""
    from safety_classifier.evaluate import Request, run_evaluation

    if len(suite or []) != len(path or []):
        raise UsageError("--suite and --path come in pairs.", mend="For example: --suite hatecheck --path cases.csv")
    request = Request(
        config=config,
        overrides=tuple(overrides or ()),
        artifact=artifact,
        data=data,
        suites=tuple(zip(suite or [], path or [], strict=True)),
        limit=limit,
        baselines=baselines,
        folder=output_dir,
        update_card=update_card,
        seed=seed,
        precision=precision,
    )
    run_evaluation(request, Reporter(json_output=json_output, quiet=quiet))


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT…]", help="Texts to judge.")] = None,
    source: Annotated[Path | None, typer.Option("--input", help="File with one row a text; - is stdin.")] = None,
    form: Annotated[str, typer.Option("--format", help="auto (by name), txt, csv, tsv, jsonl or parquet.")] = "auto",
    text_column: Annotated[str, typer.Option("--text-column", help="Column of the text.")] = "text",
    context_column: Annotated[str, typer.Option("--context-column", help="Column of the prompt, if any.")] = "context",
    keep: Annotated[str, typer.Option("--keep", help="Columns to copy to the output: id,date")] = "",
    context: Annotated[str, typer.Option("--context", help="The prompt that each TEXT answers.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", help="FILE.jsonl, .csv or .parquet; default: JSON lines on stdout.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows judged and stored together.")] = 256,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a row could not be judged.")] = False,
    resume: ResumeOption = True,
    artifact: ArtifactOption = None,
    precision: PrecisionOption = "auto",
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Judge texts from the command line, a file, or stdin."""
    from safety_classifier.commands import predict_rows, predict_texts
    from safety_classifier.rows import Columns, RowFile

    if bool(texts) == (source is not None):
        raise UsageError("Give texts, or a file with --input, and not both.", mend="--input - reads stdin.")
    if source is None:
        if output is not None:
            raise UsageError("--output goes with --input.", mend="For texts on the command line there is --json.")
        reporter = Reporter(json_output=json_output, quiet=quiet)
        predict_texts(_classifier(artifact, precision), texts or [], context, reporter)
        return int(ExitCode.DONE)
    if context:
        raise UsageError("--context goes with texts on the command line.", mend="In a file, prompts have a column.")
    rows = RowFile.open(source, form, Columns(text_column, context_column, tuple(split_names(keep))))
    # Without an output file, stdout carries the rows and nothing else.
    reporter = Reporter(json_output=json_output or output is None, quiet=quiet)
    summary = predict_rows(_classifier(artifact, precision), rows, output, batch_size, resume, reporter)
    return int(ExitCode.ERROR if strict and summary.errors else ExitCode.DONE)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option("--config", help="YAML: configs/safety_classifier/serve.yaml")] = None,
    overrides: SetOption = None,
    artifact: ArtifactOption = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, int8, bfloat16 or float32.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address; any but loopback needs keys.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = None,
    keys_file: Annotated[Path | None, typer.Option("--keys-file", help="File with one key a line.")] = None,
    warm: Annotated[bool | None, typer.Option("--warm/--no-warm", help="Compile before calling itself ready.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check settings, keys and artifact, and stop.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Answer over HTTP: /v1/classify, /v1/moderations, /healthz, /readyz, /metrics, /docs."""
    from safety_classifier.serving.settings import ServeSettings, key_ring

    flags: dict[str, Any] = {
        "artifact": artifact,
        "precision": precision,
        "host": host,
        "port": port,
        "auth.keys_file": keys_file,
        "warm": warm,
    }
    values = apply_overrides(read_yaml(config) if config else {}, overrides or [])
    for key, value in flags.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            values |= {section: {**(values.get(section) or {}), name: value}} if section else {name: value}
    settings = parse(ServeSettings, values, source=shown(config) if config else "The command line")
    keys = key_ring(settings)  # before the model, so that a wrong setting is said at once
    reporter = Reporter(quiet=quiet)
    classifier = _classifier(settings.artifact, settings.precision)
    reporter.say(f"Loaded classifier [bold]{classifier.identity[:12]}[/], {classifier.precision}.")
    if dry_run:
        return
    from safety_classifier.serving.server import serve as run_server

    run_server(classifier, settings, keys, reporter=reporter)


@app.command()
def explain(
    text: Annotated[str, typer.Argument(help="The text.")],
    head: Annotated[str, typer.Option("--head", help="hate_speech, self_harm, dangerous_advice, toxicity …")],
    context: Annotated[str, typer.Option("--context", help="The prompt that the text answers.")] = "",
    artifact: ArtifactOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what each word adds to a score; the shares sum to it."""
    from safety_classifier.commands import explain_text

    explain_text(_classifier(artifact, "float32"), text, head, context, Reporter(json_output=json_output))


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output-dir", help="Folder of the bundle.")],
    artifact: ArtifactOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy what serving needs without our model code (StableHLO, weights, tokenizer), after checking that it agrees."""
    from safety_classifier.commands import export_bundle

    export_bundle(artifact, output, Reporter(json_output=json_output, quiet=quiet))


def _classifier(artifact: Path | None, precision: str) -> Any:
    """The classifier, checked. Raises `IntegrityError` when the artifact is not whole, `UsageError` for a precision."""
    from safety_classifier.api import Classifier

    return Classifier.load(artifact, precision=precision)


def _read_run(
    name: str,
    config: Path,
    overrides: list[str] | None,
    output_dir: Path | None,
    limit: int | None,
    seed: int | None,
    *,
    profile: bool = False,
) -> tuple[ClassifierRun, str]:
    """The resolved config, and the command that asks for it again."""
    from safety_classifier.config import ClassifierRun

    flags: list[str] = []
    if seed is not None:
        flags += [f"train.seed={seed}", f"data.seed={seed}"]
    if limit is not None:
        flags.append(f"data.max_rows={limit}")
    if output_dir is not None:
        flags.append(f"output_dir={shown(output_dir)}")
    if profile:
        flags.append(f"track.profile_steps={list(PROFILED)}")
    asked = [*(overrides or []), *flags]
    words = [name, "--config", _portable(config)]
    for entry in asked:
        words += ["--set", entry]
    run = parse(ClassifierRun, apply_overrides(read_yaml(config), asked), source=shown(config))
    return run, shlex.join(["uv", "run", "safety-classifier", *words])


def _portable(path: Path) -> str:
    """A path that means the same on another machine where that is possible: relative to the project."""
    whole = path.resolve()
    return str(whole.relative_to(PROJECT_ROOT)) if whole.is_relative_to(PROJECT_ROOT) else shown(path)


def main() -> None:
    """Entry point of `safety-classifier`."""
    keep_freed_memory()
    run_app(app)
