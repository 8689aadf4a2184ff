"""The command ``critique-revision``: generate, merge, filter, export, stats."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runs.cli import make_app, run_app

if TYPE_CHECKING:
    from critique_revision.config import FilterSettings, RecipeConfig
    from critique_revision.folder import Setup
    from critique_revision.labelling import Labeller
    from critique_revision.prompts import Selection
    from runs.console import Reporter
    from runs.job import Shard

app = make_app(
    "Constitutional data by one of five recipes: critique and revision (Bai et al. 2022), a teacher, AI feedback, "
    "best of n, benign twins. generate → filter → export."
)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="A YAML file; see configs/critique_revision/.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable.")
]
OutputOption = Annotated[Path | None, typer.Option(help="Where to write; default: the config's output_dir.")]
DataOption = Annotated[Path | None, typer.Option("--data-root", help="Folder that mirrors hub datasets (CAI_DATA).")]
RunArgument = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="The run's folder; default: the config's output_dir.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with the run in the folder, or start over.")
]
ExportOption = Annotated[Path | None, typer.Option("--output-dir", help="One folder per format; default: RUN/export.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]


@app.command()
def generate(
    config: ConfigOption = None,
    override: SetOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only so many prompts.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of prompts, principles and sampling.")] = None,
    output_dir: OutputOption = None,
    data_root: DataOption = None,
    shard: Annotated[
        str | None,
        typer.Option(help="INDEX/COUNT, from 0: that part of the prompts; `merge` follows. auto: as the Job says."),
    ] = None,
    resume: ResumeOption = True,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the calls of the config's recipe, each on record. A killed run goes on with the same command."""
    from critique_revision.generate import read_setup
    from critique_revision.roles import cast
    from runs.console import Reporter
    from runs.job import parse_shard, preemptible

    reporter = Reporter(json_output=json_output, quiet=quiet)
    part = parse_shard(shard) if shard is not None else None
    settings = _read_config(config, [*(override or ()), *_flags(limit=limit, seed=seed)])
    if data_root is not None:
        os.environ["CAI_DATA"] = str(data_root)
    setup, selection = read_setup(settings)
    _show_prompts(selection, reporter)
    folder = output_dir or settings.output_dir
    if dry_run:
        roles = cast(settings, len(setup.prompts))
        calls = sum(role["calls"] for role in roles.values())
        plan = {"prompts": len(setup.prompts), "calls": calls, "roles": roles, "folder": str(folder)}
        columns = ["role", "player", "model", "calls", "tokens written, at most"]
        reporter.table("Roles", columns, [[part, *map(str, row.values())] for part, row in roles.items()])
        reporter.result(plan, [f"{len(setup.prompts)} prompts, {calls} calls, into {folder}. Nothing was generated."])
        return
    command = _command("generate", config, override, limit=limit, seed=seed, shard=part, output_dir=output_dir)
    with preemptible():
        _generate(setup, selection, folder, part, resume=resume, command=command, reporter=reporter)


def _generate(
    setup: Setup,
    selection: Selection,
    folder: Path,
    shard: Shard | None,
    *,
    resume: bool,
    command: str,
    reporter: Reporter,
) -> None:
    from critique_revision.folder import clear
    from critique_revision.generate import run_recipe
    from critique_revision.roles import open_players
    from inference.corpora import source_digest
    from inference.families import load_family
    from runs.lock import run_lock
    from runs.paths import shown

    settings, family = setup.config, load_family(setup.config.family)
    with run_lock(folder):
        engines = open_players(settings, family, folder)
        if not resume:
            clear(folder)
        sources = {source.source.name: source_digest(source.source) for source in settings.prompts}
        manifest = run_recipe(
            setup,
            engines,
            folder,
            prompt_counts=selection.counts,
            sources=sources,
            reporter=reporter,
            command=command,
            shard=shard,
        )
    wall = manifest.wall_seconds
    following = f"filter {shown(folder)}" if shard is None else f"merge {shown(folder.parent)} --output-dir RUN"
    reporter.result(
        {"run": str(folder), "run_id": manifest.run_id, "counts": manifest.counts, "wall_seconds": wall},
        [
            f"{_made(manifest.counts, settings)}, in {shown(folder)} ({wall:.0f} s).",
            f"Next: uv run critique-revision {following}",
        ],
    )


