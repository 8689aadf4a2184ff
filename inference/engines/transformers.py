"""The in-process engine: batched decoding with transformers, one base, named adapters.

`transformers.generate` cannot seed each row, drop finished rows, or share a prefix between rows, so the
decoding loop is ours; the forward pass, the cache and the attention are the library's. Greedy output
equals `generate`'s (a test compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference.adapters import SharedModel
from inference.chat import prompt_ids, stop_ids
from inference.records import (
    Completion,
    FinishReason,
    LabelScores,
    Messages,
    Partial,
    Request,
    Sampling,
    prompt_id,
)
from runs.errors import UserError
from runs.identity import row_seed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

MIN_SHARED_PREFIX = 16
"""A prefix shared by a whole batch is computed once when it has at least this many tokens."""

COMPACT_BELOW = 0.75
"""Finished rows leave the batch when at most this share of its rows is still being written."""


@dataclass
class _Row:
    """One answer in the making."""

    request: Request
    ids: list[int]
    seed: int
    tokens: list[int] = field(default_factory=list)
    done: bool = False
    generator: torch.Generator | None = None


class TransformersEngine:
    """One checkpoint of a shared model.

    Args:
        shared: the base with its adapters, perhaps shared with other engines.
        tokenizer: the base's tokenizer.
        adapter: the adapter to compute with; None is the bare base.
        identity: what could change an answer (base, adapter, chat format, dtype, …).
        batch_size: rows decoded together. It belongs to the identity: it moves sums around in floating point.
    """

    def __init__(
        self,
        shared: SharedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        adapter: str | None,
        identity: dict[str, str],
        batch_size: int,
    ) -> None:
        self._shared, self._tokenizer, self._adapter = shared, tokenizer, adapter
        self._identity, self._batch_size = identity, batch_size
        self._stops = stop_ids(tokenizer)

    @property
    def identity(self) -> dict[str, str]:
        """Everything that could change an answer."""
        return dict(self._identity)

    @property
    def parts(self) -> tuple[SharedModel, PreTrainedTokenizerBase, str | None]:
        """The shared model, its tokenizer and this checkpoint's adapter, for other readers of the same weights."""
        return self._shared, self._tokenizer, self._adapter

    def opening(self, messages: Messages) -> str:
        """The first eight tokens that the model reads, each with its id: shows the template and a doubled BOS."""
        ids = prompt_ids(messages, self._tokenizer)[:8]
        return " ".join(f"{self._tokenizer.decode([token])!r}:{token}" for token in ids)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, skip: frozenset[str] = frozenset()
    ) -> Iterator[Completion]:
        """Yield completions as they finish; see `inference.engines.base.Engine.generate`.

        Batches hold rows of similar length, longest first, so that little is padded and a lack of memory
        shows at once.

        Raises:
            UserError: a prompt and its answer do not fit into the model's context.
        """
        for batch in self._batches([self._row(request, sampling) for request in requests]):
            if all(row.request.key in skip for row in batch):
                continue
            for completion in self._decode(batch, sampling):
                if completion.key not in skip:
                    yield completion

    def batches(self, requests: Sequence[Request]) -> list[list[str]]:
        """The keys that are decoded together; see `inference.engines.base.Engine.batches`."""
        rows = [_Row(request, prompt_ids(request.messages, self._tokenizer), 0) for request in requests]
        return [[row.request.key for row in batch] for batch in self._batches(rows)]

    def _batches(self, rows: list[_Row]) -> list[list[_Row]]:
        ordered = sorted(rows, key=lambda row: (-len(row.ids), row.request.key))
        return [ordered[start : start + self._batch_size] for start in range(0, len(ordered), self._batch_size)]

    def stream(
        self, request: Request, sampling: Sampling, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Partial]:
        """Write one answer token by token; see `inference.engines.base.StreamingEngine.stream`.

        Streams of several checkpoints of one model may be read in turn, from one thread. A stream that is no longer
        read computes nothing.

        Raises:
            UserError: the prompt and its answer do not fit into the model's context.
        """
        import torch

        row = self._row(request, sampling)
        state = _State(self._shared, self._adapter, [row], self._tokenizer)
        chooser = _Chooser(sampling, [row], state.device)
        chosen: torch.Tensor | None = None
        while not stopped():
            with torch.inference_mode():
                logits = state.prefill() if chosen is None else state.step(chosen)
                chosen = chooser.choose(logits, [row])
            finish = self._advance(row, int(chosen[0]), sampling)
            if finish is not None:
                done = self._completion(row, finish)
                yield Partial(key=row.request.key, text=done.text, tokens=len(row.tokens), completion=done)
                return
            yield Partial(key=row.request.key, text=self._written(row), tokens=len(row.tokens))

    def label_logprobs(
        self, requests: Sequence[Request], labels: Sequence[str], *, skip: frozenset[str] = frozenset()
    ) -> Iterator[LabelScores]:
        """Score labels as the first token; see `inference.engines.base.LabellingEngine.label_logprobs`.

        Raises:
            UserError: a label that no single token spells, or a prompt that does not fit into the model's context.
        """
        import torch

        spellings = self._spellings(labels)
        for batch in self._batches([self._row(request, Sampling(max_new_tokens=1)) for request in requests]):
            if all(row.request.key in skip for row in batch):
                continue
            state = _State(self._shared, self._adapter, batch, self._tokenizer)
            with torch.inference_mode():
                logprobs = torch.log_softmax(state.prefill(), dim=-1)
            for row, line in zip(batch, logprobs, strict=True):
                if row.request.key in skip:
                    continue
                scores = {label: float(line[ids].logsumexp(dim=-1)) for label, ids in spellings.items()}
                yield LabelScores(
                    key=row.request.key, logprobs={**scores}, prompt_tokens=len(row.ids), completion_tokens=1
                )

    def _spellings(self, labels: Sequence[str]) -> dict[str, list[int]]:
        """The tokens that spell each label, white space around it aside."""
        texts = self._tokenizer.batch_decode([[token] for token in range(len(self._tokenizer))])
        found = {label: [token for token, text in enumerate(texts) if text.strip() == label] for label in labels}
        for label, ids in found.items():
            if not ids:
                raise UserError(f"No token of the model spells the label '{label}'.", mend="Take letters: A, B.")
        return found

    def _written(self, row: _Row) -> str:
        """The text so far; bytes that do not make a character yet are decoded as U+FFFD, and wait."""
        return str(self._tokenizer.decode(row.tokens, skip_special_tokens=True)).lstrip().rstrip("\ufffd")

    def _row(self, request: Request, sampling: Sampling) -> _Row:
        ids = prompt_ids(request.messages, self._tokenizer)
        context = self._shared.model.config.max_position_embeddings
        if len(ids) + sampling.max_new_tokens > context:
            opening = request.messages[-1].content[:60]
            raise UserError(
                f"A prompt of {len(ids)} tokens and an answer of {sampling.max_new_tokens} "
                f"exceed the model's context of {context}.",
                why=f"The prompt begins: {opening!r}",
                mend="Shorten the prompt, or lower --max-new-tokens.",
            )
        return _Row(request, ids, row_seed(sampling.seed, prompt_id(request.messages), request.sample))

    def _decode(self, batch: list[_Row], sampling: Sampling) -> Iterator[Completion]:
        import torch

        state = _State(self._shared, self._adapter, batch, self._tokenizer)
        chooser = _Chooser(sampling, batch, state.device)
        rows = list(batch)
        with torch.inference_mode():
            logits = state.prefill()
        while True:
            with torch.inference_mode():
                chosen = chooser.choose(logits, rows)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if not row.done:
                    finish = self._advance(row, token, sampling)
                    if finish is not None:
                        yield self._completion(row, finish)
            keep = [index for index, row in enumerate(rows) if not row.done]
            if not keep:
                return
            with torch.inference_mode():
                if len(keep) <= COMPACT_BELOW * len(rows):
                    rows, chosen = [rows[index] for index in keep], chosen[keep]
                    state.keep(keep)
                logits = state.step(chosen)

    def _advance(self, row: _Row, token: int, sampling: Sampling) -> FinishReason | None:
        """Give ``row`` its next token; say how it ended, if it did."""
        if token in self._stops:
            row.done = True
            return "stop"
        row.tokens.append(token)
        if len(row.tokens) == sampling.max_new_tokens:
            row.done = True
            return "length"
        return None

    def _completion(self, row: _Row, finish: FinishReason) -> Completion:
        return Completion(
            key=row.request.key,
            text=str(self._tokenizer.decode(row.tokens, skip_special_tokens=True)).strip(),
            finish_reason=finish,
            prompt_tokens=len(row.ids),
            completion_tokens=len(row.tokens),
            seed=row.seed,
        )


