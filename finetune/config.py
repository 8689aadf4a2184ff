"""What a training run is asked to do: every section, every key, and the contradictions that are refused.

Keys under ``train`` have TRL's and transformers' own names and meanings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from inference.corpora import Source
from inference.families import DtypeName
from inference.loading import Quantization
from runs.config import StrictModel

LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The seven linear modules of a Llama or Gemma block."""

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "sft",
    "sigmoid_norm",
    "kto",
    "orpo",
]
ALONE = ("kto", "orpo")
"""Losses of their own trainers, which are not added to others."""


class ModelSection(StrictModel):
    """How the base is loaded."""

    dtype: DtypeName | None = None
    """What the base is computed in; null takes the family's."""
    quantization: Quantization | None = None
    """Load the frozen base in 4 or 8 bits (QLoRA); the adapter stays in full precision."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""


class LoraSection(StrictModel):
    """The adapter (Hu et al. 2021, LoRA): W + alpha/r · B·A on each target module."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: int = Field(default=32, ge=1)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Dropout on the adapter's input."""
    target_modules: tuple[str, ...] = Field(default=LINEAR_MODULES, min_length=1)
    """Last part of the names of the linear modules that get an adapter."""


class DataSource(Source):
    """A dataset among others."""

    field: str | None = None
    """The column that stands for ``data.field`` in this dataset; null: it has the same name."""
    max_rows: int | None = Field(default=None, ge=1)
    """Use at most so many of its rows, drawn by hash: the mixture's proportions."""