@app.command("merge")
def merge_command(
    shards: Annotated[list[Path], typer.Argument(help="The shards' folders, or a folder that holds them.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder of the whole run.")],
    resume: ResumeOption = True,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put the shards of `generate --shard` together: the run that one machine would have made."""
    from critique_revision.folder import clear
    from critique_revision.merge import find_parts, merge
    from runs.console import Reporter
    from runs.lock import run_lock
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    parts = find_parts(shards)
    words = ["uv", "run", "critique-revision", "merge", *map(shown, shards), "--output-dir", shown(output_dir)]
    with run_lock(output_dir):
        if not resume:
            clear(output_dir)
        manifest = merge(parts, output_dir, command=shlex.join(words))
    reporter.result(
        {"run": str(output_dir), "run_id": manifest.run_id, "counts": manifest.counts, "shards": len(parts)},
        [
            f"{len(parts)} shards, {_calls(manifest.counts)} records, in {shown(output_dir)}.",
            f"Next: uv run critique-revision filter {shown(output_dir)}",
        ],
    )


@app.command("label")
def label_command(
    run: RunArgument = None,
    config: ConfigOption = None,
    gold: Annotated[
        str, typer.Option("--gold", help="Files of known pairs (prompt, chosen, rejected; or hh-rlhf's): measure it.")
    ] = "",
    categories: Annotated[
        str, typer.Option("--categories", help="With --gold: draw principles from these categories only.")
    ] = "",
    override: SetOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --gold: use only so many pairs.")] = None,
    output_dir: OutputOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Have the labeller judge pairs: known ones (--gold) to measure it, or a filtered run's for soft labels."""
    from critique_revision.folder import open_finished
    from critique_revision.labelling import calibrate, label_pairs, read_gold
    from runs.cli import split_names
    from runs.console import Reporter

    reporter = Reporter(json_output=json_output, quiet=quiet)
    folder = output_dir or _run_folder(run, config)
    settings = _labelling_config(folder, config, list(override or ()))
    if gold:
        known = read_gold([Path(name) for name in split_names(gold)], split_names(categories))
        known.pairs = known.pairs[:limit]
        found = calibrate(_labeller(settings, folder), known, folder, reporter)
        _show_calibration(found, reporter)
        reporter.result(found, [f"Written to {found['report']}."])
        return
    finished = open_finished(folder)
    found = label_pairs(_labeller(settings, folder), finished, reporter)
    reporter.result(
        found,
        [
            f"{found['pairs'] - found['unlabelled']} of {found['pairs']} pairs have a label; the labeller agrees with "
            f"{found['agrees']}.",
            "Measure it on known pairs (--gold) before you train on its labels.",
        ],
    )


def _labelling_config(folder: Path, config: Path | None, overrides: list[str]) -> RecipeConfig:
    """The config named now, else the one of the run in ``folder``; with the labeller as its only player."""
    from critique_revision.folder import CONFIG
    from critique_revision.labelling import labelling_config

    return labelling_config(_read_config(config or folder / CONFIG, overrides))


def _labeller(settings: RecipeConfig, folder: Path) -> Labeller:
    from critique_revision.config import locate
    from critique_revision.constitution import load_principles
    from critique_revision.dialogue import load_exemplars
    from critique_revision.labelling import Labeller
    from critique_revision.roles import open_players
    from inference.families import load_family

    constitution = load_principles(locate(settings.constitution))
    exemplars = load_exemplars(locate(settings.exemplars.file), settings.exemplars.count)
    return Labeller(settings, constitution, exemplars, open_players(settings, load_family(settings.family), folder))


@app.command("filter")
def filter_command(
    run: RunArgument = None,
    config: ConfigOption = None,
    override: SetOption = None,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Reject candidates that are no training data, count why, and make pairs of the others."""
    from critique_revision.folder import open_finished
    from critique_revision.pairs import filter_run, statistics, write_filtered
    from runs.console import Reporter
    from runs.lock import run_lock
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    finished = open_finished(_run_folder(run, config))
    settings = _filter_settings(finished.config, config, override or [])
    filtered = filter_run(finished, settings)
    stats = statistics(finished, filtered, settings)
    if not dry_run:
        with run_lock(finished.folder):
            write_filtered(finished.folder, filtered, stats)
    _show_stats(stats, reporter)
    where = "Nothing was written." if dry_run else f"Next: uv run critique-revision export {shown(finished.folder)}"
    reporter.result(stats, [f"{stats['pairs']} pairs from {stats['prompts']} prompts. {where}"])


@app.command()
def export(
    run: RunArgument = None,
    config: ConfigOption = None,
    formats: Annotated[
        str, typer.Option("--formats", help="Any of dpo, llm-swarm, openai, sft.")
    ] = "dpo,llm-swarm,openai,sft",
    output_dir: ExportOption = None,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a filtered run in TRL's, llm-swarm's and OpenAI's columns, each with its card and manifest."""
    from critique_revision.export import FORMATS, open_filtered
    from critique_revision.export import export as write
    from critique_revision.folder import open_finished
    from runs.cli import split_names
    from runs.console import Reporter
    from runs.errors import unknown_name
    from runs.paths import shown

    reporter = Reporter(json_output=json_output, quiet=quiet)
    folder = _run_folder(run, config)
    data = open_filtered(open_finished(folder))
    target = output_dir or folder / "export"
    names = split_names(formats)
    written: dict[str, Any] = {}
    for name in names:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    for name in names:
        if dry_run:
            written[name] = {"folder": str(target / name), "rows": len(list(FORMATS[name].rows(data)))}
            continue
        command = f"uv run critique-revision export {shlex.quote(shown(folder))} --formats {name}"
        manifest = write(data, name, target / name, command=command)
        written[name] = {"folder": str(target / name), "rows": manifest.counts["rows"], "run_id": manifest.run_id}
    done = "would be written to" if dry_run else "in"
    reporter.result(written, [f"{row['rows']} rows {done} {shown(Path(row['folder']))}" for row in written.values()])


@app.command()
def stats(
    run: RunArgument = None,
    config: ConfigOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the pairs against the bars; exit code 1 if one does not hold.")
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw reasons, principles and lengths, as PNG and SVG.")] = False,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", help="For --plot; default: RUN/figures.")] = None,
    json_output: JsonOption = False,
) -> None:
    """What became of a run's candidates, as its last filtering counted them."""
    from critique_revision.export import open_filtered
    from critique_revision.folder import open_finished
    from critique_revision.labelling import reports
    from critique_revision.showing import check_bars
    from runs.console import Reporter
    from runs.paths import shown

    reporter = Reporter(json_output=json_output)
    data = open_filtered(open_finished(_run_folder(run, config)))
    found = dict(data.stats)
    lines = [f"{found['pairs']} pairs from {found['prompts']} prompts."]
    _show_stats(found, reporter)
    if plot:
        from critique_revision.plots import draw

        written = draw(found, data.pairs, output_dir or data.run.folder / "figures")
        found["figures"] = [str(path) for path in written]
        lines.append(f"{len(written)} figures in {shown(written[0].parent)}")
    for measured in reports(data.run.folder):
        found.setdefault("calibration", []).append(measured)
        _show_calibration(measured, reporter)
    broken = check_bars(data, found, reporter) if check else None
    reporter.result(found, lines)
    if broken is not None:
        raise broken


