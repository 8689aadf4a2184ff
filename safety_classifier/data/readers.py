"""From raw rows to records: named readers unfold a source's own layout, then its rules give the labels.

A reader takes one raw row and yields rows of plain columns. What a column means for a label is not decided here but by
the rules in ``configs/safety_classifier/sources.yaml``.
"""

from __future__ import annotations

import ast
import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from runs.errors import UserError
from runs.identity import text_digest
from safety_classifier.data.files import Fault, RawRow, raw_rows
from safety_classifier.data.rules import decide
from safety_classifier.data.sources import Source
from safety_classifier.examples import Example, Preference

Reader = Callable[[RawRow], Iterable[RawRow]]

READERS: dict[str, Reader] = {}

CONTEXT_WORDS = 64
"""A dialogue's earlier turns are cut from the left to this many words; the last human turn is always whole."""

MALFORMED_SHARE = 0.01
"""A source with a larger share of unreadable rows is taken for damaged."""

_FORGIVEN = 5  # in a source of a few hundred rows, one per cent is nothing
_TURN = re.compile(r"\n\n(Human|Assistant):")
_WRAPPED = re.compile(r"### Instruction:\s*(.*?)\s*### Response:", re.DOTALL)


class RowError(ValueError):
    """A raw row is not what its source's format promises."""


class RowUnused(Exception):
    """A raw row is sound and of no use; the message is the reason to count."""


@dataclass(frozen=True)
class Item:
    """One record of a source."""

    record: Example | Preference
    test: bool
    """Whether the source's authors set it aside for testing."""


@dataclass
class Faults:
    """Rows of one source that could not be used."""

    source: str
    rows: int = 0
    malformed: int = 0
    first: list[str] = field(default_factory=list)
    """The first few, each with file, row number and cause."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Well-formed rows left out, by reason."""

    def add(self, place: str, why: str) -> None:
        """Count one malformed row."""
        self.malformed += 1
        if len(self.first) < _FORGIVEN:
            self.first.append(f"{place}: {why}")

    def check(self) -> None:
        """Refuse a damaged source.

        Raises:
            UserError: more than one per cent of the rows (and more than a handful) are malformed.
        """
        if self.malformed > max(_FORGIVEN, MALFORMED_SHARE * self.rows):
            raise UserError(
                f"Source '{self.source}' is damaged: {self.malformed} of {self.rows} rows are malformed.",
                why="\n".join(self.first),
                mend="Fetch the source again, correct its entry in the sources file, or leave it out with 'exclude'.",
            )


def reader(name: str) -> Callable[[Reader], Reader]:
    """Register a reader by name."""

    def register(function: Reader) -> Reader:
        READERS[name] = function
        return function

    return register


def read(source: Source, faults: Faults) -> Iterator[Item]:
    """The records of ``source`` in its own order; what cannot be used is counted in ``faults``.

    Raises:
        UserError: a file is missing or unreadable, or too many rows are malformed.
    """
    for place, raw in raw_rows(source):
        faults.rows += 1
        if isinstance(raw, Fault):
            faults.add(place, raw.why)
            continue
        try:
            for row in READERS[source.reader](raw):
                item = _item(source, row)
                if isinstance(item, Item):
                    yield item
                else:
                    faults.dropped[item] += 1
        except RowUnused as reason:
            faults.dropped[str(reason)] += 1
        except KeyError as error:
            faults.add(place, f"has no column {error}")
        except (ValueError, TypeError, AttributeError) as error:
            # What a wrong type in a row's nested values raises; the message names no text of the row.
            faults.add(place, str(error) if isinstance(error, RowError) else "has a value of the wrong type")
    faults.check()


def _item(source: Source, row: RawRow) -> Item | str:
    """The record of one row, or the reason why there is none."""
    test = source.test_rows is not None and str(row[source.test_rows.column]) in source.test_rows.values
    if source.preference is not None:
        if not row["chosen"] or not row["rejected"]:
            return "empty"
        if row["chosen"] == row["rejected"]:
            return "equal answers"
        texts = {name: str(row[name]) for name in ("context", "chosen", "rejected")}
        return Item(Preference(head=source.preference, source=source.name, group=_group(source, row), **texts), test)
    text = "\n".join(part for column in source.text if (part := _clean(row[column], source.html)))
    if not text:
        return "empty"
    labels = _labels(source, row)
    if not labels:
        return "no label"
    context = _clean(row[source.context], source.html) if source.context else ""
    return Item(Example(text=text, context=context, labels=labels, source=source.name, group=_group(source, row)), test)