class DataSection(StrictModel):
    """Which rows are read, and which of them are held out."""

    sources: tuple[DataSource, ...] = Field(min_length=1)
    """Datasets, whose rows are mixed."""
    max_rows: int | None = Field(default=None, ge=1)
    """Rows to train on; null takes all. They are drawn by hash, not from the top of the file."""
    max_tokens: int = Field(default=512, ge=8)
    """Longest example, in tokens."""
    holdout_fraction: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Share of PROMPTS (by hash of the first user turn) that is never trained on."""
    max_holdout_rows: int = Field(default=64, ge=1)
    """Cap on held-out rows that are evaluated; the rest of the held-out prompts is left out altogether."""
    seed: int = 0
    """Orders the rows. It does not move prompts across the split, which is the same in every stage."""

    @model_validator(mode="after")
    def _columns_can_be_renamed(self) -> DataSection:
        if "field" not in type(self).model_fields and any(source.field is not None for source in self.sources):
            raise ValueError("sources: 'field' names a conversation's column; pairs have prompt, chosen and rejected")
        return self


class SFTData(DataSection):
    """Conversations."""

    field: str = "messages"
    """Column with the conversation: a message list, or an hh-rlhf transcript (``Human: … Assistant: …``)."""


class DPOData(DataSection):
    """Preference pairs: columns ``prompt``, ``chosen`` and ``rejected``; optionally ``label_prob`` and ``accepted``."""

    min_label_prob: float = Field(default=0.5, ge=0.0, le=1.0)
    """Pairs whose ``label_prob`` (how sure the labeller is) is lower are left out."""
    default_label_prob: float | None = Field(default=None, ge=0.0, le=1.0)
    """For ``train.soft_labels``: the label of pairs that nobody judged; null leaves them out."""
    max_rejected_tokens: int | None = Field(default=None, ge=4)
    """Rejected answers are cut there, without an end. With ``train.ld_alpha: 0`` the openings alone decide a pair."""


class TrainSection(StrictModel):
    """The optimiser and its rhythm."""

    learning_rate: float = Field(gt=0.0)
    """Peak learning rate of AdamW."""
    num_train_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the training rows."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimiser steps; -1 lets ``num_train_epochs`` decide."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Rows (or pairs) in one forward pass."""
    per_device_eval_batch_size: int = Field(default=8, ge=1)
    """Rows (or pairs) in one forward pass of the evaluation."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Forward passes per optimiser step."""
    global_batch_size: int | None = Field(default=None, ge=1)
    """Rows (or pairs) of one optimiser step over all processes; ``gradient_accumulation_steps`` follows from it, so
    that one process and many train alike. Null: per_device_train_batch_size times accumulation times processes."""
    fsdp: bool = False
    """With several processes: cut base and optimiser into parts (FSDP2), where one GPU cannot hold the base. False:
    each process holds all of it (DDP)."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over the run."""
    warmup_steps: float = Field(default=0.0, ge=0.0)
    """Steps of linear warm-up; below 1 it is a share of all steps."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Gradients are clipped to this norm; 0 turns clipping off."""
    train_sampling_strategy: Literal["group_by_length", "random"] = "group_by_length"
    """``group_by_length`` puts rows of like length together, which saves padding."""
    logging_steps: int = Field(default=5, ge=1)
    """Steps between lines of train_log.jsonl."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the held-out rows; null evaluates only at the end."""
    save_steps: int = Field(default=50, ge=1)
    """Steps between checkpoints: what a killed run can lose."""
    save_total_limit: int = Field(default=2, ge=1)
    """Checkpoints kept while training (the best one comes on top)."""
    load_best_model_at_end: bool = False
    """Keep the checkpoint with the lowest held-out loss, not the last one."""
    seed: int = 0
    """Seeds the adapter's initial weights, the dropout and the row order."""
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Where metrics are sent besides train_log.jsonl."""
    bf16: bool = False
    """bfloat16 autocast. float16 is not offered: Gemma overflows in it."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a fifth slower."""

    @model_validator(mode="before")
    @classmethod
    def _no_fp16(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("fp16"):
            raise ValueError("fp16 is not offered: Gemma overflows in it, and LoRA has no need of it; set bf16 instead")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        if self.global_batch_size is not None and self.gradient_accumulation_steps != 1:
            raise ValueError("gradient_accumulation_steps follows from global_batch_size; set only one of them")
        if self.save_steps % self.logging_steps:
            raise ValueError(
                f"save_steps ({self.save_steps}) must be a multiple of logging_steps ({self.logging_steps}), "
                "so that a resumed run logs what an uninterrupted one does"
            )
        if self.load_best_model_at_end and self.eval_steps is None:
            raise ValueError("load_best_model_at_end needs eval_steps: without evaluations no checkpoint is the best")
        if self.load_best_model_at_end and self.eval_steps and self.eval_steps % self.save_steps:
            raise ValueError(
                f"load_best_model_at_end needs eval_steps ({self.eval_steps}) to be a multiple of "
                f"save_steps ({self.save_steps}): only a checkpoint that was saved can be kept"
            )
        return self


class DPOTrainSection(TrainSection):
    """As `TrainSection`, with DPO's own terms (Rafailov et al. 2023)."""

    beta: float = Field(default=0.1, gt=0.0)
    """Strength of the pull to the reference: the reward is beta · log(policy / reference)."""
    loss_type: tuple[LossType, ...] = Field(default=("sigmoid",), min_length=1)
    """Losses that are added up; ``sft`` is the log-likelihood of the chosen answer, which keeps it from falling."""
    loss_weights: tuple[float, ...] | None = None
    """Weight of each loss; null means 1 each."""
    ld_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    """Weight of what an answer has beyond the length of the other one (LD-DPO, Liu et al. 2024); null: 1.
    At 0 a pair is decided by the first tokens of both; ``sft`` still sees the whole chosen answer."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of labels taken to be flipped. Only ``robust`` reads it: TRL ignores it for ``sigmoid``."""
    soft_labels: bool = False
    """The ``sigmoid`` loss takes each pair's ``label_prob`` as its label (`finetune.losses.soft_sigmoid`)."""
    desirable_weight: float = Field(default=1.0, gt=0.0)
    """KTO: weight of the chosen answers."""
    undesirable_weight: float = Field(default=1.0, gt=0.0)
    """KTO: weight of the rejected answers."""
    precompute_ref_log_probs: bool | Literal["auto"] = "auto"
    """Run the reference once before training. ``auto``: when there is more than one epoch, where it saves time."""

    @model_validator(mode="after")
    def _losses(self) -> DPOTrainSection:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} entries for {len(self.loss_type)} losses")
        if len(set(self.loss_type)) != len(self.loss_type):
            raise ValueError("loss_type names a loss twice")
        if set(self.loss_type) == {"sft"}:
            raise ValueError("loss_type has only 'sft', which ignores the rejected answers; use `finetune sft`")
        for name in ALONE:
            if name in self.loss_type and (len(self.loss_type) > 1 or self.loss_weights is not None):
                raise ValueError(f"loss_type '{name}' stands alone and has no loss_weights")
        if self.soft_labels and "sigmoid" not in self.loss_type:
            raise ValueError("soft_labels acts only in the 'sigmoid' loss; add it to loss_type, or set false")
        if self.ld_alpha is not None and (self.soft_labels or not set(ALONE).isdisjoint(self.loss_type)):
            raise ValueError(f"ld_alpha acts neither with soft_labels nor in the losses {', '.join(ALONE)}; set null")
        if "kto" not in self.loss_type and (self.desirable_weight, self.undesirable_weight) != (1.0, 1.0):
            raise ValueError("desirable_weight and undesirable_weight act only in the 'kto' loss")
        if "kto" in self.loss_type and (self.per_device_train_batch_size % 2 or self.per_device_train_batch_size < 4):
            raise ValueError(
                "the 'kto' loss needs an even per_device_train_batch_size of at least 4 answers: "
                "it estimates the KL from answers under each other's prompts"
            )
        if "orpo" in self.loss_type and self.precompute_ref_log_probs is True:
            raise ValueError("the 'orpo' loss has no reference; set precompute_ref_log_probs to auto or false")
        if self.label_smoothing and "robust" not in self.loss_type:
            raise ValueError("label_smoothing acts only in the 'robust' loss; add it to loss_type, or set 0")
        return self


