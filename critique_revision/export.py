"""Filtered runs in the columns that others know: TRL's pairs, llm-swarm's full history, messages for SFT.

Each export is a folder with its rows, DATASET_CARD.md and manifest.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_revision import folder as folders
from critique_revision.config import RecipeConfig
from critique_revision.dialogue import conversation_text
from critique_revision.folder import FinishedRun
from critique_revision.recipes import recipe_of
from critique_revision.records import FilteredStep, PreferencePair
from inference.families import Family, load_family
from runs.atomic import make_folder, write_text
from runs.errors import UserError, unknown_name
from runs.identity import digest, file_digest
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, write_manifest
from runs.paths import shown
from runs.records import read_jsonl, write_jsonl

COUNTS = ("prompts", "revisions", "accepted", "pairs", "turned")

Row = dict[str, Any]


@dataclass(frozen=True)
class Exportable:
    """A finished run with what the filters left of it."""

    run: FinishedRun
    pairs: list[PreferencePair]
    accepted: list[FilteredStep]
    stats: dict[str, Any]


def open_filtered(run: FinishedRun) -> Exportable:
    """Read what ``filter`` wrote into the run's folder.

    Raises:
        UserError: nothing was filtered yet, or the files are those of another run.
    """
    path = run.folder / folders.STATS
    mend = f"Run: uv run critique-revision filter {shown(run.folder)}"
    if not path.is_file():
        raise UserError(f"The run in {shown(run.folder)} is not filtered yet.", mend=mend)
    stats = json.loads(path.read_bytes())
    if stats["run_id"] != run.run_id:
        raise UserError(f"{shown(path)} belongs to another run.", mend=mend)
    pairs = read_jsonl(run.folder / folders.PAIRS, PreferencePair)
    return Exportable(run, pairs, read_jsonl(run.folder / folders.ACCEPTED, FilteredStep), stats)


def dpo_rows(data: Exportable) -> Iterable[Row]:
    """TRL's explicit conversational preference columns, and where each pair comes from."""
    for pair in data.pairs:
        yield pair.model_dump(mode="json", exclude={"schema_version"}, exclude_none=True)


def swarm_rows(data: Exportable) -> Iterable[Row]:
    """llm-swarm's columns (the full history of every pair), with the principle, step and prompt named as well."""
    run = data.run
    principles = {row.id: row for row in run.setup.constitution.principles}
    history = {(step.prompt_id, step.step): step for step in run.steps}
    for pair in data.pairs:
        step = history[pair.prompt_id, pair.step]
        principle = principles[step.principle_id]
        prompt, *context = pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"}).values()
        chosen, rejected = context
        yield {
            "init_prompt": conversation_text(pair.prompt),
            "init_response": run.answers[pair.prompt_id].text,
            "critic_prompt": principle.critique_request if step.critique is not None else "",
            "critic_response": step.critique or "",
            "revision_prompt": principle.revision_request,
            "revision_response": step.revision,
            "prompt": conversation_text(pair.prompt),
            "messages": prompt + chosen,
            "chosen": prompt + chosen,
            "rejected": prompt + rejected,
            "principle_id": step.principle_id,
            "step": pair.step,
            "prompt_id": pair.prompt_id,
        }


def sft_rows(data: Exportable) -> Iterable[Row]:
    """Conversations that end with a revision: all accepted ones, of every step (Bai et al. 2022, section 3.2)."""
    for step in data.accepted:
        turns = [message.model_dump(mode="json") for message in step.messages]
        yield {
            "messages": [*turns, {"role": "assistant", "content": step.revision}],
            "prompt_id": step.prompt_id,
            "step": step.step,
            "principle_id": step.principle_id,
            "tag": step.tag,
        }


@dataclass(frozen=True)
class Format:
    """One way to write a filtered run."""

    file: str
    purpose: str
    rows: Callable[[Exportable], Iterable[Row]]


