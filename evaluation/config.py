"""What an evaluation is: models, prompts, decoding, evaluators."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from inference.families import DEFAULT_FAMILY
from inference.records import Sampling
from runs.config import StrictModel
from runs.paths import CONFIGS, PROJECT_ROOT

CORE_PROMPTS = PROJECT_ROOT / "evaluation" / "prompts" / "core.jsonl"
"""The prompts that ship: harmful ones, their benign twins, helpfulness, truthfulness, fairness."""

CONSTITUTION = CONFIGS / "constitutions" / "default.yaml"
"""Whose principles the shipped prompts name."""


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
    shard: str | None = Field(default=None, pattern=r"^\d+/\d+$")
    """``INDEX/COUNT``, the index from 0: only that part of the prompts. `evaluate score` merges the parts into what
    one machine would have written, byte for byte."""
    constitution: Path | None = None
    """Whose principles the prompts name: the axis of the report by principle; None takes the default one."""
    benchmarks: tuple[str, ...] = ()
    """lm-eval tasks, groups or tags to run on the same loaded models."""
    benchmarks_path: Path | None = None
    """A folder of YAML tasks that come before lm-eval's own (configs/evaluation/benchmarks/)."""
    benchmark_limit: int | None = Field(default=None, ge=1)
    """Questions a task; None is all."""

    @property
    def constitution_file(self) -> Path:
        """The constitution to read."""
        return self.constitution or CONSTITUTION

    @model_validator(mode="after")
    def _shard_exists(self) -> EvaluationRun:
        if self.shard is not None:
            index, count = map(int, self.shard.split("/"))
            if index >= count:
                raise ValueError(f"shard {self.shard}: the index starts at 0 and must be below {count}")
        return self
