"""Filtered runs in the columns that others know: TRL's pairs, llm-swarm's full history, OpenAI's, messages for SFT.

Each export is a folder with its rows, DATASET_CARD.md and manifest.json. Rows say on which side of the split they are;
where a format has no room for that, the sides are two files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_revision import folder as folders
from critique_revision.config import RecipeConfig
from critique_revision.dialogue import conversation_text
from critique_revision.filters import OF_THE_SET
from critique_revision.folder import FinishedRun
from critique_revision.labelling import labeller_section
from critique_revision.recipes import recipe_of
from critique_revision.records import FilteredStep, PreferencePair, RevisionStep
from inference.families import Family, load_family
from inference.splits import split_of
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
    steps = {(step.prompt_id, step.step): step for step in data.run.steps}
    for pair in data.pairs:
        values = pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"})
        prompt, chosen, rejected = values["prompt"], values["chosen"], values["rejected"]
        yield {
            "init_prompt": conversation_text(pair.prompt),
            **_history(data.run, pair, steps.get((pair.prompt_id, pair.step))),
            "prompt": conversation_text(pair.prompt),
            "messages": prompt + chosen,
            "chosen": prompt + chosen,
            "rejected": prompt + rejected,
            "principle_id": pair.principle_ids[-1] if pair.principle_ids else "",
            "step": pair.step,
            "prompt_id": pair.prompt_id,
            "split": pair.split or "",
        }


def _history(run: FinishedRun, pair: PreferencePair, step: RevisionStep | None) -> dict[str, str]:
    """How the pair came about. Where nothing was revised, the two texts stand for themselves, and nobody was asked."""
    if step is None:
        return {
            "init_response": pair.rejected[-1].content,
            "critic_prompt": "",
            "critic_response": "",
            "revision_prompt": "",
            "revision_response": pair.chosen[-1].content,
        }
    principle = next(row for row in run.setup.constitution.principles if row.id == step.principle_id)
    return {
        "init_response": run.answers[pair.prompt_id].text,
        "critic_prompt": principle.critique_request if step.critique is not None else "",
        "critic_response": step.critique or "",
        "revision_prompt": principle.revision_request,
        "revision_response": step.revision,
    }


def openai_rows(data: Exportable) -> Iterable[Row]:
    """OpenAI's preference fine-tuning rows, which Together, Fireworks and Azure read as well.

    Source: https://developers.openai.com/api/docs/guides/direct-preference-optimization, "Data format".
    """
    for pair in data.pairs:
        values = pair.model_dump(mode="json", include={"prompt", "chosen", "rejected"})
        yield {
            "input": {"messages": values["prompt"], "tools": [], "parallel_tool_calls": True},
            "preferred_output": values["chosen"],
            "non_preferred_output": values["rejected"],
        }


def sft_rows(data: Exportable) -> Iterable[Row]:
    """Conversations that end with a revision: all accepted ones, of every step (Bai et al. 2022, section 3.2)."""
    fraction = data.stats["settings"].get("holdout_fraction")
    for step in data.accepted:
        turns = [message.model_dump(mode="json") for message in step.messages]
        yield {
            "messages": [*turns, {"role": "assistant", "content": step.revision}],
            "prompt_id": step.prompt_id,
            "step": step.step,
            "principle_id": step.principle_id,
            "tag": step.tag,
        } | ({} if fraction is None else {"split": split_of(step.messages, fraction)})


@dataclass(frozen=True)
class Format:
    """One way to write a filtered run."""

    file: str
    purpose: str
    rows: Callable[[Exportable], Iterable[Row]]
    holdout_file: str | None = None
    """Where the held-out pairs' rows go; None: into ``file``, marked by their column ``split``."""

    def files(self, data: Exportable) -> dict[str, list[Row]]:
        """File → its rows. A file that would be empty is not among them."""
        rows = list(self.rows(data))
        if self.holdout_file is None:
            return {self.file: rows} if rows else {}
        named = {self.file: "train", self.holdout_file: "holdout"}
        sides = [pair.split or "train" for pair in data.pairs]
        found = {
            name: [row for row, own in zip(rows, sides, strict=True) if own == side] for name, side in named.items()
        }
        return {name: own for name, own in found.items() if own}


