"""A finished run, read once into typed tables that a page, a figure, an export or a dashboard shows.

Pure reading: nothing here computes a statistic, runs a model or prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.analysis import Analysis, analyse, read_analysis
from evaluation.benchmarks.records import Benchmarks
from evaluation.benchmarks.run import read_benchmarks
from evaluation.calibrate.card import ReportCard
from evaluation.config import CONSTITUTION
from evaluation.evaluators.standing import read_card
from evaluation.records import Results, Sample
from evaluation.report.instruments import INFORMATIVE, standings_of
from inference.records import Prompt
from runs.errors import IntegrityError, UsageError, UserError
from runs.folder import IDENTITY
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, read_manifest
from runs.paths import shown
from runs.records import read_jsonl

RESULTS = Path("results")
"""Where runs are looked for by id."""
LAST = "last"
"""The name of the newest finished run."""
SAMPLES_FILE, RESULTS_FILE = "samples.jsonl", "results.json"
_SHORTEST_ID = 4


@dataclass(frozen=True)
class RunData:
    """Everything that a run left behind."""

    folder: Path
    results: Results
    samples: tuple[Sample, ...]
    """In the order of samples.jsonl: prompts, and within a prompt the models."""
    manifest: Manifest
    analysis: Analysis
    """Every statistic: what the tables and figures show is read from it."""
    benchmarks: Benchmarks | None
    card: ReportCard | None
    """How the evaluators fare against people's labels; None where they were never calibrated."""

    @cached_property
    def doubtful(self) -> dict[str, str]:
        """Evaluator → ``uninformative`` or ``unvalidated``: shown in grey, and in no composite.

        Empty where no card was ever made: the page then says that none of them was checked.
        """
        standings = standings_of(self.card, self.results.versions)
        return {name: standing for name, standing in standings.items() if standing != INFORMATIVE}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The compared models, in the order of their lineage."""
        return tuple(self.results.config["models"])

    @cached_property
    def evaluators(self) -> tuple[str, ...]:
        """The evaluators that judged, in the order of the run."""
        return tuple(self.results.versions)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Evaluators and rates, in the order of the results."""
        return tuple(dict.fromkeys(summary.metric for summary in self.results.summaries))

    @cached_property
    def by_model(self) -> dict[str, list[Sample]]:
        """Model → its samples."""
        return {model: [sample for sample in self.samples if sample.model == model] for model in self.models}

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """Prompt id → prompt, in the run's order."""
        return {sample.prompt_id: sample.prompt for sample in self.samples}

    @cached_property
    def rows(self) -> tuple[PromptRow, ...]:
        """One row a prompt (and sample number), with every model's answer side by side."""
        found: dict[tuple[str, int], dict[str, Sample]] = {}
        for sample in self.samples:
            found.setdefault((sample.prompt_id, sample.sample), {})[sample.model] = sample
        numbered = enumerate(found.items(), start=1)
        return tuple(PromptRow(number, self.prompts[key[0]], answers) for number, (key, answers) in numbered)

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """Model → ids of the prompts that it has no answer to; models that answered all are left out."""
        found = {model: {sample.prompt_id for sample in own} for model, own in self.by_model.items()}
        absent = {model: [key for key in self.prompts if key not in ids] for model, ids in found.items()}
        return {model: keys for model, keys in absent.items() if keys}

    @property
    def constitution(self) -> Path:
        """Whose principles the run's prompts name."""
        return _constitution(self.manifest)

    @property
    def limited(self) -> bool:
        """Whether the run was cut short, so that its numbers are not to be reported."""
        return self.results.limited


@dataclass(frozen=True)
class PromptRow:
    """One prompt and what each model said to it."""

    number: int
    """From 1, in the order of the run."""
    prompt: Prompt
    answers: dict[str, Sample]
    """Model → sample; a model whose answer is missing is not in it."""


