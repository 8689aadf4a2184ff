import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from finetune.cli import main
from finetune.fit import TRAIN_LOG
from finetune.lora import WEIGHTS
from finetune.sft import run_sft
from tests.finetune.conftest import OPTIONS, QUIET

ENVIRONMENT = {**os.environ, "CAI_DATA": "", "HF_HUB_OFFLINE": "1"}
START = [sys.executable, "-c", "from finetune.cli import main; main()"]


def config_file(run, folder) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    return path


def call(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["finetune", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_dry_run_says_what_would_be_trained_and_writes_nothing(command, place, stage2, tmp_path, monkeypatch, capsys):
    run = place.sft(tmp_path / "out") if command == "sft" else place.dpo(tmp_path / "out")
    words = [command, "--config", config_file(run, tmp_path), "--dry-run", "--json", "--limit", "20", "--seed", "3"]
    assert call(monkeypatch, *words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["counts"]["rows_trained"] == 20
    assert answer["steps"] == 3
    # r * (inputs + outputs) over the seven modules of two layers of width 32
    widths = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert answer["trainable_parameters"] == 4 * 2 * sum(a + b for a, b in widths)
    assert answer["config"]["train"]["seed"] == answer["config"]["data"]["seed"] == 3
    assert not (tmp_path / "out").exists()


def test_a_wrong_key_is_a_usage_error(place, tmp_path, monkeypatch, capsys):
    path = config_file(place.sft(tmp_path / "out"), tmp_path)
    assert call(monkeypatch, "sft", "--config", path, "--set", "train.learning_rat=1") == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err


def test_the_lock_keeps_a_second_process_out(place, tmp_path, monkeypatch, capsys):
    from runs.lock import run_lock

    path = config_file(place.sft(tmp_path / "out"), tmp_path)
    with run_lock(tmp_path / "out"):
        assert call(monkeypatch, "sft", "--config", path, "--quiet") == 1
    assert "Another process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_artifact(place, tmp_path):
    """SIGKILL while training, then the same command: same final step, same log, same bytes as without."""
    whole, killed = (place.sft(tmp_path / name, num_train_epochs=8, eval_steps=20) for name in ("whole", "killed"))
    command = [*START, "sft", "--config", str(config_file(killed, tmp_path)), "--quiet"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run_sft(whole, OPTIONS, QUIET)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / ".work" / "checkpoint-20" / "complete.json").exists():
        assert process.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    value, _ = run_sft(killed, OPTIONS, QUIET)
    assert value["metrics"]["steps"] == 96
    for name in (WEIGHTS, TRAIN_LOG):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    log = [json.loads(line)["step"] for line in (tmp_path / "killed" / TRAIN_LOG).read_text().splitlines()]
    assert log == [*range(5, 96, 5), 96]
