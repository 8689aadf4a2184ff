from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard.store import Store
from runs.errors import IntegrityError, UsageError, UserError
from tests.dashboard.conftest import RUN
from tests.evaluation import made_runs


@pytest.fixture
def root(results: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may break."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


def test_a_finished_run_is_listed_and_loaded_once(root: Path) -> None:
    store = Store(root)
    (entry,) = store.runs
    assert (entry.name, entry.state, entry.models) == (RUN, "finished", ("base", "stage2", "stage3"))
    assert entry.created[:10] in entry.label
    assert store.load(RUN) is store.load(RUN)


def test_there_may_be_no_runs_and_no_root(tmp_path: Path) -> None:
    store = Store(tmp_path / "nothing")
    assert store.runs == ()
    with pytest.raises(UsageError, match="uv run evaluate"):
        store.load("x")


def test_a_run_that_is_being_written_says_how_far_it_is(root: Path) -> None:
    (root / RUN / "manifest.json").unlink()
    work = root / RUN / ".work"
    work.mkdir()
    (work / "answers.jsonl").write_text("{}\n{}\n{")
    store = Store(root)
    (entry,) = store.runs
    assert entry.state == "unfinished"
    assert "2 answers" in entry.why
    with pytest.raises(UserError, match="not finished"):
        store.load(RUN)


@pytest.mark.parametrize("name", ["samples.jsonl", "results.json", "statistics.json"])
def test_a_changed_or_missing_file_is_refused(root: Path, name: str) -> None:
    path = root / RUN / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match="changed or cut off"):
        Store(root).load(RUN)
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        Store(root).load(RUN)


def test_a_broken_manifest_is_shown_as_broken(root: Path) -> None:
    (root / RUN / "manifest.json").write_text('{"kind": "eval')
    (entry,) = Store(root).runs
    assert entry.state == "broken"
    with pytest.raises(IntegrityError, match="damaged"):
        Store(root).load(RUN)


@pytest.mark.parametrize("name", ["../outside", "/etc", "made/../../outside", "made/", "..", ".", "", "made\x00"])
def test_no_name_leads_out_of_the_root(root: Path, name: str) -> None:
    shutil.copytree(root / RUN, root.parent / "outside")
    with pytest.raises(UsageError, match="no run"):
        Store(root).load(name)


def test_links_out_of_the_root_are_not_followed(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / RUN, tmp_path / "outside")
    (root / "linked").symlink_to(tmp_path / "outside")
    assert [entry.name for entry in Store(root).runs] == [RUN]
    samples = root / RUN / "samples.jsonl"
    samples.rename(tmp_path / "samples.jsonl")
    samples.symlink_to(tmp_path / "samples.jsonl")
    with pytest.raises(IntegrityError, match="is a link"):
        Store(root).load(RUN)


def test_runs_are_named_by_folder_id_or_last(root: Path) -> None:
    (entry,) = Store(root).runs
    for name in (str(root / RUN), entry.run_id[:8], "last", RUN):
        assert [one.name for one in Store(root, names=[name]).runs] == [RUN]
    with pytest.raises(UsageError, match="does not name one run"):
        Store(root, names=["zzzz"])
    with pytest.raises(UsageError, match="--results"):
        Store(root, names=[str(root.parent)])


def test_a_replaced_run_is_read_again_and_old_ones_are_dropped(root: Path) -> None:
    asked = made_runs.prompts(6)
    for seed in (1, 2):
        made_runs.made_run(root / f"other{seed}", asked=asked, seed=seed)
    store = Store(root, cached=1)
    first = store.load("other1")
    store.load("other2")
    assert store.load("other1") is not first
    held = store.load("other1")
    path = root / "other1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert store.load("other1") is not held


def test_other_kinds_of_runs_are_left_out(root: Path) -> None:
    other = root / "safety_classifier" / "minilm"
    other.mkdir(parents=True)
    (other / "run.json").write_text(json.dumps({"run_id": "a", "identity": {"kind": "safety_classifier"}}))
    assert [entry.name for entry in Store(root).runs] == [RUN]


def test_building_the_page_loads_neither_torch_nor_jax(root: Path) -> None:
    code = (
        "import sys; from dashboard.gradio_import import prepare_gradio; prepare_gradio();"
        "from pathlib import Path; from dashboard.store import Store; from dashboard.app import build_app;"
        f"build_app(Store(Path({str(root)!r})));"
        "print([name for name in ('torch', 'jax', 'transformers', 'flax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False)
    assert done.stdout.strip() == "[]", done.stderr
