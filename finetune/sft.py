"""`finetune sft`: teach a base model to answer, one LoRA adapter, every assistant turn trained on.

uv run finetune sft --config configs/finetune/smollm2-135m-sft.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import data, fit, lora
from finetune.cluster import Cluster, Rhythm
from finetune.config import SFTRun
from finetune.fit import Options
from finetune.stage import Stage
from inference.loading import load_base
from runs.console import Reporter

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
    stage = Stage.begin("sft", run, options, reporter)
    identity = stage.identify(stage.inputs)
    if (done := stage.finished(identity)) is not None:
        return done

    examples = data.sft_examples(run.data, stage.tokenizer)
    examples.show(reporter)
    examples.check(evaluated=run.train.eval_steps is not None)
    shared = fit.share(run, examples, stage.cluster)
    model = load_base(stage.family, device=stage.place, dtype=run.model.dtype, quantization=run.model.quantization)

    def build(work: Path) -> SFT:
        return build_trainer(
            run, model, stage.tokenizer, examples, work,
            public_id=stage.family.base.public_id, cluster=stage.cluster, shared=shared,
        )  # fmt: skip

    return stage.carry_out(identity, examples, build, lambda trainer: _before(trainer, examples))


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
