"""`finetune sft`: teach a base model to answer, one LoRA adapter, every assistant turn trained on.

uv run finetune sft --config configs/finetune/smollm2-135m-sft.yaml
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import data, fit, lora
from finetune.cluster import Cluster, Rhythm, announced
from finetune.config import SFTRun
from finetune.fit import Options
from inference.chat import chat_digest
from inference.families import load_family
from inference.loading import base_identity, load_base, load_tokenizer, resolve_device
from runs.console import Reporter
from runs.job import stop_flag

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.trainers import SFT


def run_sft(run: SFTRun, options: Options, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """Train.

    Returns:
        The command's result, for machines and for people.

    Raises:
        Preempted: SIGTERM came; every process saved, and the same command goes on.
        UserError: data, model, device or output folder cannot be used as asked; the message says what to do.
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
    identity = fit.identify(run, kind="sft", inputs=inputs, cluster=cluster)
    finished = cluster.decided(lambda: fit.already_done(run.output_dir, identity, options, reporter))
    if finished is not None:
        return fit.result(finished, run.output_dir)

    examples = data.sft_examples(run.data, tokenizer)
    examples.show(reporter)
    examples.check(evaluated=run.train.eval_steps is not None)
    shared = fit.share(run, examples, cluster)
    model = load_base(family, device=place, dtype=run.model.dtype, quantization=run.model.quantization)

    with ExitStack() as stack:
        stop = stack.enter_context(stop_flag())
        work = fit.claim(run, identity, options, cluster, stack)
        trainer = build_trainer(
            run, model, tokenizer, examples, work, public_id=family.base.public_id, cluster=cluster, shared=shared
        )
        measured = fit.train(
            trainer, run, examples, work, reporter, before=lambda: _before(trainer, examples), stop=stop
        )
        manifest = fit.finish(
            trainer,
            run,
            kind="sft",
            family=family,
            identity=identity,
            examples=examples,
            measured=measured,
            work=work,
            options=options,
            began=began,
        )
    return fit.result(manifest, run.output_dir)


def build_trainer(
    run: SFTRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: data.Examples,
    work: Path,
    *,
    public_id: str,
    cluster: Cluster | None = None,
    shared: Rhythm | None = None,
) -> SFT:
    """TRL's trainer over tokenised rows; the adapter's first weights are drawn from ``train.seed`` (A random, B zero).

    Raises:
        UsageError: a LoRA target module matches nothing.
    """
    from trl.trainer.sft_config import SFTConfig

    from finetune import head
    from finetune.trainers import SFT

    cluster = cluster or Cluster()
    shared = shared or fit.share(run, examples, cluster)
    arguments = fit.arguments(
        run.train, work, model.device, evaluated=bool(examples.holdout), accumulation=shared.accumulation
    )
    trainer = SFT(
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=data.to_dataset(examples.train),
        eval_dataset=data.sorted_dataset(examples.holdout) if examples.holdout else None,
        processing_class=tokenizer,
        peft_config=lora.lora_config(run.lora, model),
    )
    trainer.public_id = public_id
    fit.prepare(trainer, run, examples, cluster, shared)
    head.install(fit.base_model(trainer))
    return trainer


def _before(trainer: SFT, examples: data.Examples) -> dict[str, float]:
    """The base's own held-out loss: the adapter's first output is the base's."""
    return {"eval_loss_before": fit.held_out(trainer)["eval_loss"]} if examples.holdout else {}
