import json
import shutil

import pytest

from finetune import checkpoints, data, fit, trainers
from finetune.config import TrainSection
from finetune.fit import Options
from finetune.sft import build_trainer, run_sft
from finetune.speed import SPEED_LOG
from inference.adapters import check_adapter
from inference.families import load_family
from inference.loading import base_identity, load_base
from runs.config import load
from runs.errors import IntegrityError, UsageError, UserError
from runs.manifest import read_manifest
from tests.finetune.conftest import OPTIONS, QUIET, interrupted_at

WEIGHTS = "adapter_model.safetensors"


def steps(folder, name="train_log.jsonl"):
    return [json.loads(line)["step"] for line in (folder / name).read_text().splitlines()]


def test_the_artifact_is_whole_small_and_says_where_it_comes_from(place, stage2):
    family = load_family(place.family)
    manifest = check_adapter(stage2, base_identity=base_identity(family))
    assert set(manifest.files) == set(fit.ARTIFACT)
    assert not (stage2 / ".work").exists()
    config = json.loads((stage2 / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "test/tiny-llama"
    assert load(type(place.sft()), stage2 / "config.yaml") == place.sft()
    card = (stage2 / "MODEL_CARD.md").read_text()
    for fact in ("test/tiny-llama", "MIT", OPTIONS.command, "sha256:", "eval_loss"):
        assert fact in card
    assert manifest.metrics["eval_loss"] < manifest.metrics["eval_loss_before"]
    counts = manifest.counts
    assert counts["rows_read"] == 100
    assert 0 < counts["trained_fraction"] < 1
    speeds = [json.loads(line) for line in (stage2 / SPEED_LOG).read_text().splitlines()]
    assert [set(line) for line in speeds] == [{"step", "tokens_per_second"}] * len(speeds)
    assert all(line["tokens_per_second"] > 0 for line in speeds)
    assert manifest.metrics["tokens_per_second"] > 0
    assert not any("runtime" in line or "per_second" in line for line in (stage2 / "train_log.jsonl").open())


def test_stored_weights_are_bfloat16_and_are_what_was_evaluated(place, stage2):
    import torch
    from safetensors.torch import load_file

    from inference.adapters import attach
    from inference.loading import load_tokenizer

    assert {tensor.dtype for tensor in load_file(stage2 / WEIGHTS).values()} == {torch.bfloat16}
    family, run = load_family(place.family), place.sft()
    model = attach(load_base(family), stage2, "default", base_identity=base_identity(family)).eval()
    held = data.sft_examples(run.data, load_tokenizer(family)).holdout
    total, tokens = 0.0, 0
    for example in held:
        ids, labels = (torch.tensor([example.columns[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum"))
        tokens += int((labels[0, 1:] != -100).sum())
    # An independent token mean: the trainers' own average of batch means would differ.
    assert read_manifest(stage2, rebuild="").metrics["eval_loss"] == pytest.approx(total / tokens, abs=1e-5)


def test_training_leaves_the_base_as_it_was(place, tokenizer, tmp_path):
    import torch

    run = place.sft(tmp_path / "out", max_steps=3, eval_steps=None)
    examples = data.sft_examples(run.data, tokenizer)
    model = load_base(load_family(place.family))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer = build_trainer(run, model, tokenizer, examples, tmp_path, public_id="test/base")
    trainable = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    fit.train(trainer, run, examples, tmp_path, QUIET, before=dict)
    after = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): w
        for name, w in trainer.model.named_parameters()
    }
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_an_unknown_target_module_names_those_that_exist(place, tmp_path):
    run = place.sft(tmp_path / "out")
    run = run.model_copy(update={"lora": run.lora.model_copy(update={"target_modules": ("q_proj", "key_proj")})})
    with pytest.raises(UsageError, match=r"(?s)'key_proj'.*down_proj, gate_proj, k_proj"):
        run_sft(run, OPTIONS, QUIET)


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "half-saved"])
def test_an_interrupted_run_continues_to_the_same_bytes(place, stage2, tmp_path, broken):
    run = place.sft(tmp_path / "out")
    with interrupted_at(11), pytest.raises(KeyboardInterrupt):
        run_sft(run, OPTIONS, QUIET)
    work = tmp_path / "out" / ".work"
    assert sorted(path.name for path in work.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-5"]
    assert not list(work.rglob("*args.bin"))
    if broken:  # killed while saving: the optimiser's file is cut off
        optimiser = work / "checkpoint-10" / "optimizer.pt"
        optimiser.write_bytes(optimiser.read_bytes()[:100])
    run_sft(run, OPTIONS, QUIET)
    assert not work.exists()
    for name in (WEIGHTS, "adapter_config.json", "train_log.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (stage2 / name).read_bytes()
    assert steps(tmp_path / "out") == sorted(set(steps(stage2)))
    assert steps(tmp_path / "out", SPEED_LOG) == steps(stage2, SPEED_LOG)
    assert read_manifest(tmp_path / "out", rebuild="").run_id == read_manifest(stage2, rebuild="").run_id


def test_a_run_that_was_killed_after_its_last_step_only_finishes(place, stage2, tmp_path, monkeypatch):
    run = place.sft(tmp_path / "out")

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        run_sft(run, OPTIONS, QUIET)
    monkeypatch.undo()
    run_sft(run, OPTIONS, QUIET)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (stage2 / WEIGHTS).read_bytes()


def test_other_settings_are_refused_by_name_and_no_resume_starts_afresh(place, tmp_path):
    with interrupted_at(6), pytest.raises(KeyboardInterrupt):
        run_sft(place.sft(tmp_path / "out"), OPTIONS, QUIET)
    changed = place.sft(tmp_path / "out", learning_rate=2e-2, max_steps=5)
    with pytest.raises(UserError, match=r"(?s)unfinished.*learning_rate \(0.01 there, 0.02 now\)"):
        run_sft(changed, OPTIONS, QUIET)
    (tmp_path / "out" / ".work" / "run.json").unlink()
    with pytest.raises(UserError, match="of which run"):
        run_sft(changed, OPTIONS, QUIET)
    run_sft(changed, Options(command="x", resume=False), QUIET)
    with pytest.raises(UserError, match=r"(?s)finished adapter of another run.*max_steps \(5 there, -1 now\)"):
        run_sft(place.sft(tmp_path / "out", learning_rate=2e-2), OPTIONS, QUIET)


def test_a_finished_run_is_not_repeated_and_damage_is_noticed(place, stage2, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(stage2, copy)
    before = (copy / "manifest.json").read_bytes()
    value, _ = run_sft(place.sft(copy), OPTIONS, QUIET)
    assert value["metrics"]["steps"] == 12
    assert (copy / "manifest.json").read_bytes() == before
    (copy / WEIGHTS).write_bytes(b"broken")
    with pytest.raises(IntegrityError, match="does not match"):
        run_sft(place.sft(copy), OPTIONS, QUIET)


def test_the_best_checkpoint_is_kept_when_asked(place, tmp_path):
    # A learning rate that ruins the model: an early evaluation is its best.
    run = place.sft(
        tmp_path / "out",
        learning_rate=0.2,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        load_best_model_at_end=True,
        max_steps=20,
    )
    value, _ = run_sft(run.model_copy(update={"early_stopping_patience": 2}), OPTIONS, QUIET)
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    best = min(losses, key=losses.get)
    assert value["metrics"]["step_kept"] == best
    assert value["metrics"]["eval_loss"] == pytest.approx(losses[best], rel=0.05)
    assert value["metrics"]["steps"] <= 20


def test_a_loss_that_is_not_a_number_stops_the_run(place, tmp_path):
    run = place.sft(tmp_path / "out", learning_rate=1e6, lr_scheduler_type="constant", max_grad_norm=0, eval_steps=None)
    with pytest.raises(UserError, match=r"not a number(?s:.*)learning_rate"):
        run_sft(run, OPTIONS, QUIET)


def test_patience_is_a_function_of_the_log():
    log = [{"step": n, "eval_loss": loss} for n, loss in enumerate([3.0, 2.0, 2.5, 2.0])]
    assert trainers.best_step(log) == 1
    assert trainers.out_of_patience(log, 2)
    assert not trainers.out_of_patience(log, 3)
    assert not trainers.out_of_patience(log, None)


def test_the_row_order_is_a_function_of_seed_and_epoch():
    sampler = trainers.EpochSampler([5, 9, 1, 7, 3, 8, 2], batch_size=2, seed=0, grouped=True)
    first = list(sampler)
    assert sorted(first) == list(range(7))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


@pytest.mark.parametrize(("rows", "batch", "accumulation", "epochs"), [(10, 4, 1, 1), (10, 4, 2, 3), (3, 8, 4, 2)])
def test_planned_steps_are_those_that_transformers_takes(place, tokenizer, tmp_path, rows, batch, accumulation, epochs):
    run = place.sft(
        tmp_path / "out",
        data={"max_rows": rows},
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
        eval_steps=None,
    )
    examples = data.sft_examples(run.data, tokenizer)
    trainer = build_trainer(run, load_base(load_family(place.family)), tokenizer, examples, tmp_path, public_id="x")
    trainer.lengths = [example.tokens for example in examples.train]
    planned = fit.planned_steps(rows, run.train)
    assert trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1] == planned


def test_bfloat16_without_hardware_names_the_mend(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UserError, match=r"train\.bf16=false"):
        fit.check_device(torch.device("cpu"), TrainSection(learning_rate=1e-4, bf16=True))


def test_a_checkpoint_is_whole_only_with_its_mark(tmp_path):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"state")
    assert checkpoints.read_checkpoint(folder) is None
    checkpoints.mark_complete(folder, 1.5)
    found = checkpoints.read_checkpoint(folder)
    assert (found.step, found.wall_seconds) == (5, 1.5)
    (folder / "optimizer.pt").unlink()
    assert checkpoints.latest(tmp_path, QUIET) is None
    assert not folder.exists()
