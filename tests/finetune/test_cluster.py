"""Several processes: what the environment announces, how rows are shared, which exit code stands for all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from finetune import fit
from finetune.cluster import Cluster, announced, rhythm
from finetune.config import TrainSection
from finetune.elastic import exit_code
from finetune.trainers import EpochSampler
from runs.errors import DataError, UsageError, UserError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_USE_FSDP")


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_one_process_is_what_nothing_announces(environment):
    alone = announced()
    assert (alone.rank, alone.size, alone.first, alone.spread) == (0, 1, True, False)
    assert alone.decided(lambda: 7) == 7
    assert alone.any(True)
    assert not alone.any(False)


def test_ranks_are_read_and_fsdp_is_asked_for_by_config_or_launcher(environment):
    environment(RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    found = announced()
    assert (found.rank, found.size, found.local_rank, found.first, found.sharded) == (1, 2, 1, False, False)
    assert announced(fsdp=True).sharded
    environment(ACCELERATE_USE_FSDP="true")
    assert announced().sharded


@pytest.mark.parametrize(
    "values", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two", "RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "2"}]
)
def test_an_environment_that_makes_no_sense_is_refused(environment, values):
    environment(**values)
    with pytest.raises(UsageError):
        announced()


def test_a_global_batch_is_the_same_rows_on_any_number_of_processes():
    for size, accumulation in ((1, 8), (2, 4), (8, 1)):
        shared = rhythm(Cluster(0, size), per_device=4, accumulation=1, total=32)
        assert shared == (accumulation, 32, True)
    with pytest.raises(UsageError, match="multiple of 12"):
        rhythm(Cluster(0, 3), per_device=4, accumulation=1, total=32)
    assert rhythm(Cluster(0, 2), per_device=4, accumulation=3, total=None) == (3, 24, True)
    assert rhythm(Cluster(), per_device=4, accumulation=3, total=None) == (3, 12, False)


def test_the_batches_of_all_ranks_together_are_those_of_one_process():
    lengths = [5, 9, 1, 7, 3, 8, 2, 6, 4, 7, 5]
    order = list(EpochSampler(lengths, batch_size=4, seed=0, grouped=True, whole=True))
    assert len(order) == 8
    assert len(set(order)) == 8
    alone = [order[start : start + 2] for start in range(0, 8, 2)]  # two rows a pass, two passes a step
    ranks = [alone[rank::2] for rank in range(2)]  # as accelerate deals them out, one pass a step
    for step in range(2):
        assert sorted(map(tuple, alone[2 * step : 2 * step + 2])) == sorted(tuple(rank[step]) for rank in ranks)


def test_too_few_rows_for_one_step_are_named(place, tokenizer):
    from finetune import data

    run = place.sft(data={"max_rows": 10}, global_batch_size=64, per_device_train_batch_size=8)
    with pytest.raises(DataError, match="One step takes 64 rows"):
        fit.share(run, data.sft_examples(run.data, tokenizer), Cluster())


def test_accumulation_and_a_global_batch_contradict_each_other():
    with pytest.raises(ValueError, match="set only one"):
        TrainSection(learning_rate=1e-3, global_batch_size=8, gradient_accumulation_steps=2)


def test_identity_holds_the_processes_only_where_rows_depend_on_them(place):
    one, two = Cluster(), Cluster(0, 2)
    free, fixed = place.sft(), place.sft(global_batch_size=16)
    ids = {
        name: fit.identify(run, kind="sft", inputs={}, cluster=cluster).described
        for name, run, cluster in (("a", free, one), ("b", free, two), ("c", fixed, one), ("d", fixed, two))
    }
    assert ids["b"]["processes"] == 2
    assert "processes" not in ids["d"]
    assert "global_batch_size" not in ids["a"]["config"]["train"]
    assert "fsdp" not in ids["a"]["config"]["train"]
    assert ids["c"]["config"] == ids["d"]["config"]


@pytest.mark.parametrize(
    ("codes", "code"),
    [([75, 75], 75), ([75, 1], 75), ([1, -9], 1), ([2, 1], 2), ([64], 64), ([75, 2], 2), ([-15, 75], 75), ([], 1)],
)
def test_one_exit_code_stands_for_all_processes(codes, code):
    assert exit_code(codes) == code


def test_an_error_of_the_first_process_is_raised_as_it_is():
    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        Cluster().decided(refuse)


RANK = """
import os, pathlib, signal, sys, time
rank, folder, how = os.environ["RANK"], pathlib.Path(sys.argv[1]), sys.argv[2]
def leave(*_):
    time.sleep(0.5)
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
(folder / rank).write_text(os.environ["WORLD_SIZE"])
if how == "refuse":
    sys.exit(2)
if how == "wait":
    time.sleep(600)
"""
STARTERS = {
    "torchrun": ["--nproc-per-node", "2", "--master-port", "0", "--standalone"],
    "accelerate": ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize(("how", "code"), [("finish", 0), ("refuse", 2), ("wait", 75)])
def test_the_starters_exit_codes_are_those_of_the_processes(tmp_path, starter, how, code):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    words = [sys.executable, "-m", "finetune.elastic", starter, *STARTERS[starter], str(script), str(tmp_path), how]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if how == "wait":
        while not ((tmp_path / "0").exists() and (tmp_path / "1").exists()):
            assert process.poll() is None, process.communicate()[0][-3000:]
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == code, said[-3000:]
    assert (tmp_path / "0").read_text() == "2"
