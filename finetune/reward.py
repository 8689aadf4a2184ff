"""`finetune reward`: a reward model on preference pairs (Ouyang et al. 2022; Bai et al. 2022, section 4.1).

    uv run finetune reward --config configs/finetune/smollm2-135m-reward.yaml

The base with a linear head of one output in place of its vocabulary, and LoRA below it, trained with TRL's
RewardTrainer: −log σ(r(chosen) − r(rejected)) (Bradley and Terry 1952). The reward is read at the last token of the
answer. `finetune rl` trains against it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import data, fit, lora
from finetune.cluster import Cluster, Rhythm
from finetune.config import RewardRun
from finetune.fit import Options
from finetune.stage import Stage
from inference.adapters import check_adapter
from inference.chat import stop_ids
from inference.families import Family
from inference.loading import base_identity, load_base, load_tokenizer
from inference.splits import first_turn_id
from runs.console import Reporter
from runs.errors import IntegrityError, UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.scores import Reward

KIND = "reward_model"
"""The manifest's kind; an adapter of a language model is none."""


def run_reward(run: RewardRun, options: Options, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """Train.

    Returns:
        The command's result, for machines and for people.

    Raises:
        Preempted: SIGTERM came; every process saved, and the same command goes on.
        UserError: data, model, device or output folder cannot be used as asked.
    """
    stage = Stage.begin("reward", run, options, reporter)
    identity = stage.identify(stage.inputs)
    if (done := stage.finished(identity)) is not None:
        return done

    examples = whole_texts(data.dpo_examples(run.data, stage.tokenizer))
    examples.show(reporter)
    examples.check(evaluated=run.train.eval_steps is not None)
    shared = fit.share(run, examples, stage.cluster)
    model = load_scored(run, stage.family, device=stage.place)

    def build(work: Path) -> Reward:
        return build_trainer(
            run, model, stage.tokenizer, examples, work,
            public_id=stage.family.base.public_id, cluster=stage.cluster, shared=shared,
        )  # fmt: skip

    return stage.carry_out(identity, examples, build, lambda trainer: _before(trainer, examples))


def whole_texts(pairs: data.Examples) -> data.Examples:
    """Pairs as TRL's reward trainer takes them: prompt and answer as one text, ``chosen_ids`` and ``rejected_ids``."""

    def joined(example: data.Example) -> data.Example:
        columns = example.columns
        sides = {side: columns["prompt_ids"] + columns[side] for side in ("chosen_ids", "rejected_ids")}
        return replace(example, columns=sides)

    train, holdout = ([joined(example) for example in side] for side in (pairs.train, pairs.holdout))
    return replace(pairs, train=train, holdout=holdout)


def fill_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token to pad with, which transformers skips to find a text's last one: never one that ends an answer.

    SmolLM2 pads with its end of turn. Its reward would be read one token early, where a finished answer and one that
    was cut off look alike.

    Raises:
        UserError: every special token ends answers.
    """
    stops = stop_ids(tokenizer)
    for token in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id):
        if token is not None and token not in stops:
            return int(token)
    raise UserError(
        "The tokenizer has no token to pad with that does not end an answer.",
        why="The reward is read at the last token that is no padding.",
        mend="Give the base's tokenizer a pad token or an unknown token of its own.",
    )


def load_scored(run: RewardRun, family: Family, *, device: str) -> PreTrainedModel:
    """The base with a new head of one output, drawn from ``train.seed``."""
    import torch

    torch.manual_seed(run.train.seed)
    return load_base(family, device=device, dtype=run.model.dtype, quantization=run.model.quantization, output="score")


def build_trainer(
    run: RewardRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: data.Examples,
    work: Path,
    *,
    public_id: str,
    cluster: Cluster | None = None,
    shared: Rhythm | None = None,
) -> Reward:
    """TRL's trainer over tokenised pairs; head and adapter are trained."""
    from trl.trainer.reward_config import RewardConfig

    from finetune.scores import Reward

    cluster = cluster or Cluster()
    shared = shared or fit.share(run, examples, cluster)
    arguments = fit.arguments(
        run.train, work, model.device, evaluated=bool(examples.holdout), accumulation=shared.accumulation
    )
    arguments |= {
        "center_rewards_coefficient": run.train.center_rewards_coefficient,
        "disable_dropout": run.lora.dropout == 0.0,
    }
    padding = copy.deepcopy(tokenizer)
    padding.pad_token = padding.convert_ids_to_tokens(fill_id(tokenizer))
    trainer = Reward(
        model=model,
        args=RewardConfig(**arguments),
        train_dataset=data.to_dataset(examples.train),
        eval_dataset=data.sorted_dataset(examples.holdout) if examples.holdout else None,
        processing_class=padding,
        peft_config=lora.lora_config(run.lora, model, scored=True),
    )
    trainer.public_id = public_id
    trainer.prompts = [first_turn_id(example.prompt) for example in data.by_length(examples.holdout)]
    fit.prepare(trainer, run, examples, cluster, shared)
    return trainer


def _before(trainer: Reward, examples: data.Examples) -> dict[str, float]:
    """Held-out numbers of the head as it was drawn: about ln 2 and one half."""
    if not examples.holdout:
        return {}
    found = fit.held_out(trainer)
    names = ("loss", "pairwise_accuracy")
    return {f"eval_{name}_before": found[f"eval_{name}"] for name in names}


class Scorer:
    """A trained reward model.

    Args:
        folder: what `finetune reward` made.
        family: the base that it was trained on.
        device: as in a config's ``model.device``.

    Raises:
        UserError, IntegrityError: there is no such folder, its bytes changed, it belongs to another base, or it is no
            reward model.
    """

    def __init__(self, folder: Path, family: Family, *, device: str = "auto") -> None:
        from peft import PeftModel

        manifest = check_adapter(folder, base_identity=base_identity(family))
        if manifest.kind != KIND:
            raise IntegrityError(
                f"{folder} holds no reward model.",
                why=f"Its manifest says '{manifest.kind}'.",
                mend="Train one: uv run finetune reward --config configs/finetune/smollm2-135m-reward.yaml",
            )
        self.fill = fill_id(load_tokenizer(family))
        base = load_base(family, device=device, output="score")
        base.config.get_text_config().pad_token_id = self.fill
        self.model: PeftModel = PeftModel.from_pretrained(base, str(folder), adapter_name=lora.POLICY).eval()
        self.digest = manifest.files[lora.WEIGHTS].sha256

    def __call__(self, texts: Sequence[list[int]], *, batch_size: int = 8) -> list[float]:
        """The reward of each text, given as token ids (prompt and answer)."""
        from finetune.scores import scores

        return scores(self.model, texts, self.fill, batch_size)
