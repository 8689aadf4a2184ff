"""Rows become token ids: which are used, which are held out, and why the others are not.

The held-out side is decided by the hash of the first user turn alone (`inference.splits`), so that no prompt is on both
sides and every stage (SFT, DPO, and whoever evaluates them) draws the same line.

Lengths. A conversation that is too long is cut after the last assistant turn that fits: every turn that
stays is whole, and the row still ends with an answer. A preference pair that is too long is left out: a cut
answer has no end of turn, and the model would learn to run on.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from finetune.config import DataSection, DataSource, DPOData, RLData, SFTData
from inference import chat
from inference.corpora import read_rows, source_digest
from inference.records import Message, Messages, Prompt
from inference.splits import first_turn_id, in_holdout
from inference.transcripts import RejectedRow, parse_transcript
from runs.console import Reporter
from runs.errors import DataError, UserError
from runs.identity import digest

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that the loss does not see (torch's cross-entropy convention)."""

Parsed = TypeVar("Parsed")
Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One row, ready for the trainer."""

    columns: dict[str, Any]
    """TRL's columns: ``input_ids`` and ``labels``, or ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""
    tokens: int
    """Tokens that the model reads."""
    trained: int
    """Tokens that the loss sees."""
    shortened: bool = False
    """Whether turns were cut off at the end."""
    prompt: Messages = ()
    """A pair's prompt, for those who have it answered."""


UNREAD = Example({}, tokens=0, trained=0)
"""A row that was counted and not tokenised."""