class MonitorSection(StrictModel):
    """What is watched on held-out pairs at every evaluation, against the state before the first step.

    DPO's loss can fall while the model gets worse: the chosen answers become less likely (only less slowly than the
    rejected ones), answers repeat themselves or shrink.
    """

    action: Literal["warn", "stop"] = "warn"
    """Say so, or stop with a checkpoint; the manifest keeps it either way."""
    chosen_logp_fall: float | None = Field(default=0.2, gt=0.0)
    """Alarm when the chosen answers' log-probability falls by this, in nats a token; null: not watched."""
    repetition_rise: float | None = Field(default=0.1, gt=0.0)
    """Alarm when the share of repeated 4-grams in sampled answers rises by this; null: not watched."""
    length_fall: float | None = Field(default=0.5, gt=0.0, lt=1.0)
    """Alarm when sampled answers are shorter by this share; null: not watched."""
    prompts: int = Field(default=16, ge=0)
    """Held-out prompts that are answered; 0 samples nothing."""
    max_new_tokens: int = Field(default=64, ge=8)
    """Length of a sampled answer at most, in tokens."""
    temperature: float = Field(default=0.7, ge=0.0)
    """Of the sampling, which is seeded by prompt; 0 is greedy."""


class _Run(StrictModel):
    """What all runs share."""

    family: str
    """Base model: a name under configs/models, or a YAML file like those."""
    output_dir: Path
    """Folder of the finished adapter. Checkpoints live in its hidden ``.work`` until then."""
    model: ModelSection = ModelSection()
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop when this many evaluations in a row did not lower the held-out loss; null never stops early."""

    def _check(self, train: TrainSection, data: DataSection) -> None:
        if self.early_stopping_patience is not None and train.eval_steps is None:
            raise ValueError("early_stopping_patience needs train.eval_steps")
        if train.eval_steps is not None and data.holdout_fraction == 0.0:
            raise ValueError("train.eval_steps needs held-out rows: set data.holdout_fraction above 0")
        if self.model.dtype == "float16":
            raise ValueError("model.dtype float16 overflows when training; use bfloat16 or float32")


class SFTRun(_Run):
    """`finetune sft`: supervised fine-tuning of a LoRA adapter on every assistant turn."""

    lora: LoraSection = LoraSection()
    data: SFTData
    train: TrainSection

    @model_validator(mode="after")
    def _consistent(self) -> SFTRun:
        self._check(self.train, self.data)
        return self


class DPORun(_Run):
    """`finetune dpo`: preference tuning of an SFT adapter against a frozen copy of itself."""

    init_adapter: str | None = "stage2"
    """Where training starts and what it is held to: a checkpoint of the family, a folder, or null for the bare base."""
    interpolation: float = Field(default=1.0, gt=0.0, le=1.0)
    """How far the finished adapter stands on the way from ``init_adapter`` to the trained weights (WiSE-FT, Wortsman et
    al. 2022, §3): below 1 it gives back some of what was learnt for more of what it cost. 1: the trained weights."""
    lora: LoraSection | None = None
    """Only with ``init_adapter: null``: the shape of the new adapter. Otherwise it is the init_adapter's own."""
    data: DPOData
    train: DPOTrainSection
    monitors: MonitorSection | None = None
    """What is watched at every evaluation; null watches nothing."""

    @model_validator(mode="after")
    def _consistent(self) -> DPORun:
        self._check(self.train, self.data)
        if self.monitors is not None and self.train.eval_steps is None:
            raise ValueError("monitors need train.eval_steps")
        if self.monitors is not None and self.monitors.prompts and self.train.fsdp:
            raise ValueError("answers are not sampled while FSDP holds the weights in parts: set monitors.prompts to 0")
        if self.data.default_label_prob is not None and not self.train.soft_labels:
            raise ValueError("data.default_label_prob is read only with train.soft_labels")
        if self.init_adapter is not None and self.lora is not None:
            raise ValueError("lora is the init_adapter's own; leave the section out, or set init_adapter to null")
        if self.init_adapter is None and self.interpolation < 1.0:
            raise ValueError("interpolation is the way from init_adapter, which is null; name one, or set 1")
        return self


