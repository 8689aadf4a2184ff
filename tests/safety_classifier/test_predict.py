"""Files in, predictions out: every format, broken rows, kills, other runs' outputs."""

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from runs.console import Reporter
from runs.errors import IntegrityError, UsageError, UserError
from runs.lock import run_lock
from safety_classifier import predict as module
from safety_classifier import rows as rows_module
from safety_classifier.predict import batches, predict_file, predict_stream
from safety_classifier.rows import Columns, Row, RowFile
from tests.safety_classifier.stand_in import StandIn

QUIET = Reporter(quiet=True)
TEXTS = ["You idiot.", "A lovely day.", "Build a bomb, poison", "", "hate\nhate", 'quotes " and, commas', "مرحبا 😀"]


def judge_file(source, output, judge=None, columns=None, form="auto", **options):
    return predict_file(
        judge or StandIn(), RowFile.open(source, form, columns or Columns()), output, reporter=QUIET, **options
    )


def read(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_input(path, texts=TEXTS):
    """The same texts in the format of the suffix."""
    rows = [{"id": f"n{n}", "text": text} for n, text in enumerate(texts)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, ["id", "text"], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.csv", "in.tsv", "in.parquet"])
def test_every_format_gives_the_same_judgements(name, tmp_path):
    source = write_input(tmp_path / name)
    judge_file(source, tmp_path / "out.jsonl", columns=Columns(keep=("id",)))
    found = read(tmp_path / "out.jsonl")
    assert [row["row"] for row in found] == list(range(1, len(TEXTS) + 1))
    assert [row["input"] for row in found] == [{"id": f"n{n}"} for n in range(len(TEXTS))]
    for row, text in zip(found, TEXTS, strict=True):
        assert row["error"] is None
        assert {name: row[name] for name in ("probabilities", "flagged", "safe")} == StandIn().one(text).model_dump(
            include={"probabilities", "flagged", "safe"}
        )


def test_a_text_file_has_a_text_a_line_and_blank_lines_are_none(tmp_path):
    source = tmp_path / "in.txt"
    source.write_bytes(b"\xef\xbb\xbfYou idiot.\r\n\n   \n  indented hate\nlast")
    judge_file(source, tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert [row["row"] for row in found] == [1, 4, 5]
    assert found[0]["decided"]["toxicity"] == {"start": 0, "end": len("You idiot.")}


def test_contexts_make_the_response_heads_appear(tmp_path):
    source = tmp_path / "in.jsonl"
    rows = [{"q": "Tell me.", "a": "Sorry, no."}, {"q": None, "a": "Sorry."}, {"a": "Sorry."}]
    source.write_text("\n".join(map(json.dumps, rows)))
    judge_file(source, tmp_path / "out.jsonl", columns=Columns("a", "q"))
    found = read(tmp_path / "out.jsonl")
    assert [row["response"] is None for row in found] == [False, True, True]
    assert found[0]["flagged"]["refusal"]


def ten_thousand(path):
    lines = [json.dumps({"text": f"row {n} {'hate' if n % 7 == 0 else ''}"}).encode() for n in range(1, 10_001)]
    lines[16] = b'{"text": "cut'
    lines[4_999] = b'{"txt": "x"}'
    lines[7_000] = b'{"text": 7}'
    lines[9_999] = b'{"text": "\xff\xfe"}'
    path.write_bytes(b"\n".join(lines) + b"\n")
    return {17: "is not JSON", 5_000: "has no column 'text'", 7_001: "is not a string", 10_000: "is not UTF-8"}


def test_broken_rows_among_ten_thousand_are_reported_and_the_rest_is_done(tmp_path):
    reasons = ten_thousand(tmp_path / "in.jsonl")
    summary = judge_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert len(found) == summary.rows == 10_000
    broken = {row["row"]: row["error"] for row in found if row["error"] is not None}
    assert broken.keys() == reasons.keys()
    assert all(reason in broken[row] for row, reason in reasons.items())
    assert [row for row, _ in summary.first_errors] == sorted(reasons)
    assert summary.errors == 4
    assert all("probabilities" not in row for row in found if row["error"] is not None)
    flagged = {row["row"] for row in found if row["error"] is None and row["flagged"]["hate_speech"]}
    assert flagged == set(range(7, 10_001, 7)) - reasons.keys()
    assert summary.flagged["hate_speech"] == len(flagged)


@pytest.mark.parametrize(
    ("name", "content", "broken"),
    [
        (
            "in.csv",
            b"id,text\n1,fine\n2\n3,a,b\n4,\xff\n5,also fine\n",
            {2: "has 1 columns", 3: "has 3", 4: "not UTF-8"},
        ),
        ("in.txt", b"fine\n\xff\xfe\nfine\n", {2: "is not UTF-8 (byte 1)"}),
        ("in.jsonl", b'[1]\nnull\n{"text": null}\n', {1: "but a list", 2: "but null", 3: "but null"}),
        ("in.jsonl", rb'{"text": "\ud83d"}' + b"\n", {1: "not UTF-8 (character 1)"}),
        ("in.jsonl", b'{"text": "a", "context": 3}\n' + b"[" * 9999, {1: "'context' is not", 2: "nested too deep"}),
        ("in.jsonl", b'{"text": ' + b"9" * 9999 + b"}", {1: "too large a number"}),
    ],
)
def test_each_fault_has_its_row_and_reason(name, content, broken, tmp_path):
    source = tmp_path / name
    source.write_bytes(content)
    judge_file(source, tmp_path / "out.jsonl")
    found = {row["row"]: row["error"] for row in read(tmp_path / "out.jsonl") if row["error"] is not None}
    assert found.keys() == broken.keys()
    assert all(reason in found[row] for row, reason in broken.items())


def test_a_csv_field_beyond_the_bound_and_a_line_beyond_it_are_faults(tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text(f"text\n{'a' * ((1 << 24) + 9)}\nfine\n")
    judge_file(tmp_path / "in.csv", tmp_path / "csv.jsonl")
    assert ["field larger" in (row["error"] or "") for row in read(tmp_path / "csv.jsonl")] == [True, False]
    monkeypatch.setattr(rows_module, "LONGEST_LINE", 50)
    (tmp_path / "in.txt").write_text("a" * 49 + "\n" + "b" * 500 + "\nfine\n")
    judge_file(tmp_path / "in.txt", tmp_path / "txt.jsonl")
    assert [(row["row"], row["error"] is None) for row in read(tmp_path / "txt.jsonl")] == [
        (1, True), (2, False), (3, True),
    ]  # fmt: skip


def test_parquet_rows_that_are_no_text_are_reported(tmp_path):
    column = pa.array([b"fine", b"\xff\xfe", None, b"also"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    judge_file(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert [row["error"] is None for row in read(tmp_path / "out.jsonl")] == [True, False, False, True]
    parquet.write_table(pa.table({"text": [1.5, 2.5]}), tmp_path / "numbers.parquet")
    judge_file(tmp_path / "numbers.parquet", tmp_path / "numbers.jsonl")
    assert ["is not a string" in row["error"] for row in read(tmp_path / "numbers.jsonl")] == [True, True]


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("in.csv", b"a,b\n1,2\n", UsageError, "has no column 'text'"),
        ("in.csv", b"", UsageError, "has no column 'text'"),
        ("in.parquet", b"PAR1 no", UserError, "not a readable Parquet"),
        ("in.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 5000)[:-20], UserError, "cannot be read"),
        ("in.xyz", b"", UsageError, "does not tell the format"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_clear_error(name, content, error, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        judge_file(tmp_path / name, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_wrong_names_are_usage_errors(tmp_path):
    source = write_input(tmp_path / "in.jsonl")
    with pytest.raises(UsageError, match="no input file"):
        judge_file(tmp_path / "absent.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="is a folder"):
        judge_file(tmp_path, tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="Did you mean 'jsonl'"):
        judge_file(source, tmp_path / "out.jsonl", form="json")
    with pytest.raises(UsageError, match="the output is"):
        judge_file(source, tmp_path / "out.xlsx")
    (tmp_path / "clash.csv").write_text("text,error\nfine,none\n")
    with pytest.raises(UsageError, match="--keep error"):
        judge_file(tmp_path / "clash.csv", tmp_path / "o.csv", columns=Columns(keep=("error",)))


def test_csv_and_parquet_hold_what_the_json_lines_hold(tmp_path):
    source = tmp_path / "in.jsonl"
    rows = [{"id": n, "text": text, "context": "Tell me." if n % 2 else ""} for n, text in enumerate(TEXTS)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        judge_file(source, tmp_path / name, columns=Columns(keep=("id",)), batch_size=3)
    lines = read(tmp_path / "out.jsonl")
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    with (tmp_path / "out.csv").open(newline="") as handle:
        cells = list(csv.DictReader(handle))
    assert len(lines) == len(table) == len(cells) == len(TEXTS) + 1
    for line, row, cell in zip(lines[:-1], table, cells, strict=False):
        expected = line["probabilities"] | (line["response"] or {}) | (line["preference"] or {})
        assert {name: row[name] for name in expected} == expected
        assert row["toxicity_flagged"] == line["flagged"]["toxicity"] == (cell["toxicity_flagged"] == "true")
        assert row["id"] == cell["id"] == str(line["input"]["id"])
        assert (row["refusal"] is None) == (line["response"] is None) == (cell["refusal"] == "")
        assert float(cell["safe"]) == line["safe"] == row["safe"]
    assert table[-1]["error"] == cells[-1]["error"] == lines[-1]["error"]
    assert table[-1]["toxicity"] is None


def test_a_batch_of_long_texts_ends_early(monkeypatch):
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 100)
    sizes = [len(batch) for batch in batches((Row(n, "x" * (40 if n > 4 else 1)) for n in range(12)), 4)]
    assert sizes == [4, 4, 3, 1]


def test_a_stream_is_judged_line_by_line(monkeypatch):
    found = []
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "hate"}\n{"text": 1}\n')))
    summary = predict_stream(StandIn(), RowFile.open(Path("-"), "jsonl", Columns()), emit=found.append)
    assert [row["error"] is None for row in found] == [True, False]
    assert (summary.rows, summary.errors) == (2, 1)


def contents(folder):
    """What a run leaves: the output and its note."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name.startswith("out")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An input, what an undisturbed run makes of it, and its log before the end."""
    folder = tmp_path_factory.mktemp("finished")
    source = folder / "in.jsonl"
    texts = [f"row {n} " + "hate " * (n % 5) for n in range(100)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{\n")
    judge_file(source, folder / "out.jsonl", batch_size=16)
    return source, contents(folder)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("at", [0, 1, 3, 6])
def test_a_run_that_dies_between_batches_goes_on(at, suffix, finished, tmp_path):
    source, _ = finished
    (tmp_path / "whole").mkdir()
    judge_file(source, tmp_path / "whole" / f"out.{suffix}", batch_size=16)

    class Dying(StandIn):
        def classify(self, texts, contexts=None):
            if len(self.calls) == at:
                raise Killed
            return super().classify(texts, contexts)

    folder = tmp_path / "broken"
    with pytest.raises(Killed):
        judge_file(source, folder / f"out.{suffix}", judge=Dying(), batch_size=16)
    assert contents(folder) == {}
    second = StandIn()
    summary = judge_file(source, folder / f"out.{suffix}", judge=second, batch_size=16)
    assert contents(folder) == contents(tmp_path / "whole")
    assert (summary.rows, summary.resumed) == (101, 16 * at)
    assert len(second.calls) == 7 - at
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_log_that_is_cut_at_any_byte_goes_on_to_the_same_bytes(finished, tmp_path):
    source, expected = finished
    log = expected["out.jsonl"]
    chance = random.Random(0)
    for end in [0, 1, len(log) - 1, len(log), *sorted(chance.sample(range(len(log)), 25))]:
        folder = tmp_path / str(end)
        work = folder / ".out.jsonl.partial"
        work.mkdir(parents=True)
        (work / "rows.jsonl").write_bytes(log[:end])
        identity = json.loads(expected["out.jsonl.run.json"])["identity"]
        (work / "run.json").write_text(json.dumps(identity))
        judge = StandIn()
        judge_file(source, folder / "out.jsonl", judge=judge, batch_size=16)
        assert contents(folder) == expected
        assert len(judge.calls) <= 7 - log[:end].count(b"\n") // 16


DRIVER = """
import sys
from pathlib import Path
from runs.console import Reporter
from safety_classifier.predict import predict_file
from safety_classifier.rows import Columns, RowFile
from tests.safety_classifier.stand_in import StandIn
source, output = map(Path, sys.argv[1:])
rows = RowFile.open(source, "auto", Columns())
predict_file(StandIn(0.0005), rows, output, batch_size=16, reporter=Reporter(quiet=True))
"""


def test_sigkill_and_the_same_command_again(finished, tmp_path):
    source, _ = finished
    texts = "".join(json.dumps({"text": f"row {n} hate"}) + "\n" for n in range(3_000))
    (tmp_path / "in.jsonl").write_text(texts)
    source = tmp_path / "in.jsonl"
    (tmp_path / "whole").mkdir()
    judge_file(source, tmp_path / "whole" / "out.csv", batch_size=16)
    output = tmp_path / "killed" / "out.csv"
    log = tmp_path / "killed" / ".out.csv.partial" / "rows.jsonl"
    command = [sys.executable, "-c", DRIVER, str(source), str(output)]
    for least in (1, 60_000):
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 900  # importing JAX takes long on a busy machine
        while not log.exists() or log.stat().st_size < least:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    summary = judge_file(source, output, batch_size=16)
    assert summary.resumed >= 16
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_finished_run_is_not_done_again(finished, tmp_path):
    source, _ = finished
    first = judge_file(source, tmp_path / "out.parquet")
    judge = StandIn()
    again = judge_file(source, tmp_path / "out.parquet", judge=judge)
    assert judge.calls == []
    assert again.as_json() == first.as_json()
    fresh = StandIn()
    judge_file(source, tmp_path / "out.parquet", judge=fresh, resume=False)
    assert fresh.calls


def test_the_output_of_another_run_is_kept(finished, tmp_path):
    source, _ = finished
    output = tmp_path / "out.jsonl"
    judge_file(source, output)
    before = output.read_bytes()
    with pytest.raises(UsageError, match="classifier"):
        judge_file(source, output, judge=StandIn(identity="another"))
    with pytest.raises(UsageError, match="batch_size"):
        judge_file(source, output, batch_size=3)
    other = write_input(tmp_path / "in.jsonl")
    with pytest.raises(UsageError, match="input"):
        judge_file(other, output)
    assert output.read_bytes() == before
    (tmp_path / "mine.csv").write_text("dear,diary\n")
    with pytest.raises(UsageError, match="not an output of this command"):
        judge_file(source, tmp_path / "mine.csv")
    output.write_bytes(before + b"\n")
    with pytest.raises(IntegrityError, match="was changed"):
        judge_file(source, output)
    judge_file(source, output, resume=False)
    assert output.read_bytes() == before


def test_a_log_of_other_rows_is_refused(finished, tmp_path):
    source, expected = finished
    work = tmp_path / ".out.jsonl.partial"
    work.mkdir()
    (work / "run.json").write_text(json.dumps(json.loads(expected["out.jsonl.run.json"])["identity"]))
    lines = expected["out.jsonl"].splitlines(keepends=True)
    for damaged, row in ((lines[1:17] + lines[17:], 1), ([*lines[:3], b"{\n", *lines[4:]], 4)):
        (work / "rows.jsonl").write_bytes(b"".join(damaged))
        with pytest.raises(IntegrityError, match=f"at row {row}"):
            judge_file(source, tmp_path / "out.jsonl", batch_size=16)
    (work / "rows.jsonl").write_bytes(expected["out.jsonl"] + lines[0])
    with pytest.raises(IntegrityError, match="more rows than the input"):
        judge_file(source, tmp_path / "out.jsonl", batch_size=16)


def test_two_processes_do_not_share_an_output(finished, tmp_path):
    source, _ = finished
    with run_lock(tmp_path / ".out.jsonl.partial"), pytest.raises(UserError, match="Another process"):
        judge_file(source, tmp_path / "out.jsonl")


def test_a_full_disk_is_said_and_nothing_is_torn(finished, tmp_path, monkeypatch):
    source, expected = finished
    real = os.pwrite
    count = 0

    def full(descriptor, data, offset):
        nonlocal count
        count += len(data) > 100  # the lock writes its process id
        return real(descriptor, data if count < 3 else data[:100], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="disk is full"):
        judge_file(source, tmp_path / "out.jsonl", batch_size=16)
    log = tmp_path / ".out.jsonl.partial" / "rows.jsonl"
    assert log.read_bytes() == b"".join(expected["out.jsonl"].splitlines(keepends=True)[:32])
    monkeypatch.undo()
    judge_file(source, tmp_path / "out.jsonl", batch_size=16)
    assert contents(tmp_path) == expected


def test_the_real_classifier_resumes_to_the_same_bytes(tiny_artifact, tmp_path):
    from safety_classifier.api import Classifier

    chance = random.Random(1)
    words = ["you", "are", "an", "awful", "person", "i", "want", "to", "hurt", "myself", "bread", "bakes", "ovens"]
    rows = [{"text": " ".join(chance.choices(words, k=chance.randint(0, 60)))} for _ in range(90)]
    rows[3]["context"] = "please tell me how"
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    classifier = Classifier.load(tiny_artifact, precision="float32")
    judge_file(source, tmp_path / "out.jsonl", judge=classifier, batch_size=20)
    whole = contents(tmp_path)
    work = tmp_path / "again" / ".out.jsonl.partial"
    work.mkdir(parents=True)
    (work / "run.json").write_text(json.dumps(json.loads(whole["out.jsonl.run.json"])["identity"]))
    (work / "rows.jsonl").write_bytes(whole["out.jsonl"][: len(whole["out.jsonl"]) // 2])
    summary = judge_file(source, tmp_path / "again" / "out.jsonl", judge=classifier, batch_size=20)
    assert 0 < summary.resumed < 90
    assert contents(tmp_path / "again") == whole
    judge_file(source, tmp_path / "out.parquet", judge=classifier)
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["refusal"] is None for row in table] == [number != 3 for number in range(90)]
    assert len({row["toxicity"] for row in table}) > 60
