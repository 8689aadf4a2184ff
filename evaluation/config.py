"""What an evaluation is: models, prompts, decoding, evaluators."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from inference.families import DEFAULT_FAMILY
from inference.records import Sampling
from runs.config import StrictModel
from runs.paths import PROJECT_ROOT

CORE_PROMPTS = PROJECT_ROOT / "evaluation" / "prompts" / "core.jsonl"
"""The prompts that ship: harmful ones, their benign twins, helpfulness, truthfulness, fairness."""


class EvaluationRun(StrictModel):
    """The resolved config of `evaluate run`."""

    models: tuple[str, ...] = ("base", "stage2", "stage3")
    """Checkpoints of the family, in the order of their lineage."""
    family: str = DEFAULT_FAMILY
    """A name under configs/models/, or the path of a family YAML."""
    prompts: Path = CORE_PROMPTS
    """A JSON-lines file of prompts."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate only so many prompts, taken evenly from the file; such a run is stamped as limited."""
    evaluators: tuple[str, ...] | None = None
    """Evaluators by name; None takes all that ship."""
    sampling: Sampling = Field(default_factory=lambda: Sampling(max_new_tokens=96))
    """Decoding, the same for every model; greedy by default."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts decoded together."""
    device: str = "auto"
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the base in fewer bits (bitsandbytes)."""
