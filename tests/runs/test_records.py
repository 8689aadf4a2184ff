"""Append-only logs: torn lines, kills, doubled keys, full disks."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.config import StrictModel
from runs.errors import IntegrityError, UserError
from runs.records import RecordLog, read_jsonl, write_jsonl


class Row(StrictModel):
    key: str
    text: str = ""


def test_records_come_back_in_order_and_keys_once(tmp_path):
    path = tmp_path / "log.jsonl"
    with RecordLog(path, Row) as log:
        log.append(Row(key="a", text="ä\n"))
        log.append(Row(key="b"))
        log.append(Row(key="a", text="again"))
    with RecordLog(path, Row) as log:
        assert [row.key for row in log] == ["a", "b"]
        assert log["a"].text == "ä\n"
        assert "b" in log
        assert "c" not in log


@given(cut=st.integers(min_value=0, max_value=120), texts=st.lists(st.text(), min_size=1, max_size=5))
def test_a_log_cut_at_any_byte_keeps_every_whole_line(tmp_path_factory, cut, texts):
    path = tmp_path_factory.mktemp("cut") / "log.jsonl"
    with RecordLog(path, Row) as log:
        for index, text in enumerate(texts):
            log.append(Row(key=str(index), text=text))
    whole = path.read_bytes()
    os.truncate(path, min(cut, len(whole)))
    kept = whole[: min(cut, len(whole))].count(b"\n")
    with RecordLog(path, Row) as log:
        assert len(log) == kept
        for index, text in enumerate(texts):
            log.append(Row(key=str(index), text=text))
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named_by_file_and_number(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"key": "a"}\n{"kee": "b"}\n')
    with pytest.raises(IntegrityError, match=r"log.jsonl, line 2"):
        read_jsonl(path, Row)


def test_sigkill_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "log.jsonl"
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from tests.runs.test_records import Row
        from runs.records import RecordLog
        log = RecordLog(Path(sys.argv[1]), Row)
        for index in range(50):
            log.append(Row(key=str(index)))
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read_jsonl(path, Row)) == 50


def test_a_write_that_the_system_refuses_keeps_what_was_there(tmp_path):
    """A limit on the file's size stands for a full disk: the write stops in the middle of a line."""
    path = tmp_path / "log.jsonl"
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from tests.runs.test_records import Row
        from runs.errors import UserError
        from runs.records import RecordLog
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = RecordLog(Path(sys.argv[1]), Row)
        log.append(Row(key="a", text="x" * 50))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            log.append(Row(key="b", text="y" * 500))
        except UserError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    assert "disk is full" in done.stdout
    assert [row.key for row in read_jsonl(path, Row)] == ["a"]


def test_a_full_disk_is_named_and_keeps_what_was_there(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs privileges that this machine does not give")
    try:
        path = mount / "log.jsonl"
        log = RecordLog(path, Row)
        rows = [Row(key=str(index), text="x" * 500) for index in range(1000)]
        with pytest.raises(UserError, match="disk is full"):
            list(map(log.append, rows))
        kept = len(read_jsonl(path, Row))
        assert 0 < kept == len(log)
        log.close()
        with pytest.raises(UserError, match="disk is full"):
            write_jsonl(path, rows)
        assert len(read_jsonl(path, Row)) == kept
    finally:
        subprocess.run(["umount", str(mount)], check=True)
