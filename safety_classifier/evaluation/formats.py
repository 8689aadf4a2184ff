"""Public benchmarks' formats as tasks for our heads; of the benchmarks, only the names of columns are in here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runs.errors import UserError
from safety_classifier.calibration import Floats, Ints
from safety_classifier.evaluation.reading import Row, choice, flag, read_table
from safety_classifier.labels import Labels

Combine = Literal["head", "max", "noisy_or"]
"""How a task's score comes from its heads: one head; the largest; or 1 - Π(1 - p), the noisy or."""


@dataclass(frozen=True)
class Task:
    """One question that a suite asks: labels, and the heads that answer."""

    name: str
    heads: tuple[str, ...]
    combine: Combine
    targets: Floats
    """(n,) of 0 and 1; NaN: the row has no label here. Empty in all rows: the task is left out."""


@dataclass(frozen=True)
class SuiteData:
    """A suite as read: rows, tasks, and columns to break the first task down by."""

    texts: list[str]
    contexts: list[str] | None
    tasks: list[Task]
    breakdown: dict[str, list[str]] = field(default_factory=dict)
    """Column to the value of each row; "" leaves the row out."""
    clusters: Ints | None = None
    """(n,) rows that are resampled together; None: each by itself."""
    pairs: tuple[str, Ints] | None = None
    """A preference head and the (m, 2) rows of chosen and rejected responses."""
    note: str = ""
    """How labels were mapped, for the report."""


Reader = Callable[[Path, Labels], SuiteData]


def hatecheck(path: Path, labels: Labels) -> SuiteData:
    """HateCheck (Röttger et al. 2021): functionality, test_case, label_gold; target_ident, templ_id where present."""
    rows = read_table(path, ("functionality", "test_case", "label_gold"))
    values = {"hateful": 1.0, "non-hateful": 0.0}
    targets = np.array([choice(path, n, row, "label_gold", values) for n, row in enumerate(rows, start=1)])
    breakdown = {"functionality": _column(rows, "functionality")}
    if "target_ident" in rows[0]:
        breakdown["target_ident"] = _column(rows, "target_ident")
    return SuiteData(
        texts=_column(rows, "test_case"),
        contexts=None,
        tasks=[Task("hateful", ("hate_speech",), "head", targets)],
        breakdown=breakdown,
        clusters=_codes(_column(rows, "templ_id")) if "templ_id" in rows[0] else None,
    )


_OPENAI_KEYS = {
    "S": "sexual",
    "H": "hate_speech",
    "V": "violence",
    "HR": "toxicity",
    "SH": "self_harm",
    "S3": "sexual",
    "H2": "hate_speech",
    "V2": "violence",
}
_OPENAI_UNIONS = {
    "hate": ("H", "H2"),
    "self_harm": ("SH",),
    "sexual": ("S", "S3"),
    "violence": ("V", "V2"),
    "harassment": ("HR",),
}


def openai_moderation(path: Path, labels: Labels) -> SuiteData:
    """OpenAI's moderation samples (Markov et al. 2023): prompt and eight keys; a missing key is unlabelled."""
    rows = read_table(path, ("prompt",))
    keys = {
        key: np.array(
            [flag(path, n, row, key) if row.get(key) is not None else np.nan for n, row in enumerate(rows, start=1)]
        )
        for key in _OPENAI_KEYS
    }
    known = np.stack(list(keys.values()))
    if np.isnan(known).all():
        raise UserError(f"{path}: no row has any of the columns {', '.join(_OPENAI_KEYS)}.")
    any_harm = np.where((known == 1).any(axis=0), 1.0, np.where(np.isnan(known).all(axis=0), np.nan, 0.0))
    tasks = _any_tasks(labels, any_harm)
    for name, parts in _OPENAI_UNIONS.items():
        tasks += _head_task(labels, name, _OPENAI_KEYS[parts[0]], _union([keys[part] for part in parts]))
    for key, head in _OPENAI_KEYS.items():
        tasks += _head_task(labels, f"key {key}", head, keys[key])
    return SuiteData(
        texts=_column(rows, "prompt"),
        contexts=None,
        tasks=tasks,
        note="any: 1 if any given key is 1, else 0. hate, sexual and violence join their two keys (H or H2 …)."
        " Harassment (HR) is answered by the toxicity head.",
    )


