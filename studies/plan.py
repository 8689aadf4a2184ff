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
    """What the filters left of a generation, or exported pairs that are there already."""

    run: str | None = None
    """A name under ``runs``."""
    set: tuple[str, ...] = ()
    """``filters.KEY=VALUE`` overrides."""
    file: Path | None = None
    """Instead of ``run``: the rows of an export."""
    licence: str
    """Of the rows; for the model cards."""

    @model_validator(mode="after")
    def _one_origin(self) -> PairSet:
        if (self.run is None) == (self.file is None):
            raise ValueError("name either 'run' or 'file'")
        return self


class Variant(StrictModel):
    """A checkpoint: the study's training, or an adapter that is there already."""

    pairs: tuple[str, ...] = ()
    """Names under ``pairs``; their rows are trained on together. Empty: the sources of the training config."""
    set: tuple[str, ...] = ()
    """Overrides of the training config."""
    adapter: Path | None = None
    """Instead of training: the folder of a finished adapter."""
    about: str = ""
    """Its line in the table."""
    group: str | None = None
    """Variants of one group differ in their seed alone; a table has them in one row."""

    @model_validator(mode="after")
    def _one_origin(self) -> Variant:
        if self.adapter is not None and (self.pairs or self.set):
            raise ValueError("an 'adapter' is finished: it takes neither 'pairs' nor 'set'")
        return self


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
    limit: int | None = Field(default=None, ge=1)
    """Only so many of the prompts, taken evenly from the file."""
    max_new_tokens: int = Field(default=96, ge=1)
    output_dir: Path
    runs: dict[str, Generation] = Field(default_factory=dict)
    pairs: dict[str, PairSet] = Field(default_factory=dict)
    variants: dict[str, Variant] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> Study:
        for name, pairs in self.pairs.items():
            if pairs.run is not None and pairs.run not in self.runs:
                raise ValueError(f"pairs.{name}.run: {unknown_name('run', pairs.run, self.runs).what}")
        for name, variant in self.variants.items():
            if name in ("base", self.init):
                raise ValueError(f"variants.{name}: the name is taken")
            for part in variant.pairs:
                if part not in self.pairs:
                    raise ValueError(f"variants.{name}.pairs: {unknown_name('pairs', part, self.pairs).what}")
        return self
