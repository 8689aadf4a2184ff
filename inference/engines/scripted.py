"""An engine with canned answers, for tests of everything above engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from inference.records import Completion, LabelScores, Partial, Request, Sampling
from runs.errors import UserError
from runs.identity import digest, row_seed


class ScriptedEngine:
    """Answers from a mapping (last user message → answer) or a function of the request.

    Args:
        answers: where the answers come from; a mapping must hold every message that is asked.
        name: stands for the model in identities.
    """

    def __init__(self, answers: Mapping[str, str] | Callable[[Request], str], name: str = "scripted") -> None:
        self._answers, self._name = answers, name

    @property
    def identity(self) -> dict[str, str]:
        """The name, and the digest of a mapping's answers."""
        script = digest(dict(self._answers)) if isinstance(self._answers, Mapping) else "function"
        return {"engine": "scripted", "model": self._name, "script": script}

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, skip: frozenset[str] = frozenset()
    ) -> Iterator[Completion]:
        """Yield the scripted answers in the order of the requests.

        Raises:
            UserError: a mapping has no answer for a message.
        """
        for request in requests:
            if request.key in skip:
                continue
            answer = self._answer(request)
            words = answer.split()
            yield Completion(
                key=request.key,
                text=" ".join(words[: sampling.max_new_tokens]) if len(words) > sampling.max_new_tokens else answer,
                finish_reason="length" if len(words) > sampling.max_new_tokens else "stop",
                prompt_tokens=sum(len(message.content.split()) for message in request.messages),
                completion_tokens=min(len(words), sampling.max_new_tokens),
                seed=row_seed(sampling.seed, request.key, request.sample),
            )

    def batches(self, requests: Sequence[Request]) -> list[list[str]]:
        """Each request by itself."""
        return [[request.key] for request in requests]

    def stream(
        self, request: Request, sampling: Sampling, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Partial]:
        """Yield the scripted answer word by word. Raises as `generate`."""
        (completion,) = self.generate([request], sampling)
        words = completion.text.split()
        for count in range(1, len(words) + 1):
            if stopped():
                return
            yield Partial(key=request.key, text=" ".join(words[:count]), tokens=count)
        yield Partial(key=request.key, text=completion.text, tokens=completion.completion_tokens, completion=completion)

    def _answer(self, request: Request) -> str:
        if not isinstance(self._answers, Mapping):
            return self._answers(request)
        last = request.messages[-1].content
        if last not in self._answers:
            raise UserError(f"The script has no answer for: {last[:80]}")
        return self._answers[last]


class ScriptedLabeller(ScriptedEngine):
    """A scripted engine that also scores labels.

    Args:
        answers: as `ScriptedEngine`.
        labels: gives a request's log-probability of each label it knows.
        name: stands for the model in identities.
    """

    def __init__(
        self,
        answers: Mapping[str, str] | Callable[[Request], str],
        labels: Callable[[Request], Mapping[str, float]],
        name: str = "scripted",
    ) -> None:
        super().__init__(answers, name)
        self._labels = labels

    def label_logprobs(
        self, requests: Sequence[Request], labels: Sequence[str], *, skip: frozenset[str] = frozenset()
    ) -> Iterator[LabelScores]:
        """Yield the scripted log-probabilities; a label that the script does not give is None."""
        for request in requests:
            if request.key in skip:
                continue
            given = self._labels(request)
            yield LabelScores(
                key=request.key,
                logprobs={label: given.get(label) for label in labels},
                prompt_tokens=sum(len(message.content.split()) for message in request.messages),
                completion_tokens=1,
            )
