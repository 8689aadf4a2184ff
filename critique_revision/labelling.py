"""`critique-revision label`: a labeller on pairs that exist, known ones to measure it, or a run's to soften its labels.

Both jobs ask as the recipe ai-feedback does, with every call on record in a folder of their own inside the run's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from critique_revision import calibration
from critique_revision import folder as folders
from critique_revision.calibration import CHOSEN, REJECTED
from critique_revision.calls import Calls
from critique_revision.comparison import compare, comparison_digest
from critique_revision.config import RecipeConfig
from critique_revision.constitution import PrinciplesConstitution, constitution_digest
from critique_revision.dialogue import Exemplar
from critique_revision.folder import FinishedRun, Setup
from critique_revision.principles import check_enough
from critique_revision.records import ChosenPrompt, Label, PreferencePair
from critique_revision.text import opening
from inference.corpora import Source, read_rows
from inference.engines.base import Engine
from inference.recorded import as_messages
from inference.records import Messages
from inference.transcripts import RejectedRow, parse_transcript
from runs.atomic import make_folder, write_text
from runs.console import Reporter
from runs.errors import DataError, UserError
from runs.identity import digest, file_digest
from runs.lock import run_lock
from runs.paths import shown
from runs.records import read_jsonl, write_jsonl

VERSION = 1
"""Raised when the same pairs could get other labels."""
REPORT = "calibration.json"


@dataclass(frozen=True)
class KnownPair:
    """Two answers to one prompt; ``chosen`` is the better one."""

    prompt: Messages
    chosen: str
    rejected: str
    source: str
    categories: tuple[str, ...] = ()
    """The categories that its principles are drawn from; empty: all."""

    @property
    def key(self) -> str:
        """Digest of the texts."""
        return digest([[turn.model_dump() for turn in self.prompt], self.chosen, self.rejected])


@dataclass
class Gold:
    """Known pairs from files, and the rows that were left out, by reason."""

    pairs: list[KnownPair] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def read_gold(paths: Sequence[Path], categories: Sequence[str] = ()) -> Gold:
    """Pairs with a known better answer: rows ``prompt``/``chosen``/``rejected``, or hh-rlhf's two transcripts.

    Raises:
        UserError: a file is missing, or holds no pair.
    """
    gold, seen = Gold(), set()
    for path in paths:
        for row in read_rows(Source(path=str(path))):
            try:
                prompt, chosen, rejected = _known(row)
                pair = KnownPair(prompt, chosen, rejected, path.name, tuple(categories))
                if pair.key in seen:
                    raise RejectedRow("duplicate")
            except RejectedRow as rejection:
                gold.left_out[rejection.reason] = gold.left_out.get(rejection.reason, 0) + 1
                continue
            seen.add(pair.key)
            gold.pairs.append(pair)
    if not gold.pairs:
        raise DataError(
            f"No known pair in {', '.join(map(shown, paths))}.",
            why=f"Rows left out: {gold.left_out}." if gold.left_out else "",
            mend="A row has prompt, chosen and rejected, or chosen and rejected as transcripts.",
        )
    return gold


def _known(row: Mapping[str, Any]) -> tuple[Messages, str, str]:
    if "chosen" not in row or "rejected" not in row:
        raise RejectedRow("no_pair")
    if row.get("prompt") is not None:
        prompt, chosen, rejected = as_messages(row["prompt"]), _last(row["chosen"]), _last(row["rejected"])
    else:
        better, worse = (parse_transcript(str(row[name])) for name in ("chosen", "rejected"))
        if better[:-1] != worse[:-1] or better[-1].role != "assistant":
            raise RejectedRow("two_prompts")
        prompt, chosen, rejected = better[:-1], better[-1].content, worse[-1].content
    if chosen.strip() == rejected.strip():
        raise RejectedRow("equal_answers")
    return prompt, chosen.strip(), rejected.strip()


def _last(answer: object) -> str:
    """An answer as text: a string, or the last of its messages."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list) and answer and isinstance(answer[-1], dict):
        return str(answer[-1].get("content", ""))
    raise RejectedRow("no_text")


