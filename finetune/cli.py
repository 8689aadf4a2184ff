"""The command line: `finetune {sft,dpo,reward,rl,merge}`. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import shlex
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from finetune.cluster import announced
from runs.cli import make_app, run_app
from runs.config import StrictModel, apply_overrides, parse, read_yaml
from runs.console import Reporter
from runs.errors import UsageError
from runs.memory import keep_freed_memory
from runs.paths import PROJECT_ROOT, shown

app = make_app("Train adapters: supervised fine-tuning, preference tuning, and merging. Data in, checkpoint out.")
Run = TypeVar("Run", bound=StrictModel)
DEFAULT = "smollm2-135m"
"""The family that needs no account (`inference.families.DEFAULT_FAMILY`, not imported here for speed)."""

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML file; configs/finetune holds the ones that ship.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE, repeatable; a list is a sweep: seed=[0,1]")
]
OutputOption = Annotated[Path | None, typer.Option("--output-dir", help="Folder of the finished adapter.")]
DataOption = Annotated[Path | None, typer.Option("--data-root", help="Folder with local data (CAI_DATA).")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Sets train.seed and data.seed.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Train on at most this many rows.")]
ResumeOption = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on from a checkpoint, or afresh.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, in what memory, and stop.")]
ProcessesOption = Annotated[int, typer.Option("--processes", min=1, help="With --dry-run: processes of the run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]


def _stage(name: str, model: str, about: str) -> None:
    """Make a stage a command; all of them have the same options. ``model`` is its class in `finetune.config`."""

    @app.command(name, help=about)
    def command(
        config: ConfigOption,
        overrides: SetOption = None,
        output_dir: OutputOption = None,
        data_root: DataOption = None,
        seed: SeedOption = None,
        limit: LimitOption = None,
        resume: ResumeOption = True,
        dry_run: DryOption = False,
        processes: ProcessesOption = 1,
        json_output: JsonOption = False,
        quiet: QuietOption = False,
    ) -> None:
        run: type[StrictModel] = getattr(import_module("finetune.config"), model)
        asked = Asked(name, config, overrides, output_dir, data_root, seed, limit)
        _train(run, asked, resume=resume, dry_run=dry_run, processes=processes, json_output=json_output, quiet=quiet)


_stage("sft", "SFTRun", "Teach a base model to answer (LoRA on every assistant turn of a dataset of conversations).")
_stage("dpo", "DPORun", "Tune an adapter on preference pairs, held to a frozen copy of where it started.")
_stage("reward", "RewardRun", "Train a reward model on preference pairs: a number for an answer, for `finetune rl`.")
_stage("rl", "RLRun", "Tune an adapter against rewards, with RLOO or GRPO, held to a frozen copy of where it started.")


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


class Asked(NamedTuple):
    """What the command line says of a config."""

    stage: str
    config: Path
    overrides: list[str] | None
    output_dir: Path | None
    data_root: Path | None
    seed: int | None
    limit: int | None

    def entries(self) -> list[str]:
        """All of it as ``KEY=VALUE``. Makes the data root known.

        Raises:
            UsageError: the data root is no folder.
        """
        if self.data_root is not None:
            if not self.data_root.is_dir():
                raise UsageError(f"--data-root {self.data_root}: there is no such folder.")
            os.environ["CAI_DATA"] = str(self.data_root)
        flags: dict[str, Any] = {}
        if self.seed is not None:
            flags |= {"train.seed": self.seed, "data.seed": self.seed}
        if self.limit is not None:
            flags["data.max_rows"] = self.limit
        if self.output_dir is not None:
            flags["output_dir"] = shown(self.output_dir)
        return [*(self.overrides or []), *(f"{key}={value}" for key, value in flags.items())]

    def words(self, entries: list[str]) -> list[str]:
        """The command that asks for it again, without this machine's data folder."""
        return [self.stage, "--config", _portable(self.config), *(w for e in entries for w in ("--set", e))]


def _train(
    model: type[Run], asked: Asked, *, resume: bool, dry_run: bool, processes: int, json_output: bool, quiet: bool
) -> None:
    """Read the config, and run it: once, as a sweep, or not at all."""
    from finetune import sweep

    entries = asked.entries()
    first = announced().first
    reporter = Reporter(json_output=json_output, quiet=quiet or not first)
    swept = sweep.read_sweep(model, entries)
    chosen = entries if swept is None else [*swept.fixed, *(f"{k}={v}" for k, v in swept.points()[0].items())]
    run: Any = parse(model, apply_overrides(read_yaml(asked.config), chosen), source=shown(asked.config))
    if dry_run:
        from finetune.dryrun import describe

        reporter.result(*describe(run, reporter, processes=processes))
        return
    if processes != 1:
        raise UsageError("--processes is read only with --dry-run.", mend="Start with torchrun or accelerate launch.")
    if swept is not None:
        if announced().spread:
            raise UsageError("A sweep starts its runs one after the other, in one process each.")
        words = [asked.stage, "--config", str(asked.config)]
        reporter.result(*sweep.run_sweep(swept, words, run.output_dir, reporter, resume=resume))
        return

    from finetune.fit import Options

    stage = import_module(f"finetune.{asked.stage}")
    options = Options(command=_command(asked.words(entries)), resume=resume)
    outcome = getattr(stage, f"run_{asked.stage}")(run, options, reporter)
    if first:
        reporter.result(*outcome)


def _portable(path: Path) -> str:
    """A path that means the same on another machine where that is possible: relative to the project."""
    whole = path.resolve()
    return str(whole.relative_to(PROJECT_ROOT)) if whole.is_relative_to(PROJECT_ROOT) else shown(path)


def _command(words: list[str]) -> str:
    return shlex.join(["uv", "run", "finetune", *words])


def main() -> None:
    """Entry point of `finetune`."""
    keep_freed_memory()
    run_app(app)


if __name__ == "__main__":
    main()
