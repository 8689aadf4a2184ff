"""What ``safety-classifier train --config`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from runs.config import StrictModel
from safety_classifier.data.augment import AugmentConfig
from safety_classifier.data.prepare import DataConfig
from safety_classifier.encoder import EncoderConfig


class ModelSection(StrictModel):
    """The model to train."""

    pretrained: str | None = "all-MiniLM-L6-v2"
    """Encoder to start from: all-MiniLM-L6-v2 (bundled), a folder, or a hub id; null trains from scratch."""
    encoder: EncoderConfig | None = None
    """Shape of an encoder from scratch. With ``pretrained``, the checkpoint's own shape holds."""
    gram_bits: int = Field(18, ge=8, le=24)
    """The wide branch has 2^gram_bits weights per head."""
    max_tokens: int = Field(128, ge=16, le=512)
    """The longest window."""


class TrainSection(StrictModel):
    """How to train."""

    seed: int = 0
    """Initialisation, order, augmentation and dropout."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the rows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, whatever ``epochs`` says."""
    buckets: tuple[int, ...] = (16, 24, 32, 40, 48, 64, 80, 96, 128)
    """Padded lengths, ascending; the last is ``max_tokens``."""
    tokens_per_batch: int = Field(4096, ge=64)
    """Padded tokens a step: a bucket of S tokens holds tokens_per_batch / S rows."""
    accumulate: int = Field(1, ge=1)
    """Steps whose gradients are averaged before one update."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak for the encoder."""
    head_learning_rate: float = Field(1e-3, gt=0)
    """Peak for pooling and heads."""
    wide_learning_rate: float = Field(3e-3, gt=0)
    """Peak for the n-gram weights."""
    warmup_ratio: float = Field(0.06, ge=0, lt=1)
    """Share of the steps with rising rate; a cosine to zero follows."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, on matrices only."""
    wide_weight_decay: float = Field(0.0, ge=0)
    """AdamW's on the n-gram weights."""
    adam_b2: float = Field(0.98, gt=0, lt=1)
    """AdamW's second moment decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Clip the global norm."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On attention and feed-forward outputs."""
    branch_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the rows whose wide branch is dropped, so that the deep branch stands alone as well."""
    preference_weight: float = Field(1.0, ge=0)
    """Weight of the preference loss beside the label loss."""
    augment: AugmentConfig | None = AugmentConfig()
    """Perturbations of the training rows (case, typos, spacing); null switches them off."""
    freeze: tuple[str, ...] = ("encoder.words", "encoder.positions")
    """Arrays (by dotted prefix) that keep their pretrained values; ignored from scratch."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep and evaluate an exponential moving average of the weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder's products; auto is bfloat16 where the hardware has units for it."""
    data_parallel: int | None = Field(None, ge=1)
    """Devices of the mesh; null is all of them."""


class CheckpointSection(StrictModel):
    """What is kept on the way."""

    every: int = Field(200, ge=1)
    """Steps between checkpoints (resume) and validations."""
    keep: int = Field(2, ge=1)
    """Latest checkpoints kept, beside the best."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many validations without a better macro AUPRC."""
    validation_rows: int = Field(4000, ge=16)
    """Rows (and as many pairs at most) of the validation split that each validation reads."""


class TrackSection(StrictModel):
    """Where the curves go."""

    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Trackers; an empty list writes only log.jsonl."""
    profile_steps: tuple[int, int] | None = None
    """Trace these steps with jax.profiler into the run folder."""


class ClassifierRun(StrictModel):
    """A training run of the classifier."""

    output_dir: Path = Path("results/safety_classifier")
    """Where checkpoints, logs and scores go."""
    artifact: Path | None = None
    """Where the finished classifier goes; null writes it to ``output_dir``/artifact."""
    data: DataConfig
    """Sources, licences, splits."""
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    checkpoints: CheckpointSection = CheckpointSection()
    track: TrackSection = TrackSection()