@app.command()
def sheet(
    run: RunArgument = None,
    config: ConfigOption = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many pairs are drawn.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw, and of which answer stands first.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", help="The CSV to write; its key stands beside it.")] = None,
    read: Annotated[Path | None, typer.Option("--read", help="A filled sheet: say what its verdicts are.")] = None,
    json_output: JsonOption = False,
) -> None:
    """A blind sheet of randomly drawn pairs for a person to read; with --read, what the person found."""
    from critique_revision.sheet import key_path, read_sheet, write_sheet
    from critique_revision.showing import show_sheet
    from runs.console import Reporter
    from runs.errors import UsageError
    from runs.paths import shown

    reporter = Reporter(json_output=json_output)
    if (output is None) == (read is None):
        raise UsageError("Name --output FILE.csv to write a sheet of a run, or --read FILE.csv to read one.")
    if read is not None:
        found = read_sheet(read)
        show_sheet(found, reporter)
        reporter.result(found, [f"{found['judged']} of {found['rows']} rows have verdicts."])
        return
    from critique_revision.export import open_filtered
    from critique_revision.folder import open_finished

    assert output is not None
    data = open_filtered(open_finished(_run_folder(run, config)))
    key = write_sheet(data.pairs, output, rows=rows, seed=seed, run_id=data.run.run_id)
    reporter.result(
        {"sheet": str(output), "key": str(key_path(output)), "rows": len(key.rows), "of_pairs": key.pairs},
        [
            f"{len(key.rows)} of {key.pairs} pairs in {shown(output)}; the key, not for the reader: "
            f"{shown(key_path(output))}",
            f"Then: uv run critique-revision sheet --read {shown(output)}",
        ],
    )


def _calls(counts: dict[str, Any]) -> int:
    """The records of all stages, as a manifest counts them."""
    return sum(row["calls"] for name, row in counts.items() if name != "prompts")


def _made(counts: dict[str, Any], settings: RecipeConfig) -> str:
    if settings.recipe == "critique-revision":
        return f"{counts['answers']['calls']} prompts, {settings.revisions} revision(s) each"
    return f"{settings.recipe}: {_calls(counts)} records"


def _flags(**values: object) -> list[str]:
    return [f"{name}={value}" for name, value in values.items() if value is not None]


def _read_config(path: Path | None, overrides: list[str]) -> RecipeConfig:
    from critique_revision.config import RecipeConfig
    from runs import config as configs
    from runs.errors import UsageError

    if path is None:
        raise UsageError(
            "No config was named.", mend="For example: --config configs/critique_revision/smollm2-135m.yaml"
        )
    return configs.load(RecipeConfig, path, overrides)