@dataclass
class Examples:
    """What became of the rows."""

    train: list[Example] = field(default_factory=list)
    holdout: list[Example] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows that cannot be used, by reason."""
    unused: Counter[str] = field(default_factory=Counter)
    """Good rows beyond ``max_rows`` or ``max_holdout_rows``."""
    read: int = 0
    whole_pairs: list[Example] | None = None
    """The held-out pairs where ``holdout`` has their answers one by one."""

    @property
    def pairs(self) -> list[Example]:
        """The held-out pairs, in the order of their hashes: a random draw."""
        return self.holdout if self.whole_pairs is None else self.whole_pairs

    @property
    def trained_fraction(self) -> float:
        """Share of the training tokens that the loss sees."""
        total = sum(example.tokens for example in self.train)
        return sum(example.trained for example in self.train) / total if total else 0.0

    def counts(self) -> dict[str, Any]:
        """For the manifest: every row that was read is in exactly one of the entries."""
        return {
            "rows_read": self.read,
            "rows_trained": len(self.train),
            "rows_held_out": len(self.holdout),
            "rows_rejected": dict(sorted(self.rejected.items())),
            "rows_unused": dict(sorted(self.unused.items())),
            "rows_shortened": sum(example.shortened for example in self.train),
            "tokens": sum(example.tokens for example in self.train),
            "tokens_trained": sum(example.trained for example in self.train),
            "trained_fraction": round(self.trained_fraction, 4),
        }

    def show(self, reporter: Reporter) -> None:
        """Print `counts` as a table."""
        rows = [("read", self.read), ("trained on", len(self.train)), ("held out", len(self.holdout))]
        rows += [(f"rejected: {reason}", count) for reason, count in self.rejected.most_common()]
        rows += [(f"unused: {reason}", count) for reason, count in self.unused.most_common()]
        counts = self.counts()
        caption = (
            f"{counts['tokens']:,} tokens, {self.trained_fraction:.1%} of them trained on; "
            f"{counts['rows_shortened']} rows shortened to whole turns"
        )
        table = [(name, f"{count:,}") for name, count in rows]
        if not reporter.quiet:
            reporter.table("Rows", ["what", "rows"], table, caption=caption)

    def check(self, *, evaluated: bool) -> None:
        """Refuse data that cannot train.

        Raises:
            UserError: no rows are left, nothing (or everything) is trained on, or nothing is held out though
                ``evaluated`` asks for it.
        """
        if not self.train:
            raise DataError(
                "No row is left to train on.",
                why=f"{self.read} rows read; rejected: {dict(self.rejected) or 'none'}.",
                mend="Check data.field and data.max_tokens.",
            )
        if not 0.0 < self.trained_fraction < 1.0:
            raise DataError(
                f"{self.trained_fraction:.0%} of the tokens are trained on; it must be some and not all.",
                why="The chat template does not show where the assistant's turns are.",
            )
        if evaluated and not self.holdout:
            raise DataError(
                "train.eval_steps is set, but no row is held out.",
                mend="Raise data.holdout_fraction, read more rows, or set train.eval_steps to null.",
            )


def sft_examples(data: SFTData, tokenizer: PreTrainedTokenizerBase | None) -> Examples:
    """Read and tokenise conversations; every assistant turn is trained on. Without a tokenizer, only count them.

    Raises:
        UserError: a source cannot be read, or has no column ``data.field``.
    """
    return _collect(
        data,
        parse=lambda row: conversation(_column(row, data.field)),
        encode=lambda messages: (
            _encode_conversation(messages, tokenizer, data.max_tokens) if tokenizer is not None else UNREAD
        ),
        split_by=first_turn_id,
        content=lambda row: row.get(data.field),
    )


def dpo_examples(data: DPOData, tokenizer: PreTrainedTokenizerBase | None, *, soft: bool = False) -> Examples:
    """Read and tokenise preference pairs; with ``soft``, each has its ``label_prob``. Without a tokenizer, only count.

    Raises:
        UserError: a source cannot be read, or has no ``prompt``, ``chosen`` or ``rejected``.
    """

    def encode(parsed: tuple[tuple[Messages, str, str], float | None]) -> Example:
        if tokenizer is None:
            return UNREAD
        example = _encode_pair(parsed[0], tokenizer, data.max_tokens, data.max_rejected_tokens)
        return replace(example, columns=example.columns | {"label_prob": parsed[1]}) if soft else example

    return _collect(
        data,
        parse=lambda row: (pair(row, data.min_label_prob), label(row, data.default_label_prob) if soft else None),
        encode=encode,
        split_by=lambda parsed: first_turn_id(parsed[0][0]),
        content=lambda row: [row.get(name) for name in ("prompt", "chosen", "rejected")],
    )


def rl_examples(
    data: RLData, tokenizer: PreTrainedTokenizerBase | None, max_new_tokens: int
) -> tuple[Examples, list[Prompt]]:
    """Read prompts for reinforcement learning. Without a tokenizer, only count them.

    Returns:
        Rows with ``prompt`` (messages) and ``row``, and the prompts that ``row`` counts. A row's tokens are those of
        its prompt and of the longest answer.

    Raises:
        UserError: a source cannot be read, or has no column ``data.field``.
    """
    prompts: list[Prompt] = []

    def parse(row: Row) -> Prompt:
        return prompt_of(row, before_the_answer(_column(row, data.field)), data.expected)

    def encode(prompt: Prompt) -> Example:
        if tokenizer is None:
            return UNREAD
        length = len(_template(chat.prompt_ids, prompt.messages, tokenizer))
        if length + max_new_tokens > data.max_tokens:
            raise RejectedRow("too_long")
        prompts.append(prompt)
        columns = {"prompt": [turn.model_dump() for turn in prompt.messages], "row": len(prompts) - 1}
        return Example(columns, tokens=length + max_new_tokens, trained=max_new_tokens, prompt=prompt.messages)

    found = _collect(
        data,
        parse=parse,
        encode=encode,
        split_by=lambda prompt: first_turn_id(prompt.messages),
        content=lambda row: row.get(data.field),
    )
    return found, prompts


def before_the_answer(value: Any) -> Messages:
    """A question, a message list or a transcript as turns that end with the user's.

    Raises:
        RejectedRow: it is none of them, or nothing of the user's is left.
    """
    if isinstance(value, str) and not value.lstrip().startswith("Human:"):
        if not value.strip():
            raise RejectedRow("empty_turn")
        return (Message(role="user", content=value.strip()),)
    messages = parse_transcript(value) if isinstance(value, str) else _messages(value)
    while messages and messages[-1].role != "user":
        messages = messages[:-1]
    if not messages:
        raise RejectedRow("no_user_turn")
    return messages


def prompt_of(row: Row, messages: Messages, expected: str) -> Prompt:
    """A row's prompt for evaluators: its own ``expected``, ``category`` and so on where it has them."""
    names = ("category", "expected", "tags", "pair", "principle_ids", "reference")
    own = {name: row[name] for name in names if row.get(name)}
    try:
        return Prompt.model_validate({"expected": expected, **own, "messages": messages})
    except ValidationError as error:
        raise RejectedRow("not_a_prompt") from error


