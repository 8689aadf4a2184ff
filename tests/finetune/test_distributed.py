"""SFT and DPO on several processes (gloo, DDP and FSDP2): the losses of one, and the bytes of an undisturbed run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.board import asked, exported
from tests.finetune.distributed_driver import prepare

FSDP = {"set": ["train.fsdp=true"]}
STRUCK = {"slow": 0.3, "after": 0.5}
PLANS = [
    {"name": "sft-one", "stage": "sft", "size": 1},
    {"name": "sft-ddp", "stage": "sft", "size": 2},
    {"name": "sft-fsdp", "stage": "sft", "size": 2, **FSDP},
    {"name": "dpo-one", "stage": "dpo", "size": 1},
    {"name": "dpo-ddp", "stage": "dpo", "size": 2},
    {"name": "dpo-fsdp", "stage": "dpo", "size": 2, **FSDP},
    {"name": "stopped-ddp", "stage": "sft", "size": 2, **STRUCK, "signal": "SIGTERM", "rank": 1},
    {"name": "stopped-ddp", "stage": "sft", "size": 2},
    {"name": "stopped-fsdp", "stage": "sft", "size": 2, **STRUCK, "signal": "SIGTERM", "rank": 0, **FSDP},
    {"name": "stopped-fsdp", "stage": "sft", "size": 2, **FSDP},
    {"name": "killed-ddp", "stage": "sft", "size": 2, **STRUCK, "signal": "SIGKILL", "rank": 1},
    {"name": "killed-ddp", "stage": "sft", "size": 2},
    {"name": "refused", "stage": "sft", "size": 2, "set": ["train.global_batch_size=6"]},
    {"name": "sft-ddp", "stage": "sft", "size": 2, "set": ["train.learning_rate=0.5"]},
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, list[list[int]]]]:
    """All trainings, in processes of their own: their folder, and the exit codes of the ranks by name."""
    folder = tmp_path_factory.mktemp("distributed")
    prepare(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.finetune.ranks", str(folder), json.dumps(PLANS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    codes: dict[str, list[list[int]]] = {}
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        codes.setdefault(entry["name"], []).append(entry["codes"])
    return folder, codes


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_of_one(trained, stage, kind):
    folder, codes = trained
    assert codes[f"{stage}-{kind}"][0] == [0, 0]
    one, two = log(folder / f"{stage}-one"), log(folder / f"{stage}-{kind}")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for ours, theirs in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "eval_loss", "num_tokens"):
            if name in ours:
                assert theirs[name] == pytest.approx(ours[name], rel=1e-3), (name, ours["step"])
    first, second = (json.loads((folder / f"{stage}-{name}" / "manifest.json").read_text()) for name in ("one", kind))
    assert second["metrics"]["eval_loss"] == pytest.approx(first["metrics"]["eval_loss"], rel=1e-3)
    assert second["metrics"]["processes"] == 2


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_sigterm_to_one_rank_stops_all_with_75_and_the_rest_gives_the_same_bytes(trained, kind):
    folder, codes = trained
    assert codes[f"stopped-{kind}"] == [[75, 75], [0, 0]]
    for name in ("adapter_model.safetensors", "train_log.jsonl"):
        assert (folder / f"stopped-{kind}" / name).read_bytes() == (folder / f"sft-{kind}" / name).read_bytes()


def test_kill_9_of_a_rank_and_a_restart_give_the_same_bytes(trained):
    folder, codes = trained
    struck, again = codes["killed-ddp"]
    assert struck[1] == -9
    assert struck[0] not in (0, 2, 64, 75)
    assert again == [0, 0]
    for name in ("adapter_model.safetensors", "train_log.jsonl"):
        assert (folder / "killed-ddp" / name).read_bytes() == (folder / "sft-ddp" / name).read_bytes()


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_every_rank_exports_what_the_dashboard_shows(trained, stage):
    folder, _ = trained
    for rank, name in enumerate((f"{stage}-ddp.prom", f"{stage}-ddp-1.prom")):
        text = (folder / name).read_text()
        assert asked(f"cai_{stage}") <= exported(text)
        assert f'cai_{stage}_step{{process="{rank}"}}' in text


def test_what_one_rank_refuses_all_refuse(trained):
    _, codes = trained
    assert codes["refused"] == [[2, 2]]
    assert codes["sft-ddp"][1] == [1, 1]  # the folder holds another finished run
