"""The register of data sources: where each is, under which licence, and how its columns become labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from runs.config import StrictModel, load
from runs.errors import UsageError, unknown_name
from runs.paths import shown
from safety_classifier.data.rules import Rule, as_rules
from safety_classifier.labels import LABELS

Format = Literal["csv", "tsv", "json", "jsonl", "parquet", "txt"]

CATEGORIES = "categories"
"""In ``labels``: stands for every harm category; a category that is named beside it keeps its own rules."""


class TestRows(StrictModel):
    """The rows that a source's authors set aside for testing."""

    __test__ = False  # not a test class

    column: str
    values: tuple[str, ...]


class Source(StrictModel):
    """One data source. The keys are explained in ``configs/safety_classifier/sources.yaml``."""

    name: str
    reader: str = "table"
    builtin: Literal["synthetic"] | None = None
    hub: str | None = None
    data_dir: str | None = None
    split: str = "train"
    revision: str = "main"
    path: tuple[str, ...] = ()
    format: Format | None = None
    comment: str = ""
    separator: str = ""
    text: tuple[str, ...] = ("text",)
    context: str | None = None
    group: str | None = None
    namespace: str = ""
    html: bool = False
    labels: dict[str, tuple[Rule, ...]] = Field(default_factory=dict)
    preference: str | None = None
    test_rows: TestRows | None = None
    licence: str
    ships: bool
    weight: float = Field(default=1.0, gt=0.0)
    limit: int | None = Field(default=None, gt=0)
    keep_near_duplicates: bool = False

    @field_validator("path", "text", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        rules = {str(name): as_rules(rule) for name, rule in value.items()}
        whole = rules.pop(CATEGORIES, None)
        return rules if whole is None else {**dict.fromkeys(LABELS.categories, whole), **rules}

    @model_validator(mode="after")
    def _is_complete(self) -> Source:
        if self.builtin is None:
            if self.hub is None and not self.path:
                raise ValueError(f"source '{self.name}' needs a 'hub' dataset, a 'path', or both")
            if self.path and self.format is None:
                raise ValueError(f"source '{self.name}' has a 'path' and no 'format'")
            if bool(self.labels) == (self.preference is not None):
                raise ValueError(f"source '{self.name}' needs either 'labels' or 'preference'")
        if self.format == "txt" and not self.separator:
            raise ValueError(f"source '{self.name}' is text and needs a 'separator'")
        return self

    @property
    def group_space(self) -> str:
        """Sources that share it share groups: equal group values are then one group."""
        return self.namespace or self.name


class SourceList(StrictModel):
    """The file of sources."""

    schema_version: Literal[1]
    sources: tuple[Source, ...]


def load_sources(path: Path) -> tuple[Source, ...]:
    """Read the register.

    Raises:
        UsageError: the file is not valid, a name stands twice, or a head or reader is not known; it is named.
    """
    from safety_classifier.data.readers import READERS

    sources = load(SourceList, path).sources
    seen: set[str] = set()
    for source in sources:
        where = f"{shown(path)}, source '{source.name}'"
        if source.name in seen:
            raise UsageError(f"{where} is declared twice.")
        seen.add(source.name)
        if source.builtin is None and source.reader not in READERS:
            _raise(unknown_name("reader", source.reader, READERS), where)
        for head in source.labels:
            if head not in LABELS.names:
                _raise(unknown_name("label", head, (*LABELS.names, CATEGORIES)), where)
            if head in LABELS.of("preference"):
                raise UsageError(f"{where}: '{head}' is trained on pairs.", mend=f"Write: preference: {head}")
        if source.preference is not None and source.preference not in LABELS.of("preference"):
            _raise(unknown_name("preference", source.preference, LABELS.of("preference")), where)
    return sources


def _raise(error: UsageError, where: str) -> None:
    raise UsageError(f"{where}: {error.what}", mend=error.mend)
