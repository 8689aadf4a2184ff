import gzip
import json

import pytest
import yaml

from finetune import dryrun, estimate
from finetune.config import DPORun, RewardRun, SFTRun
from inference.families import load_family
from runs.config import load
from runs.paths import ARTIFACTS, CONFIGS
from tests.finetune.conftest import QUIET

GEMMA = sorted((CONFIGS / "finetune").glob("gemma-2b-it-*.yaml"))
GEMMA_PARAMETERS = 2_506_172_416  # google/gemma-2b-it on the hub
GEMMA_LORA = 19_611_648  # r 16 on all seven linear modules


@pytest.fixture
def without_gemma(tmp_path, monkeypatch):
    """A machine without the gated base, with a few rows of the datasets that the configs name."""
    from inference import sources
    from runs.errors import UserError

    def refuse(source):
        raise UserError("google/gemma-2b-it is gated and this machine has no access.")

    monkeypatch.setattr(sources, "_hub_snapshot", refuse)
    folder = tmp_path / "hh-rlhf" / "helpful-base"
    folder.mkdir(parents=True)
    with gzip.open(folder / "train.jsonl.gz", "wt") as file:
        for number in range(600):
            file.write(json.dumps({"chosen": f"\n\nHuman: question {number}?\n\nAssistant: answer {number}"}) + "\n")
    turn = {"role": "user", "content": "q"}
    pairs = [
        {"prompt": [turn | {"content": f"question {n}"}], "chosen": "yes", "rejected": "no", "accepted": True}
        for n in range(300)
    ]
    path = tmp_path / "results" / "critique_revision" / "gemma-2b-it" / "export" / "dpo" / "pairs.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    monkeypatch.setenv("CAI_DATA", str(tmp_path))
    sources._folder.cache_clear()
    yield
    sources._folder.cache_clear()


@pytest.mark.parametrize("path", GEMMA, ids=lambda path: path.stem)
def test_every_config_of_the_reference_family_is_planned_without_its_weights(path, without_gemma):
    run = load(DPORun if "-dpo" in path.name else SFTRun, path)
    processes = 8 if "8gpu" in path.name else 1
    value, lines = dryrun.describe(run, QUIET, processes=processes)
    assert value["base_parameters"] == GEMMA_PARAMETERS
    assert value["trainable_parameters"] == GEMMA_LORA
    assert "gated" in value["notes"][0]
    rows = value["counts"]["rows_trained"]
    assert value["steps"] == {True: rows // 128}.get(processes == 8, -(-rows // rows_of_a_step(run)))
    memory = value["memory_gib"]
    assert memory["total"] == pytest.approx(sum(memory.values()) - memory["total"], abs=0.05)
    assert memory["total"] < {"l4": 22, "a100": 38, "8gpu": 38}.get(path.stem.rpartition("-")[2], 24)
    assert any("steps" in line for line in lines)


def rows_of_a_step(run):
    return run.train.per_device_train_batch_size * run.train.gradient_accumulation_steps


def test_quantisation_and_parts_make_the_base_smaller(without_gemma):
    whole, cut = (
        dryrun.describe(load(SFTRun, CONFIGS / "finetune" / f"gemma-2b-it-sft-{name}.yaml"), QUIET, processes=count)[0]
        for name, count in (("a100", 1), ("8gpu", 8))
    )
    quantised, _ = dryrun.describe(load(SFTRun, CONFIGS / "finetune" / "gemma-2b-it-sft-l4.yaml"), QUIET)
    assert whole["memory_gib"]["base"] == pytest.approx(GEMMA_PARAMETERS * 2 / 2**30, abs=0.01)
    assert cut["memory_gib"]["base"] == pytest.approx(whole["memory_gib"]["base"] / 8, abs=0.01)
    # 1.98 billion weights of linear modules in 4.127 bits, the embedding in 16
    assert quantised["memory_gib"]["base"] == pytest.approx(1.93, abs=0.05)


def test_the_estimate_is_of_the_size_that_the_shipped_run_took():
    """Against the manifest of stage 2; a process has half a gigabyte of libraries beside what is estimated."""
    family, run = load_family("smollm2-135m"), load(SFTRun, ARTIFACTS / "smollm2-135m" / "stage2" / "config.yaml")
    model = dryrun.bare(family, scored=False).model
    held = dryrun.memory(run, family, model, run.lora, 4_884_480, 1)
    measured = json.loads((ARTIFACTS / "smollm2-135m" / "stage2" / "manifest.json").read_text())["peak_memory_gib"]
    assert 0.5 < held.total / estimate.GIB / measured < 1.5


def test_the_accelerate_config_fits_the_run():
    asked = yaml.safe_load((CONFIGS / "accelerate" / "fsdp2-8gpu.yaml").read_text())
    run = load(SFTRun, CONFIGS / "finetune" / "gemma-2b-it-sft-8gpu.yaml")
    assert run.train.fsdp
    assert (asked["distributed_type"], asked["fsdp_config"]["fsdp_version"]) == ("FSDP", 2)
    assert run.train.global_batch_size % (asked["num_processes"] * run.train.per_device_train_batch_size) == 0
    from accelerate.commands.config.config_args import ClusterConfig

    ClusterConfig.from_yaml_file(str(CONFIGS / "accelerate" / "fsdp2-8gpu.yaml"))  # refuses unknown keys


def test_a_reward_model_and_a_missing_adapter_are_planned_too(place, tmp_path):
    run = place.reward(tmp_path / "out")
    assert isinstance(run, RewardRun)
    value, _ = dryrun.describe(run, QUIET)
    widths = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert value["trainable_parameters"] == 4 * 2 * sum(a + b for a, b in widths) + 32
    assert value["notes"] == []
    rl, _ = dryrun.describe(place.rl(tmp_path / "out").model_copy(update={"init_adapter": None}), QUIET)
    assert rl["steps"] == 8
    kto = place.dpo(tmp_path / "out", loss_type=["kto"]).model_copy(update={"init_adapter": None})
    assert dryrun.describe(kto, QUIET)[0]["counts"]["rows_trained"] == 72