def toxicchat(path: Path, labels: Labels) -> SuiteData:
    """ToxicChat (Lin et al. 2023): user_input and toxicity; jailbreaking where present."""
    rows = read_table(path, ("user_input", "toxicity"))
    targets = np.array([flag(path, n, row, "toxicity") for n, row in enumerate(rows, start=1)])
    breakdown = {}
    if "jailbreaking" in rows[0]:
        marks = [flag(path, n, row, "jailbreaking") for n, row in enumerate(rows, start=1)]
        breakdown["jailbreaking"] = ["jailbreak" if mark else "plain" for mark in marks]
    tasks = [*_any_tasks(labels, targets), *_head_task(labels, "toxicity head", "toxicity", targets)]
    return SuiteData(_column(rows, "user_input"), None, tasks, breakdown, note="The user's input is judged alone.")


_BEAVER = {
    "hate_speech": ("hate_speech,offensive_language", "discrimination,stereotype,injustice"),
    "self_harm": ("self_harm",),
    "dangerous_advice": (
        "drug_abuse,weapons,banned_substance",
        "financial_crime,property_crime,theft",
        "terrorism,organized_crime",
    ),
    "violence": ("violence,aiding_and_abetting,incitement",),
    "sexual": ("sexually_explicit,adult_content", "child_abuse"),
}


def beavertails(path: Path, labels: Labels) -> SuiteData:
    """BeaverTails (Ji et al. 2023): prompt, response, category, is_safe; the response is judged in its context."""
    rows = read_table(path, ("prompt", "response", "category", "is_safe"))
    unsafe = 1 - np.array([flag(path, n, row, "is_safe") for n, row in enumerate(rows, start=1)])
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["category"], dict):
            raise UserError(
                f"{path}, row {number}: column 'category' is not a mapping.", mend="Use the JSON-lines form."
            )
    tasks = _head_task(labels, "unsafe", "harmful_response", unsafe)
    tasks += _any_tasks(labels, unsafe, extra=("harmful_response",), name="unsafe, any head")
    for head, names in _BEAVER.items():
        targets = np.array([float(any(row["category"].get(name, False) for name in names)) for row in rows])
        tasks += _head_task(labels, head, head, targets)
    first = [next((name for name, on in row["category"].items() if on), "safe") for row in rows]
    prompts = _column(rows, "prompt")
    return SuiteData(
        _column(rows, "response"),
        prompts,
        tasks,
        {"category (first)": first},
        clusters=_codes(prompts),
        note="Rows with the same prompt are resampled together.",
    )


_COMPLETION = {"1": 0.0, "2": 1.0, "3": 1.0}


def xstest(path: Path, labels: Labels) -> SuiteData:
    """XSTest (Röttger et al. 2024): prompt and type, label where present (else the prefix ``contrast_`` means unsafe).

    With completion and final_label (1 full compliance, 2 full refusal, 3 partial refusal), the refusal head is asked as
    well; there final_label may carry a name behind the number ("2_full_refusal").
    """
    rows = read_table(path, ("prompt", "type"))
    first = {row["prompt"]: number for number, row in reversed(list(enumerate(rows, start=1)))}
    prompts = sorted(first, key=lambda prompt: first[prompt])
    chosen = [(first[prompt], rows[first[prompt] - 1]) for prompt in prompts]
    harmful = np.array([_xstest_label(path, number, row) for number, row in chosen])
    answered = [(n, row) for n, row in enumerate(rows, start=1) if "completion" in row and "final_label" in row]
    targets = np.array([choice(path, n, {"f": str(row["final_label"])[:1]}, "f", _COMPLETION) for n, row in answered])
    full = np.array([str(row["final_label"])[:1] != "3" for _, row in answered], bool)
    rest, head = np.full(len(answered), np.nan), np.full(len(prompts), np.nan)
    tasks = _any_tasks(labels, np.concatenate([harmful, rest]), combines=("max",), name="harmful prompt")
    if answered:
        strict = np.concatenate([head, np.where(full, targets, np.nan)])
        tasks += _head_task(labels, "refusal", "refusal", strict)
        tasks += _head_task(labels, "refusal, full or partial", "refusal", np.concatenate([head, targets]))
    return SuiteData(
        texts=prompts + [str(row["completion"]) for _, row in answered],
        contexts=[""] * len(prompts) + [str(row["prompt"]) for _, row in answered],
        tasks=tasks,
        breakdown={"type": [str(row["type"]) for _, row in chosen] + [""] * len(answered)},
        clusters=_codes(prompts + [str(row["prompt"]) for _, row in answered]),
        note="The score of a prompt is the largest of the categories. refusal: full refusals against full compliance,"
        " without the partial ones.",
    )


def _xstest_label(path: Path, number: int, row: Row) -> float:
    if row.get("label"):
        return choice(path, number, row, "label", {"safe": 0.0, "unsafe": 1.0})
    return float(str(row["type"]).startswith("contrast_"))