FORMATS = {
    "dpo": Format("pairs.jsonl", "preference pairs in TRL's columns (prompt, chosen, rejected)", dpo_rows),
    "llm-swarm": Format("pairs.jsonl", "preference pairs with their history in llm-swarm's columns", swarm_rows),
    "openai": Format(
        "training.jsonl",
        "preference pairs in OpenAI's fine-tuning format (input, preferred_output, non_preferred_output)",
        openai_rows,
        holdout_file="validation.jsonl",
    ),
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
    files = chosen.files(data)
    rows = sum(len(own) for own in files.values())
    if not rows:
        raise UserError(
            f"No revision of {shown(run.folder)} was accepted; there is nothing to export.",
            why=f"Rejected by reason: {data.stats['by_reason']}.",
            mend="Look at rejected.jsonl, then change the models, the exemplars or filters.*.",
        )
    make_folder(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for stale in {chosen.file, chosen.holdout_file or chosen.file} - files.keys():
        (folder / stale).unlink(missing_ok=True)
    for file, own in files.items():
        write_jsonl(folder / file, own)
    write_text(folder / "DATASET_CARD.md", dataset_card(data, name, files, command))
    return write_manifest(
        folder,
        kind="pairs" if name != "sft" else "messages",
        run_id=digest([run.run_id, data.stats["settings"], name, *_checked_against(data)]),
        command=command,
        config={**run.manifest.config, "filters": data.stats["settings"]},
        inputs={**run.manifest.inputs, "run": run.run_id, "pairs": file_digest(run.folder / folders.PAIRS)},
        seeds=run.manifest.seeds,
        counts={key: data.stats[key] for key in COUNTS} | {"rows": rows, "by_reason": data.stats["by_reason"]},
        metrics={key: data.stats[key] for key in ("mean_words", "chosen_longer")},
        wall_seconds=run.manifest.wall_seconds,
        files=[*(folder / file for file in files), folder / "DATASET_CARD.md"],
    )


def _checked_against(data: Exportable) -> list[dict[str, Any]]:
    """The files, the classifier and the labeller that had a say: part of what an export is. Older runs name none."""
    return [data.stats[name] for name in ("checked_against", "labels") if data.stats.get(name)]


def dataset_card(data: Exportable, name: str, files: Mapping[str, Sequence[Row]], command: str) -> str:
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
            + [(f"rows in {file}", str(len(rows))) for file, rows in files.items()],
        ),
        "## By principle\n\n"
        + _markdown_table(
            ("principle", "revisions", "accepted"),
            [(key, str(row["revisions"]), str(row["accepted"])) for key, row in stats["by_principle"].items()],
        ),
        *checks_section(data),
        *labeller_section(run.folder, stats),
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


def checks_section(data: Exportable) -> list[str]:
    """The card's section on splits, copies, evaluation prompts and the classifier; none for runs of older filters."""
    stats = data.stats
    settings, seen, sides = stats["settings"], stats.get("checked_against"), stats.get("balance", {}).get("splits")
    if seen is None or sides is None:
        return []
    dedup, found = settings["dedup"], stats["any_reason"]
    counted = {name: found.get(name, 0) for name in OF_THE_SET}
    lines = [
        f"- split: by the hash of the first user turn, {settings['holdout_fraction']:.1%} of prompts held out; "
        + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sides.items()),
        f"- copies: {counted['duplicate']} exact, {counted['near_duplicate']} near (Jaccard similarity of "
        f"{dedup['shingle']}-character shingles from {dedup['threshold']:g}; MinHash with {dedup['permutations']} "
        f"permutations, seed {dedup['seed']}), {counted['boilerplate']} beyond {settings['max_same_chosen']} equal "
        "texts",
    ]
    evaluated = [f"{row['file']} ({row['prompts']} prompts)" for row in seen.get("evaluation_prompts", [])]
    lines.append(
        f"- evaluation prompts: {counted['in_evaluation']} left out for text in common with {', '.join(evaluated)}"
        if evaluated
        else "- evaluation prompts: not looked for"
    )
    if "classifier" in seen:
        lines.append(f"- safety classifier {seen['classifier'][:12]}: {counted['unsafe_chosen']} left out as unsafe")
    lines.append(f"- chosen preferred by an evaluator that selected nothing: {preferred_text(stats)}")
    return ["## Checks\n\n" + "\n".join(lines)]


def preferred_text(stats: dict[str, Any]) -> str:
    """What the independent evaluator said of the pairs, in words."""
    found = stats.get("chosen_preferred")
    if found is None:
        return "not measured"
    if found.get("share") is None:
        return str(found.get("unscored", "no pair could be scored"))
    low, high = found["interval"]
    by_tag = ", ".join(f"{tag} {row['count']} of {row['n']} ({row['head']})" for tag, row in found["by_tag"].items())
    return f"{found['count']} of {found['n']}, {found['share']:.1%} [{low:.1%}, {high:.1%}]; {by_tag}"


def _markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" if index == 0 else "---:" for index in range(len(header))), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
