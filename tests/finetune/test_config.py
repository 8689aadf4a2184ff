from pathlib import Path

import pytest
import yaml

from finetune import fit
from finetune.config import DPORun, RewardRun, RLRun, SFTRun
from runs.config import load, parse
from runs.errors import UsageError
from runs.manifest import read_manifest
from runs.paths import ARTIFACTS, CONFIGS

FILES = sorted((CONFIGS / "finetune").glob("*.yaml"))
MODELS = {"sft": SFTRun, "dpo": DPORun, "reward": RewardRun, "rl": RLRun}
BASE = {
    "family": "smollm2-135m",
    "output_dir": "out",
    "data": {"sources": [{"path": "rows.jsonl"}]},
    "train": {"learning_rate": 1e-4},
}


def model_of(path: Path):
    return next(model for name, model in MODELS.items() if f"-{name}" in path.name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_that_ships_loads_and_comments_every_key(path):
    load(model_of(path), path)
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        section = line.rstrip().endswith(":")
        assert section or "#" in line, f"{path.name}: no comment on: {line}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_that_ships_spells_out_every_train_key(path):
    fields = model_of(path).model_fields["train"].annotation.model_fields
    assert set(yaml.safe_load(path.read_text())["train"]) == set(fields)


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        (SFTRun, {"train": {"learning_rate": 1e-4, "fp16": True}}, "bf16 instead"),
        (SFTRun, {"train": {"learning_rate": 1e-4, "load_best_model_at_end": True}}, "needs eval_steps"),
        (SFTRun, {"train": {"learning_rate": 1e-4, "save_steps": 7}}, "multiple of logging_steps"),
        (SFTRun, {"early_stopping_patience": 2}, "needs train.eval_steps"),
        (SFTRun, {"model": {"dtype": "float16"}}, "overflows"),
        (SFTRun, {"train": {"learning_rate": 1e-4, "learning_rat": 1}}, "did you mean 'learning_rate'"),
        (DPORun, {"train": {"learning_rate": 1e-4, "loss_type": ["sft"]}}, "ignores the rejected"),
        (
            DPORun,
            {"train": {"learning_rate": 1e-4, "loss_type": ["sigmoid"], "loss_weights": [1, 2]}},
            "2 entries for 1",
        ),
        (DPORun, {"train": {"learning_rate": 1e-4, "label_smoothing": 0.1}}, "only in the 'robust' loss"),
        (DPORun, {"lora": {"r": 4}}, "init_adapter's own"),
        (DPORun, {"init_adapter": None, "interpolation": 0.5}, "the way from init_adapter"),
        (DPORun, {"train": {"learning_rate": 1e-4, "loss_type": ["kto", "sft"]}}, "stands alone"),
        (DPORun, {"train": {"learning_rate": 1e-4, "ld_alpha": 0, "soft_labels": True}}, "ld_alpha acts neither"),
        (
            DPORun,
            {"train": {"learning_rate": 1e-4, "loss_type": ["ipo"], "soft_labels": True}},
            "only in the 'sigmoid'",
        ),
        (
            DPORun,
            {"train": {"learning_rate": 1e-4, "loss_type": ["kto"], "per_device_train_batch_size": 3}},
            "even per_device",
        ),
        (
            DPORun,
            {"train": {"learning_rate": 1e-4, "loss_type": ["orpo"], "precompute_ref_log_probs": True}},
            "no reference",
        ),
        (DPORun, {"train": {"learning_rate": 1e-4, "desirable_weight": 2.0}}, "only in the 'kto'"),
        (DPORun, {"monitors": {}}, "need train.eval_steps"),
        (RLRun, {"rewards": [{"weight": 2.0}]}, "exactly one of 'model' and 'evaluator'"),
        (RLRun, {"rewards": [{"evaluator": "refusal"}], "watched": ["refusal"]}, "both rewarded and watched"),
        (
            RLRun,
            {
                "rewards": [{"evaluator": "refusal"}],
                "train": {"learning_rate": 1e-4, "eval_steps": 5, "num_generations": 3},
            },
            "no multiple of num_generations",
        ),
    ],
)
def test_a_contradiction_is_refused_with_its_reason(model, change, words):
    with pytest.raises(UsageError, match=words):
        parse(model, BASE | change, source="test")


def test_a_resolved_config_loads_again():
    for model in MODELS.values():
        rewards = {"rewards": [{"evaluator": "helpfulness"}], "monitors": None} if model is RLRun else {}
        run = model.model_validate(BASE | rewards)
        assert model.model_validate(run.model_dump(mode="json")) == run


@pytest.mark.parametrize(("stage", "model", "kind"), [("stage2", SFTRun, "sft"), ("stage3", DPORun, "dpo")])
def test_keys_that_came_later_leave_the_shipped_runs_their_identity(stage, model, kind):
    folder = ARTIFACTS / "smollm2-135m" / stage
    manifest = read_manifest(folder, rebuild="")
    found = fit.identify(load(model, folder / "config.yaml"), kind=kind, inputs=manifest.inputs)
    assert found.run_id == manifest.run_id