class _State:
    """Key-value cache, attention mask and positions of a batch.

    Rows are ``[shared prefix][padding][own suffix][answer]``: the prefix stands left of the padding, so
    it is computed once and its cache repeated. The mask hides the padding, positions count what is seen.
    """

    def __init__(
        self, shared: SharedModel, adapter: str | None, batch: list[_Row], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        import torch
        from transformers import DynamicCache

        self._shared, self._adapter = shared, adapter
        self.device = shared.model.device
        self._cache = DynamicCache(config=shared.model.config)
        prefix = _shared_prefix([row.ids for row in batch])
        self._prefix = torch.tensor([batch[0].ids[:prefix]], device=self.device)
        suffixes = [row.ids[prefix:] for row in batch]
        width = max(len(suffix) for suffix in suffixes)
        padding = [width - len(suffix) for suffix in suffixes]
        pad = int(tokenizer.pad_token_id or 0)
        self._suffixes = torch.tensor(
            [[pad] * gap + suffix for gap, suffix in zip(padding, suffixes, strict=True)], device=self.device
        )
        self._mask = torch.tensor(
            [[1] * prefix + [0] * gap + [1] * (width - gap) for gap in padding], device=self.device
        )

    def prefill(self) -> torch.Tensor:
        """Read the prompts; logits of the first answer token, ``[rows, vocabulary]``."""
        rows, prefix = self._suffixes.shape[0], self._prefix.shape[1]
        if prefix:
            self._forward(self._prefix, self._mask[:1, :prefix])
            self._cache.batch_repeat_interleave(rows)
        return self._forward(self._suffixes, self._mask)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token a row; logits of the next, ``[rows, vocabulary]``."""
        import torch

        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        return self._forward(tokens[:, None], self._mask)

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        import torch

        index = torch.tensor(rows, device=self.device)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self._shared.activate(self._adapter)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output: Any = self._shared.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


class _Chooser:
    """Picks each row's next token: greedy, or from the nucleus with the row's own generator."""

    def __init__(self, sampling: Sampling, batch: list[_Row], device: torch.device) -> None:
        import torch

        self._sampling = sampling
        if sampling.temperature > 0:
            for row in batch:
                row.generator = torch.Generator(device="cpu").manual_seed(row.seed)
        self._device = device

    def choose(self, logits: torch.Tensor, rows: list[_Row]) -> torch.Tensor:
        """Token ids ``[rows]`` from ``logits`` ``[rows, vocabulary]``."""
        import torch

        if self._sampling.repetition_penalty != 1.0:
            self._penalise(logits, rows)
        if self._sampling.temperature == 0:
            return logits.argmax(dim=-1)
        probabilities = self._nucleus(torch.softmax(logits / self._sampling.temperature, dim=-1)).cpu()
        chosen = [torch.multinomial(probabilities[index], 1, generator=row.generator) for index, row in enumerate(rows)]
        return torch.cat(chosen).to(self._device)

    def _penalise(self, logits: torch.Tensor, rows: list[_Row]) -> None:
        import torch

        penalty = self._sampling.repetition_penalty
        for index, row in enumerate(rows):
            seen = torch.tensor(sorted({*row.ids, *row.tokens}), device=logits.device)
            values = logits[index, seen]
            logits[index, seen] = torch.where(values > 0, values / penalty, values * penalty)

    def _nucleus(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Keep the smallest set of tokens whose mass reaches ``top_p`` (Holtzman et al. 2020, section 3.1)."""
        if self._sampling.top_p >= 1.0:
            return probabilities
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered[before >= self._sampling.top_p] = 0.0
        return ordered.new_zeros(ordered.shape).scatter(-1, order, ordered)


def _shared_prefix(rows: list[list[int]]) -> int:
    """How many leading tokens all rows share, leaving each at least one of its own; 0 when too few to matter."""
    if len(rows) < 2:
        return 0
    shortest = min(len(row) for row in rows) - 1
    first = rows[0]
    length = 0
    while length < shortest and all(row[length] == first[length] for row in rows):
        length += 1
    return length if length >= MIN_SHARED_PREFIX else 0