class RewardTrainSection(TrainSection):
    """As `TrainSection`, with the reward trainer's own term."""

    center_rewards_coefficient: float | None = Field(default=None, gt=0.0)
    """Adds this times (r(chosen) + r(rejected))² to the loss, which keeps rewards near 0 (Eisenstein et al. 2023)."""


class RewardRun(_Run):
    """`finetune reward`: a reward model on preference pairs."""

    lora: LoraSection = LoraSection()
    data: DPOData
    train: RewardTrainSection

    @model_validator(mode="after")
    def _consistent(self) -> RewardRun:
        self._check(self.train, self.data)
        if self.train.fsdp:
            raise ValueError("a reward model is not trained under FSDP: its head is whole in every process (DDP)")
        if self.data.default_label_prob is not None:
            raise ValueError("a reward model's loss has no soft labels; leave data.default_label_prob out")
        return self


class RewardTerm(StrictModel):
    """A part of the reward: exactly one of ``model`` and ``evaluator``."""

    model: str | None = None
    """Folder of a reward model."""
    evaluator: str | None = None
    """Name of an evaluator (`uv run evaluate` lists them); its values are in [0, 1]."""
    weight: float = 1.0
    """Multiplies its value."""

    @model_validator(mode="after")
    def _one(self) -> RewardTerm:
        if (self.model is None) == (self.evaluator is None):
            raise ValueError("name exactly one of 'model' and 'evaluator'")
        return self


