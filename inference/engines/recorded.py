"""The engine of answers on file: it looks an answer up by its prompt, and writes none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from inference.recorded import Recorded, read_answers
from inference.records import TERMINAL, Completion, Request, Sampling, prompt_id
from runs.errors import UserError


class RecordedEngine:
    """Answers of one model, by prompt.

    Args:
        recorded: where the answers are.
        name: what the run calls the model.
    """

    def __init__(self, recorded: Recorded, name: str = "recorded") -> None:
        self.recorded, self.name = recorded, name

    @cached_property
    def identity(self) -> dict[str, str]:
        """The model, the reading and the digests of the files: other answers are another run."""
        return self.recorded.identity

    @cached_property
    def _texts(self) -> dict[str, str]:
        return read_answers(self.recorded).texts

    def __contains__(self, identity: object) -> bool:
        """Whether the prompt with that id has an answer."""
        return identity in self._texts

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, skip: frozenset[str] = frozenset()
    ) -> Iterator[Completion]:
        """Yield the answers on file, in the order of ``requests``; decoding settings change none of them.

        Nothing was computed, so token counts are 0. A text that does not end like a finished one counts as cut
        (``length``): files do not say where their writer's limit was.

        Raises:
            UserError: a prompt has no answer on file.
        """
        for request in requests:
            if request.key in skip:
                continue
            text = self._texts.get(prompt_id(request.messages))
            if text is None:
                raise UserError(
                    f"'{self.name}' has no answer on file to: {request.messages[-1].content[:60]!r}",
                    mend="Take the prompts from the same files, or another engine for the role.",
                )
            yield Completion(
                key=request.key,
                text=text,
                finish_reason="stop" if text.endswith(TERMINAL) else "length",
                prompt_tokens=0,
                completion_tokens=0,
                seed=0,
            )

    def batches(self, requests: Sequence[Request]) -> list[list[str]]:
        """Each request by itself."""
        return [[request.key] for request in requests]
