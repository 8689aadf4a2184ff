"""`finetune dpo`: preference tuning of an SFT adapter (Rafailov et al. 2023, Direct Preference Optimization).

    uv run finetune dpo --config configs/finetune/smollm2-135m-dpo.yaml

The policy is the SFT adapter made trainable; the reference is a frozen copy of it, on the same base. The
classic mistake is a reference without the SFT adapter: then the loss at step 0 is not ln 2, and training
begins by undoing stage 2. `check_start` measures this before the first step. ``train.loss_type`` chooses DPO's losses,
KTO or ORPO.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import data, fit, lora
from finetune.cluster import Cluster, Rhythm
from finetune.config import DPORun, LoraSection, RLRun
from finetune.fit import Options
from finetune.stage import Stage
from inference.adapters import adapter_digest, attach, check_adapter
from inference.families import Family
from inference.loading import load_base
from runs.console import Reporter
from runs.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.preferences import DPO, KTO

KL_ROWS = 64
"""Held-out pairs on which the distance from the reference is measured; they are the first by hash, so a random draw."""

TOLERANCE = 1e-3
"""How far the loss may be from ln 2, and a reward from 0, before the first step."""


def run_dpo(run: DPORun, options: Options, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """Train.

    Returns:
        The command's result, for machines and for people.

    Raises:
        Preempted: SIGTERM came; every process saved, and the same command goes on.
        UserError: data, model, device or output folder cannot be used as asked, or the reference is not
            where the policy starts.
    """
    stage = Stage.begin("dpo", run, options, reporter)
    inputs = dict(stage.inputs)
    start = lora.resolve_adapter(run.init_adapter, stage.family) if run.init_adapter is not None else None
    if start is not None:
        inputs["init_adapter"] = adapter_digest(check_adapter(start, base_identity=inputs["base"]))
    identity = stage.identify(inputs)
    if (done := stage.finished(identity)) is not None:
        return done

    examples = read_pairs(run, stage.tokenizer)
    examples.show(reporter)
    examples.check(evaluated=run.train.eval_steps is not None)
    shared = fit.share(run, examples, stage.cluster)
    model = load_policy(run, stage.family, start, base=inputs["base"], device=stage.place)

    measured: dict[str, float] = {}

    def build(work: Path) -> DPO | KTO:
        trainer = build_trainer(
            run, model, stage.tokenizer, examples, work,
            public_id=stage.family.base.public_id, cluster=stage.cluster, shared=shared,
        )  # fmt: skip
        measured.update(check_start(trainer, run))  # of a resumed run as well
        return trainer

    def settle(trainer: DPO | KTO) -> None:
        if start is not None and run.interpolation < 1.0:
            lora.retreat(fit.policy(trainer), start, run.interpolation)

    return stage.carry_out(identity, examples, build, lambda _: measured, settle)


def read_pairs(run: DPORun, tokenizer: PreTrainedTokenizerBase | None) -> data.Examples:
    """The rows of the run's loss: pairs, or single answers for KTO."""
    pairs = data.dpo_examples(run.data, tokenizer, soft=run.train.soft_labels)
    if "kto" not in run.train.loss_type:
        return pairs
    grouped = run.train.train_sampling_strategy == "group_by_length"
    return data.unpaired(pairs, batch=run.train.per_device_train_batch_size, grouped=grouped)


def check_reference(kl: float) -> None:
    """Refuse a reference that is not where the policy starts.

    Raises:
        UserError: their KL, in nats a token, is not 0.
    """
    if not abs(kl) <= TOLERANCE:
        raise UserError(
            "The reference is not the model that training starts from.",
            why=f"Before the first step the KL between them is {kl:.4f} nats a token; it must be 0.",
            mend="Check init_adapter, and that TRL's version is the locked one (`uv sync`).",
        )


def load_policy(
    run: DPORun | RLRun, family: Family, start: Path | None, *, base: str, device: str | None = None
) -> PeftModel:
    """The base with the trainable adapter: the one in ``start``, or a new one whose output is the base's.

    ``device`` is this process's own, where there are several.

    Raises:
        UserError, IntegrityError: as `inference.adapters.attach` and `finetune.lora.lora_config`.
    """
    import torch
    from peft import get_peft_model

    model: PreTrainedModel = load_base(
        family, device=device or run.model.device, dtype=run.model.dtype, quantization=run.model.quantization
    )
    if start is not None:
        return attach(model, start, lora.POLICY, base_identity=base, trainable=True)
    torch.manual_seed(run.train.seed)
    policy: PeftModel = get_peft_model(model, lora.lora_config(run.lora or LoraSection(), model))
    return policy


def build_trainer(
    run: DPORun,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: data.Examples,
    work: Path,
    *,
    public_id: str,
    cluster: Cluster | None = None,
    shared: Rhythm | None = None,
) -> DPO | KTO:
    """TRL's trainer. Given a PeftModel and no reference, it copies the adapter "default" to a frozen "ref".

    ``disable_dropout`` is TRL's default and stays: with dropout in the policy only, its log-probabilities
    would differ from the reference's before anything was learnt.
    """
    from finetune import head, monitors

    cluster = cluster or Cluster()
    shared = shared or fit.share(run, examples, cluster)
    arguments = fit.arguments(
        run.train, work, model.device, evaluated=bool(examples.holdout), accumulation=shared.accumulation
    )
    arguments |= {"disable_dropout": True, "precompute_ref_log_probs": precomputes(run, examples, cluster, shared)}
    build = _kto if "kto" in run.train.loss_type else _pairwise
    trainer = build(run, model, tokenizer, examples, arguments)
    trainer.public_id = public_id
    trainer.kl_rows = [example.columns for example in examples.pairs[:KL_ROWS]]
    fit.prepare(trainer, run, examples, cluster, shared)
    head.install(fit.base_model(trainer))
    if run.monitors is not None and run.monitors.prompts:
        prompts = [example.prompt for example in examples.pairs[: run.monitors.prompts]]
        batch = run.train.per_device_eval_batch_size
        trainer.answered = monitors.Answers(model, tokenizer, prompts, run.monitors, batch)
    return trainer