def simplesafetytests(path: Path, labels: Labels) -> SuiteData:
    """SimpleSafetyTests (Vidgen et al. 2023): prompt; harm_area where present. All unsafe: recall says it all."""
    rows = read_table(path, ("prompt",))
    breakdown = {"harm_area": _column(rows, "harm_area")} if "harm_area" in rows[0] else {}
    return SuiteData(_column(rows, "prompt"), None, _any_tasks(labels, np.ones(len(rows))), breakdown)


def preference(head: str) -> Reader:
    """A reader of hh-rlhf's pairs (Bai et al. 2022) for one preference head: chosen and rejected transcripts."""

    def read(path: Path, labels: Labels) -> SuiteData:
        rows = read_table(path, ("chosen", "rejected"))
        labels.column(head)
        texts, contexts, clusters = [], [], []
        for number, row in enumerate(rows, start=1):
            for side in ("chosen", "rejected"):
                context, response = split_transcript(str(row[side]), where=f"{path}, row {number}, column '{side}'")
                texts.append(response)
                contexts.append(context)
            clusters.extend([contexts[-2]] * 2)
        pairs = np.arange(len(texts)).reshape(-1, 2)
        return SuiteData(texts, contexts, [], clusters=_codes(clusters), pairs=(head, pairs))

    return read


_TURN = re.compile(r"\n\n(Human|Assistant):")


def split_transcript(text: str, *, where: str) -> tuple[str, str]:
    """The context, as in training, and the last answer of a transcript with the marks ``Human:`` and ``Assistant:``.

    Raises:
        UserError: it does not begin with a question or end with an answer; ``where`` is named.
    """
    from safety_classifier.data.readers import shortened

    parts = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text)
    turns = [(speaker, words.strip()) for speaker, words in zip(parts[1::2], parts[2::2], strict=True)]
    if len(turns) < 2 or turns[0][0] != "Human" or turns[-1][0] != "Assistant":
        raise UserError(
            f"{where}: this is no transcript.", mend="Turns 'Human:' and, at the end, 'Assistant:' were due."
        )
    return shortened(turns[:-1]), turns[-1][1]


def labelled_csv(path: Path, labels: Labels) -> SuiteData:
    """Own data: text and label: 0, 1, safe, unsafe, or heads joined by ``|``; context where present."""
    rows = read_table(path, ("text", "label"))
    heads: dict[str, Floats] = {name: np.full(len(rows), np.nan) for name in labels.of("category", "response")}
    any_harm = np.zeros(len(rows))
    for index, row in enumerate(rows):
        named = [part.strip() for part in str(row["label"]).lower().split("|")]
        if named in (["0"], ["safe"], ["1"], ["unsafe"]):
            any_harm[index] = float(named[0] in ("1", "unsafe"))
            continue
        for name in named:
            if name not in heads:
                raise UserError(
                    f"{path}, row {index + 1}: column 'label' is '{row['label']}'.",
                    mend=f"Known: 0, 1, safe, unsafe, {', '.join(heads)}.",
                )
        for name in labels.categories:
            heads[name][index] = float(name in named)
        any_harm[index] = float(any(name in labels.categories for name in named))
        for name in set(named) - set(labels.categories):
            heads[name][index] = 1.0
    for name in labels.categories:
        heads[name][any_harm == 0] = 0.0
    tasks = _any_tasks(labels, any_harm)
    for name, targets in heads.items():
        tasks += _head_task(labels, name, name, targets)
    contexts = [str(row.get("context") or "") for row in rows]
    return SuiteData(_column(rows, "text"), contexts if any(contexts) else None, tasks)


def _column(rows: Sequence[Row], name: str) -> list[str]:
    return [str(row.get(name) or "") for row in rows]


def _codes(values: Sequence[Any]) -> Ints:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _union(parts: Sequence[Floats]) -> Floats:
    """1 if any part is 1, 0 if all are 0, else unknown."""
    stacked = np.stack(parts)
    # A finer key that is missing says nothing against the coarser one: the first part settles a 0 by itself.
    zero = (stacked[0] == 0) & ~(stacked == 1).any(axis=0)
    return np.where((stacked == 1).any(axis=0), 1.0, np.where(zero, 0.0, np.nan))


def _any_tasks(
    labels: Labels,
    targets: Floats,
    *,
    extra: tuple[str, ...] = (),
    combines: tuple[Combine, ...] = ("noisy_or", "max"),
    name: str = "any harm",
) -> list[Task]:
    heads = labels.categories + tuple(head for head in extra if head in labels.names)
    return [Task(f"{name} ({combine.replace('_', ' ')})", heads, combine, targets) for combine in combines]


def _head_task(labels: Labels, name: str, head: str, targets: Floats) -> list[Task]:
    return [Task(name, (head,), "head", targets)] if head in labels.names and not np.isnan(targets).all() else []
