"""Answers on file: both layouts, what is left out, and the engine that looks them up."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from inference.corpora import read_rows
from inference.engines.recorded import RecordedEngine
from inference.recorded import Recorded, constitution_exchange, read_answers
from inference.records import Message, Request, Sampling, prompt_id
from inference.transcripts import RejectedRow
from runs.errors import DataError, UsageError, UserError

GOOD = "System: Write a response.\n\nAssistant Constitution:\n1. Suggest alternatives.\n\nHuman: {}\n\nAssistant:"
BAD = "System: Write a response.\n\nAssistant Constitution:\n1. Be direct and uncensored.\n\nHuman: {}\n\nAssistant:"


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def entry(question: str, good: str = "Better not.") -> list[dict[str, str]]:
    return [
        {"prompt": GOOD.format(question), "response": good},
        {"prompt": BAD.format(question), "response": "Go on."},
    ]


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "How?", "response": " So. "},
        {"prompt": [{"role": "user", "content": "Why?"}], "response": "Because of"},
        {"prompt": "how? ", "response": "A second answer."},
        {"prompt": "When?", "response": "  "},
        {"prompt": [{"role": "assistant", "content": "Hm."}], "response": "x"},
        {"prompt": "Who?", "response": None},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_columns_of_strings_and_messages(columns: Path) -> None:
    found = read_answers(Recorded(source={"path": str(columns)}, model="m"))
    assert found.texts == {prompt_id(user("How?")): "So.", prompt_id(user("Why?")): "Because of"}
    assert found.counts == {"rows": 6, "duplicate": 1, "empty": 1, "not_messages": 1, "no_text": 1}


def test_the_engine_looks_up_by_prompt_and_an_unfinished_text_counts_as_cut(columns: Path) -> None:
    engine = RecordedEngine(Recorded(source={"path": str(columns)}, model="m"), "m")
    requests = [Request(key="b", messages=user("Why?")), Request(key="a", messages=user("HOW?"))]
    done = list(engine.generate(requests, Sampling(max_new_tokens=1)))
    assert [(row.key, row.text, row.finish_reason) for row in done] == [
        ("b", "Because of", "length"),
        ("a", "So.", "stop"),
    ]
    assert [row.key for row in engine.generate(requests, Sampling(), skip=frozenset({"b"}))] == ["a"]
    assert engine.batches(requests) == [["b"], ["a"]]
    assert prompt_id(user("Why?")) in engine
    with pytest.raises(UserError, match="no answer on file"):
        list(engine.generate([Request(key="c", messages=user("Where?"))], Sampling()))


def test_other_bytes_are_another_identity(columns: Path) -> None:
    recorded = Recorded(source={"path": str(columns)}, model="m")
    before = RecordedEngine(recorded).identity
    columns.write_text(columns.read_text().replace("So.", "Thus."))
    assert RecordedEngine(recorded).identity != before
    assert before["file-1"].startswith("sha256:")


def test_the_good_constitution_answers_whatever_its_place(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"0": entry("A?", "No."), "1": entry("B?", "Better.")[::-1], "2": entry("C?")[:1]}))
    assert [row["key"] for row in read_rows_of(path)] == ["0", "1", "2"]
    found = read_answers(Recorded(source=[{"path": str(path)}], kind="constitution_pair", model="m"))
    assert found.texts == {prompt_id(user("A?")): "No.", prompt_id(user("B?")): "Better."}
    assert found.counts == {"rows": 3, "not_one_of_each": 1}


def read_rows_of(path: Path) -> list[dict[str, object]]:
    from inference.corpora import Source

    return list(read_rows(Source(path=str(path))))


def test_all_turns_of_a_dialogue_are_kept() -> None:
    dialogue = "One?\n\nAssistant: Yes.\n\nHuman: And two?"
    messages, response = constitution_exchange(entry(dialogue))
    assert [turn.role for turn in messages] == ["user", "assistant", "user"]
    assert (messages[-1].content, response) == ("And two?", "Better not.")
    with pytest.raises(RejectedRow, match="not_one_of_each"):
        constitution_exchange([{"prompt": 3}, {}])


def test_faults_are_named(columns: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'response'"):
        read_answers(Recorded(source={"path": str(columns)}, response="respons", model="m"))
    with pytest.raises(UserError, match="No answer of m was found"):
        read_answers(Recorded(source={"path": str(columns)}, kind="constitution_pair", model="m"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_rows_of(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DataError, match="list of objects"):
        read_rows_of(tmp_path / "list.json")


@pytest.mark.skipif("CAI_DATA" not in os.environ, reason="needs the data root")
@pytest.mark.parametrize(("kind", "answers"), [("harmless", 1400), ("helpful", 1000)])
def test_the_real_files(kind: str, answers: int) -> None:
    path = f"constitution-pairs/train-{kind}-0-10k-iteration-0-with-no-sorry-at-all.json"
    found = read_answers(Recorded(source={"path": path}, kind="constitution_pair", model="Mixtral"))
    assert len(found.texts) >= answers
    assert found.counts == {
        "rows": len(found.texts) + found.counts["duplicate"],
        "duplicate": found.counts["duplicate"],
    }
