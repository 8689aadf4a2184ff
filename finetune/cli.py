"""The command line: `finetune {sft,dpo,reward,rl,merge}`. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from finetune.cluster import announced
from runs.cli import make_app, run_app
from runs.config import StrictModel, apply_overrides, parse, read_yaml
from runs.console import Reporter
from runs.errors import UsageError
from runs.paths import PROJECT_ROOT, shown

app = make_app("Train adapters: supervised fine-tuning, preference tuning, and merging. Data in, checkpoint out.")
Run = TypeVar("Run", bound=StrictModel)
DEFAULT = "smollm2-135m"
"""The family that needs no account (`inference.families.DEFAULT_FAMILY`, not imported here for speed)."""

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML file; configs/finetune holds the ones that ship.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, repeatable: train.learning_rate=1e-4")]
OutputOption = Annotated[Path | None, typer.Option("--output-dir", help="Folder of the finished adapter.")]
DataOption = Annotated[Path | None, typer.Option("--data-root", help="Folder with local data (CAI_DATA).")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Sets train.seed and data.seed.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Train on at most this many rows.")]
ResumeOption = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on from a checkpoint, or afresh.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]


@app.command()
def sft(
    config: ConfigOption,
    overrides: SetOption = None,
    output_dir: OutputOption = None,
    data_root: DataOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    resume: ResumeOption = True,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Teach a base model to answer (LoRA on every assistant turn of a dataset of conversations)."""
    from finetune.config import SFTRun
    from finetune.fit import Options
    from finetune.sft import run_sft

    run, command = _read(SFTRun, "sft", config, overrides, output_dir, data_root, seed, limit)
    first = announced().first
    reporter = Reporter(json_output=json_output, quiet=quiet or not first)
    outcome = run_sft(run, Options(command=command, resume=resume, dry_run=dry_run), reporter)
    if first:
        reporter.result(*outcome)


@app.command()
def dpo(
    config: ConfigOption,
    overrides: SetOption = None,
    output_dir: OutputOption = None,
    data_root: DataOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    resume: ResumeOption = True,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tune an adapter on preference pairs, held to a frozen copy of where it started."""
    from finetune.config import DPORun
    from finetune.dpo import run_dpo
    from finetune.fit import Options

    run, command = _read(DPORun, "dpo", config, overrides, output_dir, data_root, seed, limit)
    first = announced().first
    reporter = Reporter(json_output=json_output, quiet=quiet or not first)
    outcome = run_dpo(run, Options(command=command, resume=resume, dry_run=dry_run), reporter)
    if first:
        reporter.result(*outcome)


@app.command()
def reward(
    config: ConfigOption,
    overrides: SetOption = None,
    output_dir: OutputOption = None,
    data_root: DataOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    resume: ResumeOption = True,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a reward model on preference pairs: a number for an answer, for `finetune rl`."""
    from finetune.config import RewardRun
    from finetune.fit import Options
    from finetune.reward import run_reward

    run, command = _read(RewardRun, "reward", config, overrides, output_dir, data_root, seed, limit)
    first = announced().first
    reporter = Reporter(json_output=json_output, quiet=quiet or not first)
    outcome = run_reward(run, Options(command=command, resume=resume, dry_run=dry_run), reporter)
    if first:
        reporter.result(*outcome)


@app.command()
def rl(
    config: ConfigOption,
    overrides: SetOption = None,
    output_dir: OutputOption = None,
    data_root: DataOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    resume: ResumeOption = True,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tune an adapter against rewards, with RLOO or GRPO, held to a frozen copy of where it started."""
    from finetune.config import RLRun
    from finetune.fit import Options
    from finetune.rl import run_rl

    run, command = _read(RLRun, "rl", config, overrides, output_dir, data_root, seed, limit)
    reporter = Reporter(json_output=json_output, quiet=quiet)
    reporter.result(*run_rl(run, Options(command=command, resume=resume, dry_run=dry_run), reporter))


@app.command()
def merge(
    adapter: Annotated[str, typer.Option("--adapter", help="A checkpoint name of the family, or an adapter's folder.")],
    output: Annotated[Path, typer.Option("--output", "--output-dir", help="Folder of the merged model.")],
    family: Annotated[
        str, typer.Option("--family", help="A name under configs/models, or a YAML file.")
    ] = "smollm2-135m",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32 or bfloat16: how the merged weights are stored.")
    ] = "float32",
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write base and adapter as one model, after checking that it computes what the two do."""
    from finetune.merge import run_merge

    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"--dtype {dtype}: known are float32 and bfloat16.")
    reporter = Reporter(json_output=json_output, quiet=quiet)
    words = ["merge", "--family", family, "--adapter", adapter, "--output", shown(output), "--dtype", dtype]
    reporter.result(*run_merge(family, adapter, output, dtype=dtype, command=_command(words), reporter=reporter))


def _read(
    model: type[Run],
    name: str,
    config: Path,
    overrides: list[str] | None,
    output_dir: Path | None,
    data_root: Path | None,
    seed: int | None,
    limit: int | None,
) -> tuple[Run, str]:
    """The resolved config, and the command that asks for it again (without this machine's data folder)."""
    if data_root is not None:
        if not data_root.is_dir():
            raise UsageError(f"--data-root {data_root}: there is no such folder.")
        os.environ["CAI_DATA"] = str(data_root)
    flags: dict[str, Any] = {}
    if seed is not None:
        flags |= {"train.seed": seed, "data.seed": seed}
    if limit is not None:
        flags["data.max_rows"] = limit
    if output_dir is not None:
        flags["output_dir"] = shown(output_dir)
    asked = [*(overrides or []), *(f"{key}={value}" for key, value in flags.items())]
    words = [name, "--config", _portable(config)]
    for entry in asked:
        words += ["--set", entry]
    run = parse(model, apply_overrides(read_yaml(config), asked), source=shown(config))
    return run, _command(words)


def _portable(path: Path) -> str:
    """A path that means the same on another machine where that is possible: relative to the project."""
    whole = path.resolve()
    return str(whole.relative_to(PROJECT_ROOT)) if whole.is_relative_to(PROJECT_ROOT) else shown(path)


def _command(words: list[str]) -> str:
    return shlex.join(["uv", "run", "finetune", *words])


def main() -> None:
    """Entry point of `finetune`."""
    run_app(app)


if __name__ == "__main__":
    main()