def unpaired(pairs: Examples, *, batch: int, grouped: bool) -> Examples:
    """Pairs as single answers with a label, for KTO, in batches whose rows belong together.

    A batch holds the chosen answers of some pairs and then their rejected ones. ``KL_completion_ids`` is the answer of
    the row before it in the batch, which stands under another prompt (Ethayarajh et al. 2024, section 4.1).

    Args:
        pairs: what `dpo_examples` gave.
        batch: answers in a batch; even.
        grouped: put pairs of like length together.
    """
    train, holdout = _unpaired(pairs.train, batch // 2, grouped), _unpaired(pairs.holdout, batch // 2, grouped=True)
    return replace(pairs, train=train, holdout=holdout, whole_pairs=pairs.holdout)


def _unpaired(examples: Sequence[Example], size: int, grouped: bool) -> list[Example]:
    if examples and examples[0] is UNREAD:
        return [UNREAD] * (2 * len(examples))
    ordered = sorted(examples, key=lambda example: -example.tokens) if grouped else list(examples)
    rows: list[Example] = []
    for start in range(0, len(ordered), size):
        block = ordered[start : start + size]
        answers = [(example, side) for side in ("chosen_ids", "rejected_ids") for example in block]
        # A pair alone would lend its answers to its own prompt: it borrows from the block before.
        others = (
            answers if len(block) > 1 else [(example, "chosen_ids") for example in ordered[max(start - 2, 0) :][:2]]
        )
        for index, (example, side) in enumerate(answers):
            other, other_side = others[index - 1]
            prompt, answer = example.columns["prompt_ids"], example.columns[side]
            columns = {"prompt_ids": prompt, "completion_ids": answer, "label": side == "chosen_ids"}
            columns["KL_completion_ids"] = other.columns[other_side]
            rows.append(Example(columns, tokens=len(prompt) + len(answer), trained=len(answer)))
    return rows


def inputs(data: DataSection) -> dict[str, str]:
    """For the manifest: each source's name and the digest of its bytes."""
    return {f"data:{source.name}": source_digest(source) for source in data.sources}


def to_dataset(examples: Sequence[Example]) -> Dataset:
    """The examples as the table that TRL's trainers take."""
    from datasets import Dataset

    return Dataset.from_list([example.columns for example in examples])


def sorted_dataset(examples: Sequence[Example]) -> Dataset:
    """As `to_dataset`, from long to short: less padding where the order does not matter."""
    return to_dataset(by_length(examples))


def by_length(examples: Sequence[Example]) -> list[Example]:
    """From long to short."""
    return sorted(examples, key=lambda example: example.tokens, reverse=True)


def _column(row: Row, name: str) -> Any:
    if name not in row:
        raise DataError(
            f"The rows have no column '{name}'.",
            why=f"They have: {', '.join(sorted(row))}.",
            mend="Set data.field to the column with the conversation.",
        )
    return row[name]


def _collect(
    data: DataSection,
    *,
    parse: Callable[[Row], Parsed],
    encode: Callable[[Parsed], Example],
    split_by: Callable[[Parsed], str],
    content: Callable[[Row], Any],
) -> Examples:
    found, seen = Examples(), set()
    for key, row in sorted(_keyed(data, content), key=lambda entry: entry[0]):
        found.read += 1
        if key in seen:
            found.rejected["duplicate"] += 1
            continue
        seen.add(key)
        try:
            parsed = parse(row)
            held = in_holdout(split_by(parsed), data.holdout_fraction)
            side, cap = (found.holdout, data.max_holdout_rows) if held else (found.train, data.max_rows)
            if cap is not None and len(side) >= cap:
                found.unused["held_out_surplus" if held else "beyond_max_rows"] += 1
                continue
            side.append(encode(parsed))
        except RejectedRow as rejection:
            found.rejected[rejection.reason] += 1
    return found


def _keyed(data: DataSection, content: Callable[[Row], Any]) -> Iterable[tuple[str, Row]]:
    """Each row with a hash of its content: sorting by it draws rows at random, whatever their order on disk."""
    for source in data.sources:
        rows = ((digest([data.seed, content(row)]), row) for row in _rows(source, getattr(data, "field", None)))
        yield from rows if source.max_rows is None else heapq.nsmallest(source.max_rows, rows, key=lambda row: row[0])


def _rows(source: DataSource, field: str | None) -> Iterable[Row]:
    """A source's rows, its own column in the place of the data's ``field``."""
    for raw in read_rows(source):
        row = {name: _plain(value) for name, value in raw.items()}
        if source.field is not None and field is not None:
            row[field] = _column(row, source.field)
        yield row


def _plain(value: Any) -> Any:
    """Arrays, which parquet gives for lists, as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def conversation(value: Any) -> Messages:
    """A transcript or a message list as turns that end with the assistant's.

    Raises:
        RejectedRow: it is neither, a turn is empty, or the roles do not alternate.
    """
    messages = parse_transcript(value) if isinstance(value, str) else _messages(value)
    while messages and messages[-1].role != "assistant":
        messages = messages[:-1]
    if not any(message.role == "user" for message in messages):
        raise RejectedRow("no_assistant_turn" if not messages else "no_user_turn")
    return messages


def _messages(value: Any) -> Messages:
    if not isinstance(value, list | tuple) or not value:
        raise RejectedRow("not_a_conversation")
    try:
        messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in value)
    except (KeyError, TypeError, ValidationError) as error:
        raise RejectedRow("not_a_conversation") from error
    if any(not message.content.strip() for message in messages):
        raise RejectedRow("empty_turn")
    turns = messages[1:] if messages[0].role == "system" else messages
    if any(turn.role != ("user", "assistant")[index % 2] for index, turn in enumerate(turns)):
        raise RejectedRow("roles_do_not_alternate")
    return messages


def pair(row: Row, min_label_prob: float) -> tuple[Messages, str, str]:
    """A row's prompt, chosen answer and rejected answer.

    Raises:
        RejectedRow: the row was not accepted, its label is too unsure, or a part is empty or malformed.
        UserError: the row has no such columns.
    """
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in row]
    if missing == ["prompt"] and all(isinstance(row[name], str) for name in ("chosen", "rejected")):
        row = row | _transcripts(row)
    elif missing:
        raise DataError(
            f"A pair has no column '{missing[0]}'.",
            why=f"It has: {', '.join(sorted(row))}.",
            mend="Pairs need prompt, chosen and rejected, each a list of messages, or two transcripts like hh-rlhf's.",
        )
    if row.get("accepted") is False:
        raise RejectedRow("not_accepted")
    probability = row.get("label_prob")
    if probability is not None and probability < min_label_prob:
        raise RejectedRow("label_unsure")
    prompt = _messages(row["prompt"])
    if prompt[-1].role != "user":
        raise RejectedRow("prompt_does_not_end_with_user")
    chosen, rejected = (_answer(row[name], prompt) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise RejectedRow("chosen_equals_rejected")
    return prompt, chosen, rejected


def _transcripts(row: Row) -> Row:
    """Two transcripts (``Human: … Assistant: …``) that differ in the last answer alone, as prompt and two answers."""
    chosen, rejected = (parse_transcript(row[name]) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or chosen[-1].role != "assistant":
        raise RejectedRow("prompts_differ")
    turns = {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}
    return {name: [turn.model_dump() for turn in messages] for name, messages in turns.items()}


def label(row: Row, default: float | None) -> float:
    """How probable it is that the row's chosen answer is the better one, in [0, 1].

    Raises:
        RejectedRow: nobody judged the pair and there is no ``default``, or its label is no probability.
    """
    found = row.get("label_prob")
    value = default if found is None else found
    if value is None:
        raise RejectedRow("no_label_prob")
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise RejectedRow("label_is_no_probability")
    return float(value)


def _answer(value: Any, prompt: Messages) -> str:
    """The assistant's answer: a string, one message, or the whole conversation that begins with ``prompt``."""
    if isinstance(value, str):
        text = value
    else:
        try:
            turns = tuple(Message(role=turn["role"], content=turn["content"]) for turn in value)
        except (KeyError, TypeError, ValidationError) as error:
            raise RejectedRow("not_a_conversation") from error
        if turns[: len(prompt)] == prompt:
            turns = turns[len(prompt) :]
        if len(turns) != 1 or turns[0].role != "assistant":
            raise RejectedRow("not_one_answer")
        text = turns[0].content
    if not text.strip():
        raise RejectedRow("empty_turn")
    return text


def _encode_conversation(messages: Messages, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Example:
    whole = len(messages)
    while True:
        ids, mask = _template(chat.training_ids, messages, tokenizer)
        if len(ids) <= max_tokens:
            break
        messages = messages[:-2]
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise RejectedRow("first_answer_too_long")
    labels = [token if trained else IGNORED for token, trained in zip(ids, mask, strict=True)]
    columns = {"input_ids": ids, "labels": labels}
    return Example(columns, tokens=len(ids), trained=sum(mask), shortened=len(messages) < whole)


def _encode_pair(
    parsed: tuple[Messages, str, str], tokenizer: PreTrainedTokenizerBase, max_tokens: int, rejected_tokens: int | None
) -> Example:
    prompt, *answers = parsed
    prompt_ids = _template(chat.prompt_ids, prompt, tokenizer)
    chosen, rejected = (_template(chat.completion_ids, prompt, text, tokenizer) for text in answers)
    rejected = rejected[:rejected_tokens]
    if len(prompt_ids) + max(len(chosen), len(rejected)) > max_tokens:
        raise RejectedRow("too_long")
    trained = len(chosen) + len(rejected)
    columns = {"prompt_ids": prompt_ids, "chosen_ids": chosen, "rejected_ids": rejected}
    return Example(columns, tokens=2 * len(prompt_ids) + trained, trained=trained, prompt=prompt)


def _template(function: Callable[..., Parsed], *arguments: Any) -> Parsed:
    """Call a function of `inference.chat`; a conversation that the template refuses is a rejected row."""
    try:
        return function(*arguments)
    except UserError as error:
        raise RejectedRow("chat_template_refuses") from error