def labelling_config(config: RecipeConfig) -> RecipeConfig:
    """``config`` with the labeller as its only player: no other model is loaded."""
    roles = config.roles.model_copy(update={"generator": config.roles.labeller})
    return config.model_copy(update={"recipe": "ai-feedback", "roles": roles})


@dataclass(frozen=True)
class Labeller:
    """Who labels, and by what: the parts of a config that the job needs."""

    config: RecipeConfig
    """As `labelling_config` makes it."""
    constitution: PrinciplesConstitution
    exemplars: tuple[Exemplar, ...]
    engines: Mapping[str, Engine]

    def ask(self, pairs: Sequence[KnownPair], folder: Path, reporter: Reporter) -> list[Label]:
        """The labels of all pairs, every call on record in ``folder``, which becomes the job's own.

        Raises:
            UserError: the labeller gives no log-probabilities, a call got no answer, or there are too few principles.
        """
        for categories in dict.fromkeys(pair.categories for pair in pairs):
            check_enough(self.constitution, self.config.feedback.principles, categories)
        keyed = {pair.key: pair for pair in pairs}
        prompts = tuple(
            ChosenPrompt(
                prompt_id=key, messages=pair.prompt, tag="known", source=pair.source, categories=pair.categories
            )
            for key, pair in keyed.items()
        )
        words = self.config.reply_words
        texts = {
            key: {CHOSEN: opening(pair.chosen, words), REJECTED: opening(pair.rejected, words)}
            for key, pair in keyed.items()
        }
        setup = Setup(self.config, self.constitution, self.exemplars, prompts)
        identity = self.identity(list(keyed))
        make_folder(folder)
        calls = Calls(setup, self.engines, folder, reporter, identity=identity)
        return compare(calls, texts, lambda prompt: [(CHOSEN, REJECTED)])

    def identity(self, keys: Sequence[str]) -> dict[str, Any]:
        """Everything that could change a label."""
        config = self.config
        return {
            "job": "label",
            "version": VERSION,
            "seed": config.seed,
            "feedback": config.feedback.model_dump(mode="json", include={"principles", "chain_of_thought"}),
            "reply_words": config.reply_words,
            "constitution": constitution_digest(self.constitution),
            "dialogue": comparison_digest(self.exemplars, config.feedback),
            "pairs": digest(list(keys)),
            "labeller": {
                "model": self.engines[config.roles.labeller.player].identity,
                "sampling": config.roles.labeller.sampling(config.seed).model_dump(mode="json"),
            },
        }

    def place(self, folder: Path, kind: str, pairs: Sequence[KnownPair]) -> Path:
        """The folder of a job inside a run's: another labeller, or other pairs, have another."""
        return folder / kind / digest(self.identity(list(dict.fromkeys(pair.key for pair in pairs))))[:12]