def _labels(source: Source, row: RawRow) -> dict[str, float]:
    labels = {}
    for head, rules in source.labels.items():
        verdict = decide(rules, row)
        if verdict is None:
            raise RowError(f"no rule of '{head}' covers it")
        if verdict != "unknown":
            labels[head] = float(verdict)
    return labels


def _group(source: Source, row: RawRow) -> str:
    """The group's digest: equal values in one group space are one group."""
    value = " ".join(str(row[source.group]).casefold().split()) if source.group else ""
    return f"{source.group_space}:{text_digest(value)[:16]}" if value else ""


def _clean(value: Any, is_html: bool) -> str:
    text = "" if value is None else str(value)
    return (html.unescape(text) if is_html else text).strip()


@reader("table")
def table(row: RawRow) -> Iterator[RawRow]:
    """One row is one example."""
    yield row


@reader("hatexplain")
def hatexplain(row: RawRow) -> Iterator[RawRow]:
    """HateXplain (Mathew et al. 2021): words and three annotators' labels; ``majority`` is empty where all differ."""
    annotators, words = _literal(row["annotators"]), _literal(row["post_tokens"])
    labels = annotators["label"] if isinstance(annotators, dict) else [one["label"] for one in annotators]
    label, votes = Counter(str(one) for one in labels).most_common(1)[0]
    yield {"text": " ".join(words), "majority": label if votes > len(labels) / 2 else ""}


@reader("matched_pairs")
def matched_pairs(row: RawRow) -> Iterator[RawRow]:
    """Hatemoji (Kirk et al. 2022): an original and its perturbation name each other; ``pair`` is the same for both."""
    ids = sorted([str(row["entry_id"]), str(row["matched_id"])])
    yield {**row, "pair": "/".join(ids)}


@reader("diasafety")
def diasafety(row: RawRow) -> Iterator[RawRow]:
    """DiaSafety (Sun et al. 2022): a reply in context; ``verdict`` is ``category: label``."""
    yield {**row, "verdict": f"{row['category']}: {row['label']}"}


@reader("safetext")
def safetext(row: RawRow) -> Iterator[RawRow]:
    """SafeText (Levy et al. 2022): a scenario's safe and unsafe advice, as a reply to it and as one sentence."""
    scenario = str(row["key"]).strip()
    for verdict in ("safe", "unsafe"):
        for advice in row["value"][verdict]:
            rest = {"scenario": scenario, "verdict": verdict}
            yield {"text": advice, "context": scenario, "view": "reply", **rest}
            yield {"text": f"{scenario} {advice}", "context": "", "view": "alone", **rest}


@reader("request_response")
def request_response(row: RawRow) -> Iterator[RawRow]:
    """MedSafetyBench (Han et al. 2024): a harmful request alone, and a safe response to it."""
    request, response = row["harmful_medical_request"], row["safe_response"]
    yield {"text": request, "context": "", "request": request, "view": "request"}
    yield {"text": response, "context": request, "request": request, "view": "response"}


@reader("counselling")
def counselling(row: RawRow) -> Iterator[RawRow]:
    """CounselChat: a question to therapists, an answer alone, and the answer to the question."""
    title, body = str(row["questionTitle"] or "").strip(), str(row["questionText"] or "").strip()
    question = " ".join(part for part in (title, body) if part)
    answer = str(row["answerText"] or "")
    rest = {"question": question, "split": row.get("split", "")}
    yield {"text": question, "context": "", "view": "question", **rest}
    yield {"text": answer, "context": "", "view": "answer", **rest}
    yield {"text": answer, "context": title or question, "view": "exchange", **rest}


@reader("instructions")
def instructions(row: RawRow) -> Iterator[RawRow]:
    """Instruction tuning data: the instruction alone, its response alone, and the response to the instruction."""
    prompt = str(row["instruction"] if "instruction" in row else row["prompt"])
    wrapped = _WRAPPED.search(prompt)
    prompt = wrapped.group(1) if wrapped else prompt.strip()
    yield {"text": prompt, "context": "", "prompt": prompt, "view": "prompt"}
    yield {"text": row["response"], "context": "", "prompt": prompt, "view": "response"}
    yield {"text": row["response"], "context": prompt, "prompt": prompt, "view": "exchange"}


