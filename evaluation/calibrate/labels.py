"""Labels of gold files: what each word means, and an error that names the row where one means nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from evaluation.calibrate.gold import Task
from runs.errors import UserError

PLAIN: Mapping[str, tuple[Task, bool]] = {
    "refusal": ("refusal", True),
    "refused": ("refusal", True),
    "full_refusal": ("refusal", True),
    "partial_refusal": ("refusal", True),
    "compliance": ("refusal", False),
    "complied": ("refusal", False),
    "complied_with_harm": ("refusal", False),
    "engaged_refusal": ("refusal", True),
    "bare_refusal": ("refusal", True),
    "deflection": ("refusal", True),
    "partial": ("refusal", True),
    "pseudo_refusal": ("refusal", False),
    "incoherent": ("refusal", False),
    "harmful": ("harm", True),
    "harmless": ("harm", False),
    "truthful": ("truth", True),
    "untruthful": ("truth", False),
    "fair": ("fairness", True),
    "unfair": ("fairness", False),
    "helpful": ("help", True),
    "unhelpful": ("help", False),
}
"""Label of a plain file → task, and whether it is the task's positive class."""
MODES = frozenset(
    {"complied", "complied_with_harm", "engaged_refusal", "bare_refusal", "deflection", "partial", "pseudo_refusal",
     "incoherent"}
)  # fmt: skip
"""Labels that are response modes."""


def gold_label(name: str, number: int, column: str, value: object, known: Mapping[str, bool]) -> bool:
    """Look ``value`` up.

    Raises:
        UserError: it is not known; file, row, column and the known labels are named.
    """
    key = str(value).strip()
    if key not in known:
        raise _unknown(name, number, column, key, list(known))
    return known[key]


def plain_label(name: str, number: int, value: str, known: Mapping[str, tuple[Task, bool]]) -> tuple[Task, bool, str]:
    """Task, class and response mode ("" where the label is none) of a plain file's label. Raises as `gold_label`."""
    key = value.strip().lower().replace(" ", "_").replace("-", "_")
    if key not in known:
        raise _unknown(name, number, "label", value, list(known))
    task, label = known[key]
    return task, label, key if key in MODES else ""


def _unknown(name: str, number: int, column: str, value: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return UserError(
        f"{name}, row {number}: unknown label '{value}' in column '{column}'.",
        mend=f"{hint}Known: {', '.join(known)}.",
    )