def precomputes(run: DPORun, examples: data.Examples, cluster: Cluster, shared: Rhythm) -> bool:
    """Whether the reference is run once, before training: asked for, or ``auto`` and there is more than one epoch.

    ORPO has no reference. Under FSDP the precomputation would come before the weights are cut into parts.
    """
    asked = run.train.precompute_ref_log_probs
    if asked != "auto":
        return asked
    rows = fit.planned_steps(len(examples.train), run.train, shared) * shared.rows
    return rows > len(examples.train) + shared.rows and "orpo" not in run.train.loss_type and not cluster.sharded


def _pairwise(
    run: DPORun,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: data.Examples,
    arguments: dict[str, Any],
) -> DPO:
    """TRL's DPO trainer with the run's losses; ORPO's is one of those."""
    from trl.trainer.dpo_config import DPOConfig

    from finetune.preferences import DPO, ORPO, LabelledPairs

    odds = "orpo" in run.train.loss_type
    arguments |= {
        "loss_type": ["sigmoid"] if odds else list(run.train.loss_type),
        "loss_weights": list(run.train.loss_weights) if run.train.loss_weights is not None else None,
        "beta": run.train.beta,
        "ld_alpha": run.train.ld_alpha,
        "label_smoothing": run.train.label_smoothing,
    }
    return (ORPO if odds else DPO)(
        model=model,
        ref_model=None,
        args=DPOConfig(**arguments),
        data_collator=LabelledPairs(pad_token_id=int(tokenizer.pad_token_id or 0)),
        train_dataset=data.to_dataset(examples.train),
        eval_dataset=data.sorted_dataset(examples.holdout) if examples.holdout else None,
        processing_class=tokenizer,
    )


def _kto(
    run: DPORun,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: data.Examples,
    arguments: dict[str, Any],
) -> KTO:
    """TRL's KTO trainer; its batches are made by `finetune.data.unpaired`, and kept."""
    from trl.trainer.kto_config import KTOConfig

    from finetune.preferences import KTO

    arguments |= {
        "loss_type": "kto",
        "beta": run.train.beta,
        "desirable_weight": run.train.desirable_weight,
        "undesirable_weight": run.train.undesirable_weight,
        "train_sampling_strategy": "sequential",
        "per_device_eval_batch_size": run.train.per_device_train_batch_size,
    }
    return KTO(
        model=model,
        ref_model=None,
        args=KTOConfig(**arguments),
        train_dataset=data.to_dataset(examples.train),
        eval_dataset=data.to_dataset(examples.holdout) if examples.holdout else None,
        processing_class=tokenizer,
    )


def check_start(trainer: DPO | KTO, run: DPORun) -> dict[str, float]:
    """Measure loss and rewards on one batch before the first step.

    With policy = reference every reward beta · log(policy / reference) is 0 and the sigmoid loss is
    -log sigmoid(0) = ln 2 (Rafailov et al. 2023, equation 7), with soft labels as well; KTO's is 1/2. ORPO has no
    reference, and only what monitors need is measured.

    Raises:
        UserError: they are not; the reference is not the model that training starts from.
    """
    import torch

    rows: Any = trainer.train_dataset
    first = [rows[index] for index in range(min(run.train.per_device_train_batch_size, len(rows)))]
    model = fit.policy(trainer).eval()
    # In training's precision: a precomputed reference has it, and the policy is not yet prepared for it.
    with torch.no_grad(), trainer.accelerator.autocast(), trainer.compute_loss_context_manager():
        batch = trainer._prepare_inputs(trainer.data_collator(first))
        loss = float(trainer.compute_loss(model, batch))  # type: ignore[no-untyped-call]
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    trainer._metrics["eval"].clear()
    found = {f"{name}_at_start": metrics[f"rewards/{name}"] for name in ("chosen", "rejected", "margins")}
    found["loss_at_start"] = loss
    off = [abs(found[f"{name}_at_start"]) for name in ("chosen", "rejected", "margins")]
    if run.train.loss_type in (("sigmoid",), ("kto",)):
        expected = math.log(2) if "sigmoid" in run.train.loss_type else 0.5
        weight = run.train.loss_weights[0] if run.train.loss_weights else 1.0
        off.append(abs(loss / weight - expected))
    if "orpo" not in run.train.loss_type and not max(off) <= TOLERANCE:
        raise UserError(
            "The reference is not the model that training starts from.",
            why=f"Before the first step the loss is {loss:.4f} (ln 2 = {math.log(2):.4f} for sigmoid, 0.5 for kto) "
            f"and the rewards are {found['chosen_at_start']:.4f} and {found['rejected_at_start']:.4f}; they must be 0.",
            mend="Check init_adapter, and that TRL's version is the locked one (`uv sync`).",
        )
    if run.monitors is not None:
        found |= {f"{name}_at_start": value for name, value in trainer.measured().items() if name != "kl"}
    return {name: round(value, 6) for name, value in found.items()}