FORMATS = {
    "dpo": Format("pairs.jsonl", "preference pairs in TRL's columns (prompt, chosen, rejected)", dpo_rows),
    "llm-swarm": Format("pairs.jsonl", "preference pairs with their history in llm-swarm's columns", swarm_rows),
    "sft": Format("messages.jsonl", "conversations that end with an accepted revision", sft_rows),
}


def export(data: Exportable, name: str, folder: Path, *, command: str) -> Manifest:
    """Write one format into ``folder``; the manifest comes last.

    Raises:
        UsageError: an unknown format.
        UserError: there is nothing to write, or the folder cannot be written to.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    chosen, run = FORMATS[name], data.run
    rows = list(chosen.rows(data))
    if not rows:
        raise UserError(
            f"No revision of {shown(run.folder)} was accepted; there is nothing to export.",
            why=f"Rejected by reason: {data.stats['by_reason']}.",
            mend="Look at rejected.jsonl, then change the models, the exemplars or filters.*.",
        )
    make_folder(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_jsonl(folder / chosen.file, rows)
    write_text(folder / "DATASET_CARD.md", dataset_card(data, name, len(rows), command))
    return write_manifest(
        folder,
        kind="pairs" if name != "sft" else "messages",
        run_id=digest([run.run_id, data.stats["settings"], name]),
        command=command,
        config={**run.manifest.config, "filters": data.stats["settings"]},
        inputs={**run.manifest.inputs, "run": run.run_id, "pairs": file_digest(run.folder / folders.PAIRS)},
        seeds=run.manifest.seeds,
        counts={key: data.stats[key] for key in COUNTS} | {"rows": len(rows), "by_reason": data.stats["by_reason"]},
        metrics={key: data.stats[key] for key in ("mean_words", "chosen_longer")},
        wall_seconds=run.manifest.wall_seconds,
        files=[folder / chosen.file, folder / "DATASET_CARD.md"],
    )


def dataset_card(data: Exportable, name: str, rows: int, command: str) -> str:
    """DATASET_CARD.md: what the rows are, what they were made from, and under which licences."""
    run, stats, chosen = data.run, data.stats, FORMATS[name]
    config, constitution = run.config, run.manifest.inputs["constitution"]
    family = load_family(config.family)
    sources = [f"- prompts: {source.source.name} ({source.source.licence})" for source in config.prompts]
    sections = [
        f"# {config.name}: {chosen.purpose}",
        recipe_of(config).about(config)
        + "\n\nModel text, unreviewed by people. Filters check its form, not its truth or safety: either side can be "
        "false or harmful.",
        "## Counts\n\n"
        + _markdown_table(
            ("", "n"),
            [(key, str(stats[key])) for key in COUNTS]
            + [(f"rejected: {reason}", str(count)) for reason, count in stats["by_reason"].items()]
            + [(f"rows in {chosen.file}", str(rows))],
        ),
        "## By principle\n\n"
        + _markdown_table(
            ("principle", "revisions", "accepted"),
            [(key, str(row["revisions"]), str(row["accepted"])) for key, row in stats["by_principle"].items()],
        ),
        f"## Made from\n\n- constitution: {constitution['name']} (sha256 {constitution['sha256']})\n"
        + "\n".join(f"- {part}: {config.model_of(role, family.base.public_id)}" for part, role in config.acting.items())
        + (f"\n- revisions per prompt: {config.revisions}" if config.recipe == "critique-revision" else "")
        + f"\n- recipe {config.recipe}; seed {config.seed}\n- run id: {run.run_id}",
        "## Licences\n\n"
        + "\n".join(dict.fromkeys(sources))
        + f"\n- constitution: {run.setup.constitution.licence}\n- model text: {_licences(config, family)}",
        f"## Make it again\n\n    {run.manifest.command}\n    {command}",
    ]
    return "\n\n".join(sections) + "\n"


def _licences(config: RecipeConfig, family: Family) -> str:
    """The licences of all models whose text the rows may hold."""
    named = [f"{family.licence} (the model's)"] if config.checkpoints else []
    others = [name for name in config.players if name not in config.checkpoints]
    return "; ".join(named + [config.licence_of(name) for name in others])


def _markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" if index == 0 else "---:" for index in range(len(header))), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
