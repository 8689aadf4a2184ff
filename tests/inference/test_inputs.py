"""Prompt files, transcripts and data files: what is refused, and how it is named."""

import gzip
import json

import pytest

from inference.corpora import Source, read_rows
from inference.prompts import MAX_CHARACTERS, load_prompts
from inference.transcripts import RejectedRow, parse_transcript
from runs.errors import UsageError, UserError


def write(path, *lines: bytes):
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


GOOD = b'{"prompt": "Hi"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a"', r"line 2: not valid JSON"),
        (b'["a"]', r"line 2: expected an object, found list"),
        (b'{"prompt": "  "}', r"line 2: the text is empty"),
        (b'{"prompt": 3}', r"line 2: 'prompt' must be a string"),
        (b'{"prompt": "caf\xe9"}', r"line 2: not valid UTF-8 \(byte 15\)"),
        (b'{"question": "a"}', r"line 2: give either 'prompt' or 'messages'"),
        (b'{"prompt": "a", "categry": "x"}', r"line 2: categry"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', r"must end with a user message"),
        (json.dumps({"prompt": "x" * 1_000_000}).encode(), rf"1,000,000 characters; at most {MAX_CHARACTERS:,}"),
        ('{"prompt": " \u2002hI "}'.encode(), r"line 2: the same prompt as line 1"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, line, message):
    path = write(tmp_path / "prompts.jsonl", GOOD, line)
    with pytest.raises(UsageError, match=message) as caught:
        load_prompts(path)
    assert "prompts.jsonl, line 2" in caught.value.what


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UsageError, match="There is no prompts file"):
        load_prompts(tmp_path / "absent.jsonl")
    with pytest.raises(UsageError, match="holds no prompts"):
        load_prompts(write(tmp_path / "empty.jsonl", b""))


def test_prompts_and_conversations_are_read(tmp_path):
    talk = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
    }
    one, two = load_prompts(write(tmp_path / "p.jsonl", GOOD, b"", json.dumps(talk).encode()))
    assert one.text == "Hi"
    assert (two.text, len(two.messages)) == ("c", 3)
    assert one.id != two.id


def test_a_transcript_keeps_every_turn():
    messages = parse_transcript("\n\nHuman: a \n\nAssistant: b\n\nwith a gap\n\nHuman: c\n\nAssistant: d")
    assert [(m.role, m.content) for m in messages] == [
        ("user", "a"), ("assistant", "b\n\nwith a gap"), ("user", "c"), ("assistant", "d"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Assistant: hello", "does_not_start_with_human"),
        ("\n\nAssistant: hello\n\nHuman: a", "does_not_start_with_human"),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "roles_do_not_alternate"),
        ("\n\nHuman: a\n\nAssistant: ", "empty_turn"),
        ("\n\nHuman: a\n\nAssistant: b\nHuman: c", "role_marker_in_text"),
        ("\n\nHuman: a", "no_assistant_turn"),
    ],
)
def test_rows_that_cannot_be_used_say_why(text, reason):
    with pytest.raises(RejectedRow, match=reason):
        parse_transcript(text)


def test_a_local_file_below_the_data_root_stands_for_the_hub(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    with gzip.open(tmp_path / "set" / "rows.jsonl.gz", "wt") as handle:
        handle.write('{"a": 1}\n\n{"a": 2}\n')
    monkeypatch.setenv("CAI_DATA", str(tmp_path))
    assert list(read_rows(Source(hub="someone/set", path="set/rows.jsonl.gz"))) == [{"a": 1}, {"a": 2}]


def test_missing_and_broken_data_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"There is no data file .*absent.jsonl"):
        list(read_rows(Source(path="absent.jsonl")))
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(UserError, match=r"broken.jsonl, line 2"):
        list(read_rows(Source(path="broken.jsonl")))
