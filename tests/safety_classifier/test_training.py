"""Training as a whole: exact resume, the same result on several devices and processes, frozen weights stay."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.board import asked, exported

DRIVER = [sys.executable, "-m", "tests.safety_classifier.training_driver"]


def start(folder, *overrides, **environment):
    return subprocess.Popen(
        [*DRIVER, str(folder), *overrides],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    return out.strip().splitlines()[-1]


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def wait_for_checkpoint(folder, process, seconds=900):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1][-2000:])
        steps = [int(path.name) for path in (folder / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
        if steps:
            return
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run: its folder and the digest of its weights."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, finished(start(folder, CAI_METRICS=str(folder.with_suffix(".prom"))))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(reference, tmp_path):
    assert finished(start(tmp_path / "again")) == reference[1]


@pytest.mark.slow
def test_training_exports_what_the_dashboard_shows(reference):
    assert asked("cai_classifier") <= exported(reference[0].with_suffix(".prom").read_text())


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(reference, tmp_path):
    folder = tmp_path / "killed"
    process = start(folder, STEP_DELAY="0.3")
    wait_for_checkpoint(folder, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert finished(start(folder)) == reference[1]
    assert losses(folder) == losses(reference[0])


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(reference, tmp_path):
    folder = tmp_path / "stopped"
    process = start(folder, STEP_DELAY="0.3")
    wait_for_checkpoint(folder, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 75
    assert "the state is saved" in out
    assert finished(start(folder)) == reference[1]


@pytest.mark.slow
def test_four_devices_give_the_losses_of_one(tmp_path):
    four = start(tmp_path / "four", XLA_FLAGS="--xla_force_host_platform_device_count=4")
    finished(four)
    finished(start(tmp_path / "one", "train.data_parallel=1", XLA_FLAGS="--xla_force_host_platform_device_count=4"))
    ours, theirs = losses(tmp_path / "four"), losses(tmp_path / "one")
    assert ours.keys() == theirs.keys()
    for step, loss in ours.items():
        assert loss == pytest.approx(theirs[step], rel=1e-4)


def pair(folder, **environment):
    """Both processes of a run of two."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(folder, JOB_COMPLETION_INDEX=str(index), **cluster, **environment) for index in range(2)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digests of the weights that each process of an undisturbed run of two has."""
    return {finished(process) for process in pair(tmp_path_factory.mktemp("pair") / "run")}


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(undisturbed):
    assert len(undisturbed) == 1


@pytest.mark.slow
def test_another_config_in_the_folder_is_refused(reference):
    process = start(reference[0], "train.learning_rate=0.5")
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "train.learning_rate" in errors


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_at_one_step(undisturbed, tmp_path):
    """The same result as an undisturbed run of two; no process is left waiting for the other."""
    folder = tmp_path / "stopped"
    stopped = pair(folder, STEP_DELAY="1")
    wait_for_checkpoint(folder, stopped[0])
    stopped[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=900)[0] for process in stopped]
    assert [process.returncode for process in stopped] == [75, 75]
    assert len({line for out in said for line in out.splitlines() if "the state is saved" in line}) == 1
    assert {finished(process) for process in pair(folder)} == undisturbed


@pytest.mark.slow
def test_killing_one_of_two_processes_ends_both_and_the_restart_gives_the_same_bytes(undisturbed, tmp_path):
    folder = tmp_path / "killed"
    killed = pair(folder, STEP_DELAY="0.5")
    wait_for_checkpoint(folder, killed[0])
    killed[1].send_signal(signal.SIGKILL)
    for process in killed:
        process.communicate(timeout=900)
    assert all(process.returncode not in (0, 2, 64, 75) for process in killed)
    assert {finished(process) for process in pair(folder)} == undisturbed


@pytest.mark.parametrize(
    "environment", [{"JAX_NUM_PROCESSES": "two"}, {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}]
)
def test_a_cluster_that_cannot_be_is_refused(environment, monkeypatch):
    from runs.errors import UsageError
    from safety_classifier.training.distributed import join_cluster

    for name, value in {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError):
        join_cluster()
