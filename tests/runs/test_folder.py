"""Run folders: locks, claims, atomic files, manifests."""

import os
import subprocess
import sys
import textwrap

import pytest

from runs import atomic, manifest
from runs.errors import IntegrityError, UsageError, UserError
from runs.folder import claim
from runs.lock import run_lock


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from runs.errors import UserError
        from runs.lock import run_lock
        try:
            with run_lock(Path(sys.argv[1])):
                print("entered")
        except UserError as error:
            print(error)
    """)
    ask = [sys.executable, "-c", script, str(tmp_path)]
    with run_lock(tmp_path):
        refused = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert f"pid {os.getpid()}" in refused
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "entered"


def test_claiming_twice_is_the_same_run_and_another_run_is_refused(tmp_path):
    first = claim(tmp_path, {"seed": 0, "models": {"a": "x"}})
    assert claim(tmp_path, {"seed": 0, "models": {"a": "x"}}) == first
    with pytest.raises(UsageError, match=r"They differ in models.a \(x there, y now\)"):
        claim(tmp_path, {"seed": 0, "models": {"a": "y"}})
    with pytest.raises(UsageError, match=r"They differ in limit \(nothing there, None now\)"):
        claim(tmp_path, {"seed": 0, "models": {"a": "x"}, "limit": None})


def test_a_folder_with_other_files_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"It holds thesis.tex"):
        claim(tmp_path, {})


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(TypeError):
        atomic.write_bytes(path, None)
    assert path.read_text() == "old"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"

    def fail():
        with atomic.folder(target) as building:
            (building / "half").write_text("")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic.folder(target) as building:
        (building / "whole").write_text("x")
    assert (target / "whole").read_text() == "x"


def test_two_builders_of_one_folder_leave_one_whole_folder(tmp_path):
    target = tmp_path / "model"
    with atomic.folder(target) as outer:
        (outer / "name").write_text("outer")
        with atomic.folder(target) as inner:
            (inner / "name").write_text("inner")
    assert (target / "name").read_text() == "inner"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("where", ["a_file/results", "/sys/constitutional-ai-test"])
def test_an_unwritable_folder_is_an_error_that_names_it(tmp_path, where):
    (tmp_path / "a_file").write_text("")
    with pytest.raises(UserError, match="Cannot write to") as caught:
        atomic.make_folder(tmp_path / where)
    assert "--output-dir" in caught.value.mend


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"0123456789")
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "scratch").write_text("not part of it")
    manifest.write_manifest(
        tmp_path, kind="adapter", run_id="r", command="make it", config={}, inputs={}, seeds={}, counts={}, metrics={},
        wall_seconds=1.0,
    )  # fmt: skip
    return tmp_path


def test_an_untouched_artifact_verifies(artifact):
    assert list(manifest.verify(artifact, rebuild="x").files) == ["weights.safetensors"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"01234"), "has 5 bytes; the manifest says 10"),
        (lambda path: path.write_bytes(b"0123456780"), "sha256 is not the manifest's"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_damage_is_named_with_the_command_that_rebuilds(artifact, damage, message):
    damage(artifact / "weights.safetensors")
    with pytest.raises(IntegrityError, match=message) as caught:
        manifest.verify(artifact, rebuild="make it")
    assert "make it" in caught.value.mend


def test_an_artifact_without_manifest_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match=r"has no manifest.json"):
        manifest.verify(tmp_path, rebuild="x")
