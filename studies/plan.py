"""The plan of a study: configs/studies/*.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from runs.config import StrictModel
from runs.errors import unknown_name


class Generation(StrictModel):
    """A run of `critique-revision generate`."""

    config: Path
    set: tuple[str, ...] = ()
    """``KEY=VALUE`` overrides."""


class PairSet(StrictModel):
    """What the filters left of a generation."""

    run: str
    """A name under ``runs``."""
    set: tuple[str, ...] = ()
    """``filters.KEY=VALUE`` overrides."""


class Variant(StrictModel):
    """A checkpoint: the study's training on some pairs."""

    pairs: tuple[str, ...] = Field(min_length=1)
    """Names under ``pairs``; their rows are trained on together."""
    set: tuple[str, ...] = ()
    """Overrides of the training config."""
    about: str = ""
    """Its line in the table; its name where empty."""
    group: str | None = None
    """Variants of one group differ in their seed alone; a table has them in one row."""


class Study(StrictModel):
    """Variants of data and training, each measured on the same prompts."""

    schema_version: Literal[1] = 1
    title: str
    family: Path
    """YAML of the family; its ``init`` checkpoint is where every variant starts."""
    init: str = "stage2"
    train: Path
    """Config of `finetune dpo`; data, start and folder are the study's."""
    set: tuple[str, ...] = ()
    """Overrides of the training config for every variant."""
    prompts: Path
    max_new_tokens: int = Field(default=96, ge=1)
    output_dir: Path
    runs: dict[str, Generation]
    pairs: dict[str, PairSet]
    variants: dict[str, Variant] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> Study:
        for name, pairs in self.pairs.items():
            if pairs.run not in self.runs:
                raise ValueError(f"pairs.{name}.run: {unknown_name('run', pairs.run, self.runs).what}")
        for name, variant in self.variants.items():
            if name in ("base", self.init):
                raise ValueError(f"variants.{name}: the name is taken")
            for part in variant.pairs:
                if part not in self.pairs:
                    raise ValueError(f"variants.{name}.pairs: {unknown_name('pairs', part, self.pairs).what}")
        return self