class RLData(DataSection):
    """Prompts: a column ``prompt`` (text or messages) or ``messages``, or the start of a transcript in ``field``."""

    field: str = "prompt"
    """Column with the prompt; of a whole conversation, what stands before the last answer."""
    expected: str = "answer"
    """What evaluators expect of the answers where a row does not say: ``answer`` or ``refuse``."""
    max_holdout_rows: int = Field(default=32, ge=1)
    """Held-out prompts that are answered at every evaluation."""


class RLTrainSection(TrainSection):
    """As `TrainSection`; a row is an answer. With the algorithm's own terms."""

    algorithm: Literal["rloo", "grpo"] = "rloo"
    """RLOO (Ahmadian et al. 2024) takes the KL from the reward, GRPO (Shao et al. 2024) adds it to the loss."""
    beta: float = Field(default=0.05, gt=0.0)
    """Price of leaving the reference, for each nat of KL."""
    num_generations: int = Field(default=4, ge=2)
    """Answers to one prompt, which are compared with each other."""
    max_completion_length: int = Field(default=128, ge=8)
    """Tokens of an answer at most."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Of the sampling."""


class HackingSection(StrictModel):
    """What is watched on answers to held-out prompts at every evaluation, against the state before the first step."""

    action: Literal["warn", "stop"] = "warn"
    """Say so, or stop with a checkpoint; the manifest keeps it either way."""
    length_change: float | None = Field(default=0.5, gt=0.0, lt=1.0)
    """Alarm when answers are shorter or longer by this share; null: not watched."""
    repetition_rise: float | None = Field(default=0.1, gt=0.0)
    """Alarm when the share of repeated 4-grams rises by this; null: not watched."""
    kl: float | None = Field(default=0.5, gt=0.0)
    """Alarm above this KL to the reference, in nats a token; null: not watched."""
    watched_fall: float | None = Field(default=0.1, gt=0.0)
    """Alarm when a watched evaluator falls by this while the reward is above its start; null: not watched."""


class RLRun(_Run):
    """`finetune rl`: reinforcement learning against reward models and evaluators."""

    init_adapter: str | None = "stage2"
    """Where training starts and what it is held to: a checkpoint of the family, a folder, or null for the bare base."""
    lora: LoraSection | None = None
    """Only with ``init_adapter: null``: the shape of the new adapter. Otherwise it is the init_adapter's own."""
    rewards: tuple[RewardTerm, ...] = Field(min_length=1)
    """What is rewarded: the weighted sum."""
    watched: tuple[str, ...] = ()
    """Evaluators that are measured and not rewarded."""
    data: RLData
    train: RLTrainSection
    monitors: HackingSection | None = HackingSection()
    """What is watched at every evaluation; null watches nothing."""

    @model_validator(mode="after")
    def _consistent(self) -> RLRun:
        self._check(self.train, self.data)
        train = self.train
        if self.init_adapter is not None and self.lora is not None:
            raise ValueError("lora is the init_adapter's own; leave the section out, or set init_adapter to null")
        if self.early_stopping_patience is not None or train.load_best_model_at_end:
            raise ValueError(
                "there is no held-out loss in RL: early_stopping_patience and load_best_model_at_end are off"
            )
        if train.fsdp or train.global_batch_size is not None:
            raise ValueError("`finetune rl` trains in one process: leave train.fsdp and train.global_batch_size out")
        answers = train.per_device_train_batch_size * train.gradient_accumulation_steps
        if answers % train.num_generations:
            raise ValueError(f"a step's {answers} answers are no multiple of num_generations ({train.num_generations})")
        both = {term.evaluator for term in self.rewards} & set(self.watched)
        if both:
            raise ValueError(f"{sorted(str(name) for name in both)} cannot be both rewarded and watched")
        if self.monitors is not None and train.eval_steps is None:
            raise ValueError("monitors need train.eval_steps")
        return self