def find_run(reference: str, root: Path = RESULTS) -> Path:
    """The folder of a run.

    Args:
        reference: a run's folder, the first characters of its id (four or more), or ``last``.
        root: where ids are looked up.

    Raises:
        UsageError: nothing, or more than one run, is meant by ``reference``.
    """
    folder = Path(reference)
    if (folder / RESULTS_FILE).is_file():
        return folder
    if folder.is_dir():
        raise UsageError(
            f"{shown(folder)} is not a finished run.",
            why=f"It holds no {RESULTS_FILE}.",
            mend="Finish it with the `uv run evaluate` command that began it; it goes on where it stopped.",
        )
    runs = dict(finished_runs(root))
    if not runs:
        raise UsageError(f"There are no finished runs under {shown(root)}.", mend="Make one: uv run evaluate")
    if reference == LAST:
        return next(iter(runs))
    found = [path for path, run_id in runs.items() if _means(reference, path, run_id)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(run_id[:12] for run_id in runs.values())
    why = f"It fits {len(found)} runs." if found else ""
    raise UsageError(f"'{reference}' does not name one run.", why=why, mend=f"There are: {listed}; or '{LAST}'.")


def _means(reference: str, path: Path, run_id: str) -> bool:
    return path.name == reference or (len(reference) >= _SHORTEST_ID and run_id.startswith(reference))


def finished_runs(root: Path) -> Iterator[tuple[Path, str]]:
    """Folder and id of every finished evaluation below ``root``, newest first."""
    found = []
    for path in root.glob(f"*/{MANIFEST}"):
        manifest = Manifest.model_validate_json(path.read_bytes())
        if manifest.kind == "evaluation":
            found.append((manifest.created, path.parent, manifest.run_id))
    found.sort(key=lambda entry: (entry[0], str(entry[1])), reverse=True)
    yield from ((folder, run_id) for _, folder, run_id in found)


def load_run(folder: Path) -> RunData:
    """Read a finished run.

    Raises:
        UserError: there are no samples.
        IntegrityError: no manifest, or a file that is damaged.
    """
    rebuild = "uv run evaluate"
    manifest = read_manifest(folder, rebuild=rebuild)
    if not (folder / SAMPLES_FILE).is_file():
        raise UserError(
            f"{shown(folder)} has no {SAMPLES_FILE}.",
            why="The answers are what a report, a new scoring or a comparison starts from.",
            mend=f"Make the run again: {manifest.command}",
        )
    samples, results = read_jsonl(folder / SAMPLES_FILE, Sample), read_results(folder)
    found = read_benchmarks(folder)
    analysis = read_analysis(folder) or analyse(
        samples,
        results.config["models"],
        list(results.versions),
        seed=int(results.config["sampling"]["seed"]),
        benchmarks=found[1] if found else (),
        constitution=_constitution(manifest),
    )
    return RunData(
        folder=folder,
        results=results,
        samples=tuple(samples),
        manifest=manifest,
        analysis=analysis,
        benchmarks=found[0] if found else None,
        card=read_card(),
    )


def _constitution(manifest: Manifest) -> Path:
    return Path(manifest.config.get("constitution") or CONSTITUTION)


def read_results(folder: Path) -> Results:
    """A run's results.json.

    Raises:
        IntegrityError: it is not one, or of another version of this package.
    """
    try:
        return Results.model_validate_json((folder / RESULTS_FILE).read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        raise IntegrityError(
            f"{shown(folder / RESULTS_FILE)} is not a results file of this version.",
            why=f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}",
            mend=f"Score its answers again: uv run evaluate score {shown(folder)}",
        ) from error


def read_identity(folder: Path) -> dict[str, Any]:
    """What could have changed the run's result (its run.json).

    Raises:
        IntegrityError: there is none.
    """
    path = folder / IDENTITY
    if not path.is_file():
        raise IntegrityError(f"{shown(folder)} has no {IDENTITY}.", mend="It is not the folder of a run.")
    identity: dict[str, Any] = json.loads(path.read_bytes())["identity"]
    return identity


def categories(prompts: Sequence[Prompt]) -> list[str]:
    """The categories of ``prompts``, in order of appearance."""
    return list(dict.fromkeys(prompt.category for prompt in prompts))
