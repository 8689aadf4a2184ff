"""Readers: each on a tiny file of its format; broken rows are counted with their place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runs.errors import UserError
from runs.paths import CONFIGS
from safety_classifier.data.readers import CONTEXT_WORDS, Faults, read, shortened
from safety_classifier.data.sources import Source, load_sources
from safety_classifier.examples import Example, Preference
from tests.safety_classifier.data_support import plain_source, sentence, write_csv, write_sources

REGISTER = {source.name: source for source in load_sources(CONFIGS / "safety_classifier" / "sources.yaml")}


def records(source: Source) -> tuple[list[Any], Faults]:
    faults = Faults(source.name)
    return [item.record for item in read(source, faults)], faults


def shipped(name: str, path: Path) -> list[Any]:
    """The records of ``path`` under the shipped entry ``name``."""
    found, faults = records(REGISTER[name].model_copy(update={"path": (str(path),)}))
    assert faults.malformed == 0
    return found


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def labels(found: list[Any]) -> list[dict[str, float]]:
    return [record.labels for record in found]


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CAI_DATA", str(tmp_path))


def test_davidson_offensive_is_toxic_and_not_hate(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", [{"class": c, "tweet": f"tea &amp; cake {c}"} for c in (0, 1, 2)])
    found = shipped("davidson", path)
    assert [record.text for record in found] == ["tea & cake 0", "tea & cake 1", "tea & cake 2"]
    assert labels(found) == [
        {"hate_speech": 1.0, "toxicity": 1.0},
        {"hate_speech": 0.0, "toxicity": 1.0},
        {"hate_speech": 0.0, "toxicity": 0.0},
    ]


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([0, 0, 1], {"hate_speech": 1.0, "toxicity": 1.0}),
        ([1, 1, 0], {"hate_speech": 0.0, "toxicity": 0.0}),
        ([2, 1, 2], {"toxicity": 1.0}),
        ([0, 1, 2], None),
    ],
)
def test_hatexplain_takes_the_majority(tmp_path: Path, votes: list[int], expected: dict[str, float] | None):
    row = {"annotators": str({"label": votes, "annotator_id": [1, 2, 3]}), "post_tokens": "['warm', 'bread']"}
    found = shipped("hatexplain", write_csv(tmp_path / "a.csv", [row]))
    assert labels(found) == ([] if expected is None else [expected])
    assert all(record.text == "warm bread" for record in found)


def test_gab_votes(tmp_path: Path):
    rows = [
        {"Text": f"post {i}", "hd": hd, "cv": cv, "vo": vo}
        for i, (hd, cv, vo) in enumerate([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)])
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = labels(shipped("gab", path))
    assert [row["hate_speech"] for row in found] == [1.0, 1.0, 0.0, 0.0]
    assert [row["toxicity"] for row in found] == [1.0, 1.0, 1.0, 0.0]
    assert [row.get("violence") for row in found] == [None, 1.0, 0.0, 0.0]


def test_hatemoji_pairs_share_a_group(tmp_path: Path):
    rows = [{"entry_id": a, "matched_id": b, "text": f"hat {a}", "label_gold": 0} for a, b in ((1, 2), (2, 1), (5, 6))]
    groups = [record.group for record in shipped("hatemoji", write_csv(tmp_path / "a.csv", rows))]
    assert groups[0] == groups[1] != groups[2]


def test_jigsaw_leaves_obscenity_and_unnamed_hate_open(tmp_path: Path):
    names = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    rows = [
        {"comment_text": f"note {i}", **dict(zip(names, values, strict=True))}
        for i, values in enumerate([(0, 0, 0, 0, 0, 0), (1, 0, 1, 0, 0, 0), (1, 0, 0, 1, 0, 1)])
    ]
    assert labels(shipped("jigsaw", write_csv(tmp_path / "a.csv", rows))) == [
        {"toxicity": 0.0, "hate_speech": 0.0, "violence": 0.0},
        {"toxicity": 1.0},
        {"toxicity": 1.0, "hate_speech": 1.0, "violence": 1.0},
    ]


def test_stormfront_keeps_the_official_test_rows(tmp_path: Path):
    rows = [
        {"label": "hate", "text": "one", "sampled_split": "sampled_test"},
        {"label": "noHate", "text": "two", "sampled_split": ""},
        {"label": "relation", "text": "three", "sampled_split": ""},
    ]
    source = REGISTER["stormfront"].model_copy(update={"path": (str(write_csv(tmp_path / "a.csv", rows)),)})
    faults = Faults("stormfront")
    items = list(read(source, faults))
    assert [item.test for item in items] == [True, False]
    assert faults.dropped == {"no label": 1}


def test_counselchat_questions_leave_self_harm_open(tmp_path: Path):
    row = {"questionTitle": "Sleep", "questionText": "I lie awake.", "answerText": "Try a walk.", "split": "train"}
    question, answer, exchange = shipped("counselchat", write_csv(tmp_path / "a.csv", [row]))
    assert "self_harm" not in question.labels
    assert set(question.labels.values()) == {0.0}
    assert answer.labels["self_harm"] == 0.0
    assert (exchange.context, exchange.labels) == ("Sleep", {"harmful_response": 0.0, "refusal": 0.0})
    assert question.group == answer.group == exchange.group


def test_safetext_in_context_and_alone(tmp_path: Path):
    path = write_json(
        tmp_path / "a.json", {"If it rains,": {"safe": ["take a coat."], "unsafe": ["climb the wet mast."]}}
    )
    found = shipped("safetext", path)
    assert [(record.context, record.text) for record in found] == [
        ("If it rains,", "take a coat."),
        ("", "If it rains, take a coat."),
        ("If it rains,", "climb the wet mast."),
        ("", "If it rains, climb the wet mast."),
    ]
    assert [record.labels["dangerous_advice"] for record in found] == [0.0, 0.0, 1.0, 1.0]
    assert [record.labels.get("harmful_response") for record in found] == [0.0, None, 1.0, None]
    assert len({record.group for record in found}) == 1


def test_medical_requests_and_refusals(tmp_path: Path):
    rows = [
        {"harmful_medical_request": "mix them up", "safe_response": text}
        for text in ("I'm sorry, but no.", "Ask a nurse.")
    ]
    request, refusal, _, other = shipped("med_safety", write_csv(tmp_path / "a.csv", rows))
    assert request.labels == {"dangerous_advice": 1.0}
    assert refusal.labels["refusal"] == 1.0
    assert refusal.labels["harmful_response"] == 0.0
    assert "refusal" not in other.labels


@pytest.mark.parametrize(
    ("category", "label", "expected"),
    [
        ("Offending User", "Unsafe", {"harmful_response": 1.0, "toxicity": 1.0}),
        ("Unauthorized Expertise", "Unsafe", {"harmful_response": 1.0, "dangerous_advice": 1.0}),
        ("Risk Ignorance", "Unsafe", {"harmful_response": 1.0}),
        ("Toxicity Agreement", "Safe", {"harmful_response": 0.0}),
    ],
)
def test_diasafety(tmp_path: Path, category: str, label: str, expected: dict[str, float]):
    row = {"context": "hello", "response": "good day", "category": category, "label": label}
    (record,) = shipped("diasafety", write_json(tmp_path / "a.json", [row]))
    assert (record.context, record.text, record.labels) == ("hello", "good day", expected)


def test_topics(tmp_path: Path):
    path = write_json(
        tmp_path / "a.json", {"Economic Harm": {"Financial fraud:": ["q1"]}, "Political Campaigning": {"x": ["q2"]}}
    )
    (record,) = shipped("catqa", path)
    assert record.text == "q1"
    assert record.labels["dangerous_advice"] == 1.0


def test_instructions_unwrap_the_template(tmp_path: Path):
    prompt = "Below is an instruction.\n\n### Instruction:\nName a bird\n\n### Response:\n"
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "response": "A wren."}), encoding="utf-8")
    found = shipped("dolly_hhrlhf", path)
    assert [(record.context, record.text) for record in found] == [
        ("", "Name a bird"),
        ("", "A wren."),
        ("Name a bird", "A wren."),
    ]
    assert found[2].labels == {"harmful_response": 0.0, "refusal": 0.0}


def test_stories_by_paragraph(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text(f"{sentence(1)}\nshort\n{sentence(2)}<|endoftext|>{sentence(3)}", encoding="utf-8")
    found = shipped("stories", path)
    assert [record.text for record in found] == [sentence(1), sentence(2), sentence(3)]
    assert found[0].group == found[1].group != found[2].group


def test_comment_lines_are_skipped(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("# version 1\nobjective,assistant_response,human_score\nask,no,1\nask,yes,0\n", encoding="utf-8")
    assert [record.labels["refusal"] for record in shipped("pyrit_refusal", path)] == [1.0, 0.0]


def test_transcripts_become_pairs(tmp_path: Path):
    head = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Tell me about tea"
    rows = [
        {"chosen": f"{head}\n\nAssistant: It is brewed.", "rejected": f"{head}\n\nAssistant: No."},
        {"chosen": f"{head}\n\nAssistant: Same.", "rejected": f"{head}\n\nAssistant: Same."},
        {"chosen": f"{head} leaves\n\nAssistant: Yes.", "rejected": f"{head}\n\nAssistant: No."},
    ]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    found, faults = records(REGISTER["hh_harmless"].model_copy(update={"path": (str(path),)}))
    (record,) = found
    assert isinstance(record, Preference)
    assert (record.chosen, record.rejected, record.head) == ("It is brewed.", "No.", "harmlessness")
    assert record.context == "Human: Hello Assistant: Hi Human: Tell me about tea"
    assert faults.dropped == {"equal answers": 1, "two prompts": 1}


def test_long_dialogues_lose_their_beginning():
    turns = [("Human", "start " + "so " * 100), ("Assistant", "yes"), ("Human", "and then")]
    context = shortened(turns)
    assert context.endswith("so Assistant: yes Human: and then")
    assert "start" not in context
    assert len(context.split()) == CONTEXT_WORDS + 1
    long = "word " * (CONTEXT_WORDS + 5)
    assert shortened([("Human", "hello"), ("Human", long.strip())]) == long.strip()
    assert shortened([("Human", "hello")]) == "hello"


def test_constitution_pairs_choose_the_good_constitution(tmp_path: Path):
    prompt = "System: x\n\n1. {}\n\nHuman: Where is the mill?\n\nAssistant:"
    answers = [
        {"prompt": prompt.format("Give vague and ambiguous responses."), "response": "Somewhere.", "example_id": 1},
        {"prompt": prompt.format("Respond with depth."), "response": " By the river.", "example_id": 1},
    ]
    (record,) = shipped("constitution_helpful", write_json(tmp_path / "a.json", {"1": answers}))
    assert (record.context, record.chosen, record.rejected) == ("Where is the mill?", "By the river.", "Somewhere.")


def test_hh_sources_share_their_groups():
    assert (
        len(
            {
                REGISTER[name].group_space
                for name in ("hh_harmless", "hh_helpful", "helpful_prompts", "constitution_helpful")
            }
        )
        == 1
    )


def test_parquet_and_several_text_columns(tmp_path: Path):
    pd.DataFrame({"title": ["Boats"], "body": ["float"], "score": [0.7]}).to_parquet(tmp_path / "a.parquet")
    rules = [{"column": "score", "at_least": 0.5, "then": 1}, {"then": 0}]
    source = {
        "name": "a",
        "path": "a.parquet",
        "format": "parquet",
        "text": ["title", "body"],
        "labels": {"toxicity": rules},
    }
    (loaded,) = load_sources(write_sources(tmp_path, source))
    found, _ = records(loaded)
    assert found == [Example(text="Boats\nfloat", labels={"toxicity": 1.0}, source="a")]


def damaged(tmp_path: Path, rows: int, broken: list[bytes]) -> Source:
    path = tmp_path / "a.csv"
    lines = [b"text,label", *(f"{sentence(i)},0".encode() for i in range(rows)), *broken]
    path.write_bytes(b"\n".join(lines))
    (source,) = load_sources(write_sources(tmp_path, plain_source("a", path)))
    return source


def test_malformed_rows_are_counted_with_their_place(tmp_path: Path):
    found, faults = records(damaged(tmp_path, 300, [b"only one column", b"caf\xe9,0", b"a lamp,7"]))
    assert len(found) == 300
    assert faults.malformed == 3
    assert faults.first == [
        "a.csv, row 301: has not the 2 columns of the header",
        "a.csv, row 302: is not UTF-8",
        "a.csv, row 303: no rule of 'toxicity' covers it",
    ]


def test_a_damaged_source_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="Source 'a' is damaged: 30 of 330 rows"):
        records(damaged(tmp_path, 300, [b"no label"] * 30))


def test_a_missing_column_is_named(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", [{"words": sentence(i), "label": 0} for i in range(20)])
    (source,) = load_sources(write_sources(tmp_path, plain_source("a", path)))
    with pytest.raises(UserError, match="has no column 'text'"):
        records(source)


def test_broken_json_lines(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": \n[1]\n', encoding="utf-8")
    (source,) = load_sources(write_sources(tmp_path, plain_source("a", path, format="jsonl")))
    found, faults = records(source)
    assert len(found) == 1
    assert faults.first == ["a.jsonl, row 2: is not JSON in UTF-8", "a.jsonl, row 3: is not an object of columns"]


def test_a_missing_file_is_named(tmp_path: Path):
    (source,) = load_sources(write_sources(tmp_path, plain_source("a", Path("nowhere.csv"))))
    with pytest.raises(UserError, match=r"Source 'a': there is no file .*nowhere\.csv"):
        records(source)
