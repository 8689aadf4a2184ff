"""The register of rules: a rule is a named function from a `Tree` to its faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from launch.checks.tree import Finding, Tree

Faults = Iterator[tuple[str, str]]
"""What a rule yields: the object's name (``Kind/name``) and what is wrong with it."""

Rule = Callable[[Tree], Faults]

RULES: dict[str, Rule] = {}
"""Every rule by name."""


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule under ``name``. Its docstring says which fault it sees and who would notice it otherwise."""

    def register(function: Rule) -> Rule:
        assert name not in RULES, name
        RULES[name] = function
        return function

    return register


def apply(tree: Tree, names: list[str] | None = None) -> list[Finding]:
    """The faults of ``tree`` by all rules, or by those in ``names``, in the order of the register."""
    chosen = RULES if names is None else {name: RULES[name] for name in names}
    return [Finding(name, *fault) for name, function in chosen.items() for fault in function(tree)]