def calibrate(labeller: Labeller, gold: Gold, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Label known pairs; write and give the report on how right and how calibrated the labeller is."""
    place, settings = labeller.place(folder, folders.CALIBRATION, gold.pairs), labeller.config.feedback
    with run_lock(place):
        labels = labeller.ask(gold.pairs, place, reporter)
        probabilities = calibration.label_probabilities(labels, settings)
        by_source: dict[str, list[float | None]] = {}
        for pair in gold.pairs:
            by_source.setdefault(pair.source, []).append(probabilities[pair.key])
        found = {
            "labeller": labeller.engines[labeller.config.roles.labeller.player].identity,
            "player": labeller.config.roles.labeller.player,
            "feedback": settings.model_dump(mode="json", include={"principles", "chain_of_thought", "clamp"}),
            "constitution": labeller.constitution.name,
            "left_out": gold.left_out,
            **calibration.report([probabilities[pair.key] for pair in gold.pairs]),
            "order_bias": calibration.order_bias(labels, settings),
            "order_consistency": calibration.consistency(labels, settings),
            "by_source": {name: calibration.report(values) for name, values in by_source.items()},
        }
        write_text(place / REPORT, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found | {"report": str(place / REPORT)}


def label_pairs(labeller: Labeller, run: FinishedRun, reporter: Reporter) -> dict[str, Any]:
    """Give every pair of a filtered run a ``label_prob``; how many the labeller agrees with goes into stats.json.

    Raises:
        UserError: the run is not filtered.
    """
    path = run.folder / folders.PAIRS
    if not (run.folder / folders.STATS).is_file():
        raise UserError(
            f"The run in {shown(run.folder)} is not filtered yet.",
            mend=f"Run: uv run critique-revision filter {shown(run.folder)}",
        )
    pairs = read_jsonl(path, PreferencePair)
    categories = {prompt.prompt_id: prompt.categories for prompt in run.prompts}
    known = [
        KnownPair(
            row.prompt, row.chosen[-1].content, row.rejected[-1].content, row.tag, categories.get(row.prompt_id, ())
        )
        for row in pairs
    ]
    place, settings = labeller.place(run.folder, folders.LABELLING, known), labeller.config.feedback
    with run_lock(place):
        labels = labeller.ask(known, place, reporter)
    probabilities = calibration.label_probabilities(labels, settings)
    values = [probabilities[pair.key] for pair in known]
    labelled = [
        row.model_copy(update={"label_prob": None if p is None else round(p, 6)})
        for row, p in zip(pairs, values, strict=True)
    ]
    given = [p for p in values if p is not None]
    found = {
        "labeller": labeller.engines[labeller.config.roles.labeller.player].identity,
        "pairs": len(pairs),
        "unlabelled": len(pairs) - len(given),
        "agrees": sum(p > 0.5 for p in given),
        "mean_label_prob": sum(given) / len(given) if given else None,
        "order_bias": calibration.order_bias(labels, settings),
        "order_consistency": calibration.consistency(labels, settings),
    }
    with run_lock(run.folder):
        stats = json.loads((run.folder / folders.STATS).read_bytes())
        (run.folder / folders.STATS).unlink()
        write_jsonl(path, labelled)
        stats["labels"] = found | {"pairs_sha256": file_digest(path)}
        write_text(run.folder / folders.STATS, json.dumps(stats, indent=2, ensure_ascii=False) + "\n")
    return found


def reports(folder: Path) -> list[dict[str, Any]]:
    """The calibrations that stand in a run's folder, in the order of their names."""
    paths = sorted((folder / folders.CALIBRATION).glob(f"*/{REPORT}"))
    return [json.loads(path.read_bytes()) for path in paths]


def labeller_section(folder: Path, stats: Mapping[str, Any]) -> list[str]:
    """The card's section on a labeller: what it was measured at, and how many of the run's pairs it agrees with.

    None where no labeller took part.
    """
    lines = [_measured(row) for row in reports(folder) if "accuracy" in row]
    labels = stats.get("labels")
    if labels is not None:
        given = labels["pairs"] - labels["unlabelled"]
        lines.append(f"- `label_prob`: given to {given} of {labels['pairs']} pairs; above 1/2 for {labels['agrees']}")
    return ["## Labeller\n\n" + "\n".join(lines)] if lines else []


def _measured(row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_interval"]
    thought = ", after reasons" if row["feedback"]["chain_of_thought"] else ""
    return (
        f"- `{row['player']}`{thought}, on {row['pairs']} known pairs ({', '.join(row['by_source'])}): accuracy "
        f"{row['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}), Brier score {row['brier']:.3f} (1/2 always: "
        f"0.250), calibration error {row['ece']:.3f}, order bias {row['order_bias']:+.3f}"
    )
