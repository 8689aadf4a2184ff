"""`finetune dpo`: preference tuning of an SFT adapter (Rafailov et al. 2023, Direct Preference Optimization).

    uv run finetune dpo --config configs/finetune/smollm2-135m-dpo.yaml

The policy is the SFT adapter made trainable; the reference is a frozen copy of it, on the same base. The
classic mistake is a reference without the SFT adapter: then the loss at step 0 is not ln 2, and training
begins by undoing stage 2. `check_start` measures this before the first step.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import data, fit, lora
from finetune.cluster import Cluster, Rhythm, announced
from finetune.config import DPORun, LoraSection
from finetune.fit import Options
from inference.adapters import adapter_digest, attach, check_adapter
from inference.chat import chat_digest
from inference.families import Family, load_family
from inference.loading import base_identity, load_base, load_tokenizer, resolve_device
from runs.console import Reporter
from runs.errors import UserError
from runs.job import stop_flag

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.trainers import DPO

KL_ROWS = 64
"""Held-out pairs on which the distance from the reference is measured; they are the first by hash, so a random draw."""

TOLERANCE = 1e-3
"""How far the loss may be from ln 2, and a reward from 0, before the first step."""


def run_dpo(run: DPORun, options: Options, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """Train, or say what would be trained.

    Returns:
        The command's result, for machines and for people.

    Raises:
        Preempted: SIGTERM came; every process saved, and the same command goes on.
        UserError: data, model, device or output folder cannot be used as asked, or the reference is not
            where the policy starts.
    """
    began = time.monotonic()
    fit.quiet_libraries()
    cluster = announced(fsdp=run.train.fsdp)
    place = cluster.device(run.model.device)
    device = resolve_device(place)
    fit.check_device(device, run.train, cluster)
    cluster.join(device)
    family = load_family(run.family)
    tokenizer = load_tokenizer(family)
    inputs = {"base": base_identity(family), "chat": chat_digest(tokenizer), **data.inputs(run.data)}
    start = lora.resolve_adapter(run.init_adapter, family) if run.init_adapter is not None else None
    if start is not None:
        inputs["init_adapter"] = adapter_digest(check_adapter(start, base_identity=inputs["base"]))
    identity = fit.identify(run, kind="dpo", inputs=inputs, cluster=cluster)
    finished = cluster.decided(lambda: fit.already_done(run.output_dir, identity, options, reporter))
    if finished is not None and not options.dry_run:
        return fit.result(finished, run.output_dir)

    examples = data.dpo_examples(run.data, tokenizer)
    examples.show(reporter)
    examples.check(evaluated=run.train.eval_steps is not None)
    shared = fit.share(run, examples, cluster)
    model = load_policy(run, family, start, base=inputs["base"], device=place)
    if options.dry_run:
        trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        return fit.plan(run, examples, trainable, shared)

    with ExitStack() as stack:
        stop = stack.enter_context(stop_flag())
        work = fit.claim(run, identity, options, cluster, stack)
        trainer = build_trainer(
            run, model, tokenizer, examples, work, public_id=family.base.public_id, cluster=cluster, shared=shared
        )
        before = check_start(trainer, run)
        measured = fit.train(trainer, run, examples, work, reporter, before=lambda: before, stop=stop)
        manifest = fit.finish(
            trainer,
            run,
            kind="dpo",
            family=family,
            identity=identity,
            examples=examples,
            measured=measured,
            work=work,
            options=options,
            began=began,
        )
    return fit.result(manifest, run.output_dir)


def load_policy(run: DPORun, family: Family, start: Path | None, *, base: str, device: str | None = None) -> PeftModel:
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
) -> DPO:
    """TRL's trainer. Given a PeftModel and no reference, it copies the adapter "default" to a frozen "ref".

    ``disable_dropout`` is TRL's default and stays: with dropout in the policy only, its log-probabilities
    would differ from the reference's before anything was learnt.
    """
    from trl.trainer.dpo_config import DPOConfig

    from finetune import head
    from finetune.trainers import DPO

    cluster = cluster or Cluster()
    shared = shared or fit.share(run, examples, cluster)
    arguments = fit.arguments(
        run.train, work, model.device, evaluated=bool(examples.holdout), accumulation=shared.accumulation
    )
    arguments |= {
        "loss_type": list(run.train.loss_type),
        "loss_weights": list(run.train.loss_weights) if run.train.loss_weights is not None else None,
        "disable_dropout": True,
    }
    trainer = DPO(
        model=model,
        ref_model=None,
        args=DPOConfig(**arguments),
        train_dataset=data.to_dataset(examples.train),
        eval_dataset=data.sorted_dataset(examples.holdout) if examples.holdout else None,
        processing_class=tokenizer,
    )
    trainer.public_id = public_id
    trainer.kl_rows = [example.columns for example in examples.holdout[:KL_ROWS]]
    fit.prepare(trainer, run, examples, cluster, shared)
    head.install(fit.base_model(trainer))
    return trainer


def check_start(trainer: DPO, run: DPORun) -> dict[str, float]:
    """Measure loss and rewards on one batch before the first step.

    With policy = reference every reward beta · log(policy / reference) is 0 and the sigmoid loss is
    -log sigmoid(0) = ln 2 (Rafailov et al. 2023, equation 7).

    Raises:
        UserError: they are not; the reference is not the model that training starts from.
    """
    import torch

    rows: Any = trainer.train_dataset
    first = [rows[index] for index in range(min(run.train.per_device_train_batch_size, len(rows)))]
    model = fit.policy(trainer).eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        batch = trainer._prepare_inputs(trainer.data_collator(first))
        loss = float(trainer.compute_loss(model, batch))  # type: ignore[no-untyped-call]
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    trainer._metrics["eval"].clear()
    found = {f"{name}_at_start": metrics[f"rewards/{name}"] for name in ("chosen", "rejected", "margins")}
    found["loss_at_start"] = loss
    off = [abs(found[f"{name}_at_start"]) for name in ("chosen", "rejected", "margins")]
    if run.train.loss_type == ("sigmoid",):
        weight = run.train.loss_weights[0] if run.train.loss_weights else 1.0
        off.append(abs(loss / weight - math.log(2)))
    if not max(off) <= TOLERANCE:
        raise UserError(
            "The reference is not the model that training starts from.",
            why=f"Before the first step the loss is {loss:.4f} (ln 2 = {math.log(2):.4f} for sigmoid) and the rewards "
            f"are {found['chosen_at_start']:.4f} and {found['rejected_at_start']:.4f}; they must be 0.",
            mend="Check init_adapter, and that TRL's version is the locked one (`uv sync`).",
        )
    return {name: round(value, 6) for name, value in found.items()}
