"""No pair holds what the evaluation asks: prompts and chosen texts against every evaluation prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from critique_revision.config import Dedup, locate
from critique_revision.dedup import NearTexts
from critique_revision.filters import Standing
from critique_revision.prompts import Exclusions
from inference.prompts import load_prompts
from runs.errors import UsageError
from runs.identity import file_digest


class EvaluationPrompts:
    """The prompts of files, or of all ``*.jsonl`` in folders, and what holds them.

    Args:
        paths: as a config names them.
        dedup: from which similarity on a prompt is one of them.

    Raises:
        UsageError: a path is not there, a folder holds no prompt file, or a file is not valid.
    """

    def __init__(self, paths: Sequence[Path], dedup: Dedup) -> None:
        self.sources: list[dict[str, Any]] = []
        """Each file with its digest and the number of its prompts, for the statistics."""
        asked = []
        for named, path in prompt_files(paths).items():
            prompts = load_prompts(path)
            asked += [prompt.messages for prompt in prompts]
            self.sources.append({"file": named, "prompts": len(prompts), "sha256": file_digest(path)})
        self._exclusions, self._near = Exclusions(asked), NearTexts(dedup)
        for messages in asked:
            self._near.add(messages[-1].content)

    def hold(self, item: Standing) -> bool:
        """Whether the pair's prompt is one of them, or its chosen text has a run of words in common with one.

        A prompt is one of them when it is the same, nearly the same, or has such a run in common with it.
        """
        return (
            item.messages in self._exclusions
            or self._exclusions.shares_words(item.chosen)
            or any(self._near.near(message.content) for message in item.messages if message.role == "user")
        )


def prompt_files(paths: Sequence[Path]) -> dict[str, Path]:
    """The files behind ``paths``, each once, by the names that a config would give them."""
    found: dict[str, Path] = {}
    for named in paths:
        path = locate(named)
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise UsageError(
                f"There are no evaluation prompts at {named}.",
                why="Pairs are held against filters.evaluation_prompts and the run's own exclude_prompts.",
                mend="Put the file there, or do without: --set 'filters.skip=[in_evaluation]'",
            )
        found |= {(named / file.name if path.is_dir() else named).as_posix(): file for file in files}
    return found
