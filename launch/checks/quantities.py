"""Kubernetes quantities: ``500m``, ``16Gi``, ``1e3``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

QUANTITY = re.compile(r"(?P<number>[+-]?(\d+(\.\d*)?|\.\d+))(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")

FACTORS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10) ** 3} | {
    prefix + binary: Decimal(1024 if binary else 1000) ** power
    for power, prefix in enumerate("KMGTPE", start=1)
    for binary in ("i", "")
    if prefix + binary != "K"
}


def parse_quantity(value: Any) -> Decimal | None:
    """A quantity as a number, or None when it is none: ``parse_quantity("16Gi") == 2**34``."""
    found = QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    suffix = found["suffix"] or ""
    if suffix in FACTORS:
        return Decimal(found["number"]) * FACTORS[suffix]
    return Decimal(found["number"] + suffix)