@reader("topics")
def topics(row: RawRow) -> Iterator[RawRow]:
    """CatQA and HarmfulQA (Bhardwaj and Poria 2023): questions by topic; ``topic`` is ``topic / subtopic``."""
    for subtopic, questions in row["value"].items():
        for question in questions:
            yield {"text": question, "topic": f"{row['key']} / {str(subtopic).strip(' :')}"}


@reader("stories")
def stories(row: RawRow) -> Iterator[RawRow]:
    """Stories: paragraphs of at least eight words, so that lengths are like those of other sources."""
    for paragraph in str(row["text"]).split("\n"):
        if len(paragraph.split()) >= 8:
            yield {"text": paragraph.strip(), "story": str(row["text"])[:200]}


@reader("transcript_pair")
def transcript_pair(row: RawRow) -> Iterator[RawRow]:
    """hh-rlhf (Bai et al. 2022): two dialogues that differ in the assistant's last turn.

    Raises:
        RowError: the dialogues do not end with the assistant.
        RowUnused: they differ before that, so that the answers are not to one prompt.
    """
    head, chosen = _last_turn(row["chosen"])
    other, rejected = _last_turn(row["rejected"])
    if head != other:
        raise RowUnused("two prompts")
    turns = _turns(head)
    if not turns or turns[0][0] != "Human":
        raise RowError("does not start with a human turn")
    yield {"context": shortened(turns), "chosen": chosen, "rejected": rejected, "first": turns[0][1]}


@reader("constitution_pair")
def constitution_pair(row: RawRow) -> Iterator[RawRow]:
    """Answers of one model to one prompt under opposite constitutions: the answer under the good one is chosen.

    Raises:
        RowError: it is not exactly one good and one bad constitution.
    """
    bad = [bool(re.search("uncensored|vague and ambiguous", one["prompt"])) for one in row["value"]]
    if sorted(bad) != [False, True]:
        raise RowError("is not one answer under each constitution")
    good, worse = (row["value"][bad.index(which)] for which in (False, True))
    prompt = good["prompt"].rpartition("\n\nHuman:")[2].removesuffix("\n\nAssistant:").strip()
    chosen, rejected = good["response"].strip(), worse["response"].strip()
    yield {"context": prompt, "first": prompt, "chosen": chosen, "rejected": rejected}


@reader("transcript_answers")
def transcript_answers(row: RawRow) -> Iterator[RawRow]:
    """The pair of `transcript_pair`, unfolded: each answer to its prompt, and an opening request alone."""
    for answer in _answers(next(iter(transcript_pair(row)))):
        yield answer
        if answer["context"] == answer["first"]:
            yield {**answer, "text": answer["first"], "context": "", "view": "prompt"}


@reader("constitution_answers")
def constitution_answers(row: RawRow) -> Iterator[RawRow]:
    """The pair of `constitution_pair`, unfolded: each answer to its prompt."""
    return _answers(next(iter(constitution_pair(row))))


def _answers(pair: RawRow) -> Iterator[RawRow]:
    for view in ("chosen", "rejected"):
        exchange = f"Human: {pair['context']}\nAssistant: {pair[view]}"
        yield {
            "text": pair[view],
            "context": pair["context"],
            "first": pair["first"],
            "view": view,
            "exchange": exchange,
        }


def shortened(turns: list[tuple[str, str]]) -> str:
    """A dialogue as context: a single turn as it is, else the last `CONTEXT_WORDS` words, the last turn whole."""
    if len(turns) == 1:
        return turns[0][1]
    last = turns[-1][1]
    room = CONTEXT_WORDS - len(last.split())
    if room <= 0:
        return last
    earlier = " ".join(f"{speaker}: {text}" for speaker, text in turns[:-1]).split()
    return f"{' '.join(earlier[-room:])} {turns[-1][0]}: {last}"


def _last_turn(dialogue: str) -> tuple[str, str]:
    head, marker, last = dialogue.rpartition("\n\nAssistant:")
    if not marker or _TURN.search(last):
        raise RowError("does not end with an assistant turn")
    return head, last.strip()


def _turns(dialogue: str) -> list[tuple[str, str]]:
    parts = _TURN.split(dialogue)
    return [(speaker, text.strip()) for speaker, text in zip(parts[1::2], parts[2::2], strict=True)]


def _literal(value: Any) -> Any:
    """A nested value, which CSV files hold as a Python literal."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except SyntaxError as error:
        raise RowError("holds a value that cannot be parsed") from error
