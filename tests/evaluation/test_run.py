"""`evaluate` end to end on a tiny model: outputs, resuming after a kill, refusals of bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.board import asked, exported

OUTPUTS = ("samples.jsonl", "results.json", "statistics.json", "comparison.csv", "config.yaml", "run.json")


@pytest.fixture(scope="module")
def family(tmp_path_factory, tiny_llama) -> Path:
    return tiny.write_family(tmp_path_factory.mktemp("family"), "tiny-llama", tiny_llama)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """Every tenth shipped prompt: all kinds, 25 rows."""
    shipped = Path("evaluation/prompts/core.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("\n".join(shipped[::10]) + "\n")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from evaluation.cli import main; main()", *map(str, arguments)]


def evaluate(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, **options)


def options(family: Path, prompts: Path, folder: Path) -> list[object]:
    return [
        "--models", "base", "--family", family, "--prompts", prompts,
        "--max-new-tokens", 48, "--batch-size", 5, "--output-dir", folder,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(family, prompts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    metrics = {**os.environ, "CAI_METRICS": str(folder.with_suffix(".prom"))}
    done = evaluate(*options(family, prompts, folder), env=metrics)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_what_it_promises(finished):
    samples = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 25
    assert all(sample["model"] == "base" for sample in samples)
    results = json.loads((finished / "results.json").read_text())
    assert {summary["metric"] for summary in results["summaries"]} >= {"harm_prevention", "helpfulness"}
    assert (finished / "comparison.csv").read_text().startswith("contrast,metric,n,")
    manifest = json.loads((finished / "manifest.json").read_text())
    assert set(manifest["files"]) == set(OUTPUTS)
    assert not (finished / ".work").exists()


def test_a_run_exports_what_the_dashboard_shows(finished):
    assert asked("cai_evaluate") <= exported(finished.with_suffix(".prom").read_text())


def test_the_same_command_again_changes_nothing(finished, family, prompts):
    before = {name: (finished / name).read_bytes() for name in (*OUTPUTS, "manifest.json")}
    done = evaluate(*options(family, prompts, finished), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["folder"] == str(finished)
    assert {name: (finished / name).read_bytes() for name in before} == before


def kill_after(lines: int, arguments: list[object], log: Path, how: signal.Signals) -> int:
    """Start the command, send ``how`` once its log has so many lines, and give its exit code."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            process.send_signal(how)
            break
        time.sleep(0.005)
    return process.wait(timeout=60)


@pytest.mark.slow
def test_kill_9_then_the_same_command_gives_the_same_bytes(finished, family, prompts, tmp_path):
    folder = tmp_path / "run"
    arguments = options(family, prompts, folder)
    log = folder / ".work" / "answers.jsonl"
    for lines in (3, 9):
        assert kill_after(lines, arguments, log, signal.SIGKILL) == -signal.SIGKILL
        assert not (folder / "manifest.json").exists()
    assert evaluate(*arguments).returncode == 0
    for name in OUTPUTS:
        if name != "run.json":
            assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.slow
def test_sigterm_exits_75_and_the_same_command_goes_on_to_the_same_bytes(finished, family, prompts, tmp_path):
    folder = tmp_path / "run"
    arguments = options(family, prompts, folder)
    assert kill_after(4, arguments, folder / ".work" / "answers.jsonl", signal.SIGTERM) == 75
    assert evaluate(*arguments).returncode == 0
    assert (folder / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()


@pytest.mark.slow
def test_ctrl_c_exits_130_and_keeps_what_was_done(family, prompts, tmp_path):
    folder = tmp_path / "run"
    log = folder / ".work" / "answers.jsonl"
    assert kill_after(2, options(family, prompts, folder), log, signal.SIGINT) == 130
    assert log.read_bytes().count(b"\n") >= 2


def test_another_run_in_the_folder_is_refused_by_what_differs(finished, family, prompts):
    done = evaluate(*options(family, prompts, finished), "--seed", 5)
    assert done.returncode == 2
    assert "sampling.seed (0 there, 5 now)" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--models", "stage4"], 2, "Did you mean 'stage"),
        (["--family", "smollm2-135"], 2, "Did you mean 'smollm2-135m'"),
        (["--evaluators", "harm_preventoin"], 2, "Did you mean 'harm_prevention'"),
        (["--set", "batchsize=3"], 2, "did you mean 'batch_size'"),
        (["--models", "base", "base"], 2, "named twice"),
        (["--prompts", "absent.jsonl"], 2, "no prompts file absent.jsonl"),
        (["--limt", "3"], 2, "No such option: --limt"),
        (["--device", "cuda:7"], 2, "Device 'cuda:7' is not available"),
    ],
)
def test_what_does_not_exist_is_named(arguments, code, message, tmp_path):
    if "cuda:7" in arguments:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
    done = evaluate(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    done = evaluate("--output-dir", tmp_path / "file" / "run")
    assert done.returncode == 1
    assert "Cannot write to" in done.stderr


def test_a_file_that_may_not_grow_keeps_what_was_written(family, prompts, tmp_path):
    """A limit on file sizes stands for a full disk in the middle of a run; freed, the run goes on."""
    folder = tmp_path / "run"
    arguments = options(family, prompts, folder)
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); from evaluation.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    kept = (folder / ".work" / "answers.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert evaluate(*arguments).returncode == 0


def test_help_answers_without_loading_torch():
    script = """
import sys
sys.argv = ["evaluate", "--help"]
from evaluation.cli import main
try:
    main()
except SystemExit:
    assert not {"torch", "pydantic", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
