"""Which prompts a run uses: taken from the sources by hash, never from the evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from critique_revision.config import PromptKind, PromptSource, RecipeConfig, locate
from critique_revision.records import ChosenPrompt
from critique_revision.safety import load_judge
from critique_revision.screening import screened
from critique_revision.text import ngrams, words
from inference.corpora import read_rows
from inference.engines.recorded import RecordedEngine
from inference.prompts import load_prompts
from inference.recorded import as_messages, constitution_exchange
from inference.records import Messages, normalise, prompt_id
from inference.transcripts import RejectedRow, parse_transcript
from runs.errors import UsageError, unknown_name
from runs.identity import digest

OVERLAP_WORDS = 8
"""A run of this many words shared with an evaluation prompt keeps a prompt out of training."""


@dataclass
class Selection:
    """The prompts of a run, and what became of all the others."""

    prompts: list[ChosenPrompt]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Source name → ``rows``, ``chosen``, ``not_needed`` and one count per reason to reject."""


class Exclusions:
    """Prompts that must not be trained on: by identity, by text, and by any run of `OVERLAP_WORDS` words."""

    def __init__(self, prompts: Iterable[Messages]) -> None:
        self._ids: set[str] = set()
        self._texts: set[str] = set()
        self._grams: set[tuple[str, ...]] = set()
        for messages in prompts:
            self._ids.add(prompt_id(messages))
            self._texts.add(normalise(messages[-1].content))
            for message in messages:
                if message.role == "user":
                    self._grams.update(ngrams(words(message.content), OVERLAP_WORDS))

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Exclusions:
        """Read the prompt files. Raises `UsageError` as `inference.prompts.load_prompts` does."""
        return cls(prompt.messages for path in paths for prompt in load_prompts(locate(path)))

    def __contains__(self, messages: Messages) -> bool:
        if prompt_id(messages) in self._ids or normalise(messages[-1].content) in self._texts:
            return True
        return any(self.shares_words(message.content) for message in messages if message.role == "user")

    def shares_words(self, text: str) -> bool:
        """Whether ``text`` has a run of `OVERLAP_WORDS` words with one of the prompts in common."""
        return not self._grams.isdisjoint(ngrams(words(text), OVERLAP_WORDS))


def select_prompts(config: RecipeConfig) -> Selection:
    """Choose the prompts of a run.

    Every source is read whole; its prompts are ordered by the hash of seed and prompt, so that neither the order of
    the file nor another source changes which are chosen, and a larger ``max_rows`` adds prompts without replacing
    any. A prompt that two sources hold counts for the first, unless the first's ``harm`` leaves it out.

    Raises:
        UserError: a source cannot be read, or has no such column.
    """
    excluded = Exclusions.load(config.exclude_prompts)
    on_file = [RecordedEngine(config.recorded[name]) for name in config.players if name in config.recorded]
    judge = cache(lambda: load_judge(None))
    selection = Selection([])
    seen: set[str] = set()
    for source in config.prompts:
        counts: Counter[str] = Counter()
        usable = _usable(source, excluded, on_file, seen, counts)
        found = sorted(usable, key=lambda prompt: _rank(config.seed, prompt))
        if source.harm is not None:
            found, misfits = screened(found, source.harm, source.max_rows, judge())
            counts["outside_harm_range"] = len(misfits)
            seen -= {prompt.prompt_id for prompt in misfits}  # another source may want the other end
        kept = found[: source.max_rows]
        counts["chosen"], counts["not_needed"] = len(kept), len(found) - len(kept)
        selection.prompts += kept
        selection.counts[f"{source.source.name} ({source.tag})"] = dict(counts)
    # One order over all sources, so that --limit takes a fair share of each.
    selection.prompts.sort(key=lambda prompt: _rank(config.seed, prompt))
    selection.prompts = selection.prompts[: config.limit]
    if not selection.prompts:
        raise UsageError("No source gave a prompt.", why=f"Counts: {selection.counts}.")
    return selection


def _rank(seed: int, prompt: ChosenPrompt) -> str:
    return digest([seed, "prompt", prompt.prompt_id])


def _usable(
    source: PromptSource,
    excluded: Exclusions,
    on_file: Sequence[RecordedEngine],
    seen: set[str],
    counts: Counter[str],
) -> Iterator[ChosenPrompt]:
    """The prompts of one source that may be used; the others are counted by reason."""
    for row in read_rows(source.source):
        counts["rows"] += 1
        try:
            messages = _messages(source, row)
            identity = prompt_id(messages)
            if identity in seen:
                raise RejectedRow("duplicate")
            if messages in excluded:
                raise RejectedRow("in_evaluation")
            if any(identity not in answers for answers in on_file):
                raise RejectedRow("no_recorded_answer")
        except RejectedRow as rejected:
            counts[rejected.reason] += 1
            continue
        seen.add(identity)
        yield ChosenPrompt(
            prompt_id=identity,
            messages=messages,
            tag=source.tag,
            source=source.source.name,
            categories=source.categories,
        )


def _messages(source: PromptSource, row: dict[str, Any]) -> Messages:
    """The prompt in a row. Raises `RejectedRow` when it holds none, `UsageError` when the column is not there."""
    if source.field not in row:
        raise unknown_name(f"column of {source.source.name}", source.field, [str(name) for name in row])
    messages = _read(source.kind, row[source.field])
    if sum(len(message.content) for message in messages) > source.max_prompt_chars:
        raise RejectedRow("too_long")
    return messages


def _read(kind: PromptKind, value: object) -> Messages:
    if kind == "messages":
        return as_messages(value)
    if kind == "constitution_pair":
        return constitution_exchange(value)[0]
    if not isinstance(value, str) or not value.strip():
        raise RejectedRow("empty")
    if kind == "text":
        return as_messages(value)
    turns = parse_transcript(value)
    last_user = max(index for index, turn in enumerate(turns) if turn.role == "user")
    return turns[:1] if kind == "transcript_first_turn" else turns[: last_user + 1]
