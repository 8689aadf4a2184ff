"""How a source's own columns become labels: short lists of rules, written in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from runs.config import StrictModel

Verdict = float | Literal["unknown"]
"""A label, or the statement that the source does not tell."""


class Rule(StrictModel):
    """One step from a row's columns to a label. Rules are tried in order; the first that applies decides."""

    column: str = ""
    """The column that the rule reads; empty for a rule that always applies."""
    values: dict[str, Verdict] = Field(default_factory=dict)
    """Verdicts by the column's value; the rule does not apply to other values."""
    matches: str = ""
    """A regular expression (case-insensitive, searched): the rule applies where it is found in the column."""
    at_least: float | None = None
    """The rule applies where the column, read as a number, is this or more."""
    below: float | None = None
    """The rule applies where the column, read as a number, is less than this."""
    then: Verdict | None = None
    """The verdict of a rule without ``values``."""

    @field_validator("values", mode="before")
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        return {cell(key): verdict for key, verdict in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_condition(self) -> Rule:
        conditions = [bool(self.values), bool(self.matches), self.at_least is not None, self.below is not None]
        if sum(conditions) > 1:
            raise ValueError("a rule has one of 'values', 'matches', 'at_least' and 'below'")
        if any(conditions) != bool(self.column):
            raise ValueError("a rule names a 'column' together with its condition")
        if bool(self.values) == (self.then is not None):
            raise ValueError("a rule has either 'values' or 'then'")
        verdicts = [*self.values.values(), *([] if self.then is None else [self.then])]
        if any(verdict != "unknown" and not 0.0 <= verdict <= 1.0 for verdict in verdicts):
            raise ValueError("a label lies between 0 and 1, or is 'unknown'")
        _compiled(self.matches)
        return self

    def decide(self, row: Mapping[str, Any]) -> Verdict | None:
        """The verdict for ``row``, or None when the rule does not apply.

        Raises:
            KeyError: the row lacks the column.
            ValueError: a threshold meets something that is not a number.
        """
        if not self.column:
            return self.then
        value = row[self.column]
        if self.values:
            return self.values.get(cell(value))
        if self.matches:
            return self.then if _compiled(self.matches).search(cell(value)) else None
        number = float(value)
        applies = number >= self.at_least if self.at_least is not None else number < float(self.below or 0.0)
        return self.then if applies else None


def as_rules(value: Any) -> Any:
    """The short forms of YAML as a list of rules: a bare verdict always applies; one mapping is a list of one."""
    if isinstance(value, int | float | str):
        return [{"then": value}]
    return [value] if isinstance(value, Mapping) else value


def decide(rules: tuple[Rule, ...], row: Mapping[str, Any]) -> Verdict | None:
    """The verdict of the first rule that applies; None when none does."""
    for rule in rules:
        verdict = rule.decide(row)
        if verdict is not None:
            return verdict
    return None


def cell(value: Any) -> str:
    """A column's value as text, alike for CSV, JSON and Parquet: 1.0 is ``1``, nothing is empty."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression: {error}") from error