def _run_folder(run: Path | None, config: Path | None) -> Path:
    """The folder named on the command line, else the config's."""
    from runs.errors import UsageError

    if run is not None:
        return run
    if config is None:
        raise UsageError("Name the run's folder, or its --config.")
    return _read_config(config, []).output_dir


def _filter_settings(stored: RecipeConfig, config: Path | None, overrides: list[str]) -> FilterSettings:
    """The run's own filter settings, or those of a config named now, with the overrides."""
    from critique_revision.config import RecipeConfig
    from runs import config as configs
    from runs.errors import UsageError

    for override in overrides:
        if not override.startswith("filters."):
            raise UsageError(f"--set {override}: only filters.* can change after generation.")
    base = stored if config is None else _read_config(config, [])
    values = configs.apply_overrides(base.model_dump(mode="json"), overrides)
    return configs.parse(RecipeConfig, values, source="The config with --set").filters


def _command(name: str, config: Path | None, overrides: list[str] | None, **flags: object) -> str:
    """The command line that does the same again, as a manifest records it."""
    from runs.paths import shown

    words = ["uv", "run", "critique-revision", name, "--config", shown(config) if config else ""]
    for override in overrides or ():
        words += ["--set", override]
    for flag, value in flags.items():
        if value is not None:
            words += [f"--{flag.replace('_', '-')}", shown(value) if isinstance(value, Path) else str(value)]
    return shlex.join(words)


def _show_calibration(found: dict[str, Any], reporter: Reporter) -> None:
    """Accuracy by source with its interval, and the reliability table."""
    rows = []
    for name, row in {"all": found, **found["by_source"]}.items():
        if "accuracy" not in row:
            rows.append([name, str(row["pairs"]), "no labels", "", "", ""])
            continue
        low, high = row["accuracy_interval"]
        numbers = [f"{row['accuracy']:.3f} [{low:.3f}, {high:.3f}]", *(f"{row[key]:.3f}" for key in ("brier", "ece"))]
        rows.append([name, str(row["pairs"]), *numbers, str(row["unlabelled"])])
    bias, same = found["order_bias"], found["order_consistency"]
    caption = (
        "" if bias is None else f"order bias {bias:+.3f}; both orders agree on {same:.0%}; Brier of p = 1/2: 0.250"
    )
    columns = ["pairs of", "n", "accuracy [95 %]", "Brier", "ECE", "unlabelled"]
    reporter.table("Labeller", columns, rows, caption=caption)
    bins = [
        [f"{row['low']:.2f}-{row['high']:.2f}", str(row["n"]), f"{row['confidence']:.3f}", f"{row['accuracy']:.3f}"]
        for row in found.get("reliability", ())
    ]
    reporter.table("Reliability", ["confidence", "n", "mean confidence", "share right"], bins)


def _show_prompts(selection: Selection, reporter: Reporter) -> None:
    """A table of what became of each source's rows."""
    if reporter.quiet:
        return
    rows = []
    for name, counts in selection.counts.items():
        left_out = ", ".join(
            f"{reason} {n}" for reason, n in sorted(counts.items()) if reason not in ("rows", "chosen")
        )
        rows.append([name, str(counts["rows"]), str(counts["chosen"]), left_out])
    reporter.table("Prompts", ["source", "rows", "chosen", "left out"], rows)


def _show_stats(found: dict[str, Any], reporter: Reporter) -> None:
    """Counts by reason, principle and tag, each with its denominator."""
    from critique_revision.showing import show_preferred

    total = found["revisions"]
    rows = [["accepted", str(found["accepted"]), f"{found['accepted'] / total:.1%}", ""]]
    rows += [
        [reason, str(count), f"{count / total:.1%}", str(found["any_reason"].get(reason, count))]
        for reason, count in found["by_reason"].items()
    ]
    caption = f"of {total} revisions of {found['prompts']} prompts; 'any' counts every reason against a revision"
    reporter.table("Revisions by reason", ["reason", "n", "share", "any"], rows, caption=caption)
    for field, title in (("by_principle", "principle"), ("by_tag", "tag")):
        grouped = [
            [
                name,
                str(row["revisions"]),
                str(row["accepted"]),
                f"{row['accepted'] / row['revisions']:.0%}",
                ", ".join(f"{reason} {count}" for reason, count in row["by_reason"].items()),
            ]
            for name, row in found[field].items()
        ]
        reporter.table(f"Revisions by {title}", [title, "n", "accepted", "share", "rejected for"], grouped)
    show_preferred(found, reporter)


def main() -> None:
    """Entry point of ``critique-revision``."""
    run_app(app, lists=("--formats", "--gold", "--categories"))


if __name__ == "__main__":
    main()
