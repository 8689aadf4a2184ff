"""The rules find nothing in what ships, and each finds its own fault."""

from __future__ import annotations

import pytest

from launch.checks.quantities import parse_quantity
from launch.checks.rules import RULES, apply
from launch.checks.tree import Tree, matches
from tests.launch.mutants import MUTANTS
from tests.launch.overlays import SHIPPED, documents


@pytest.mark.parametrize("overlay", [*SHIPPED, "everything"])
def test_nothing_is_wrong_with_what_ships(overlay):
    assert [str(finding) for finding in apply(Tree(documents(overlay)))] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule}: {mutant.fault}")
def test_a_fault_is_seen_by_the_rule_that_is_named_for_it(mutant):
    broken = documents(mutant.overlay)
    mutant.change(broken)
    found = apply(Tree(broken), [mutant.rule])
    assert found
    assert {finding.rule for finding in found} == {mutant.rule}


def test_every_rule_has_a_mutant():
    assert set(RULES) == {mutant.rule for mutant in MUTANTS}


def test_every_rule_says_what_it_is_for():
    assert all((function.__doc__ or "").endswith(".") for function in RULES.values())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16Gi", 2**34),
        ("500m", 0.5),
        ("1e3", 1000),
        (4, 4),
        ("1E", 10**18),
        ("16GiB", None),
        ("5 Gi", None),
        ("", None),
    ],
)
def test_quantities(text, number):
    found = parse_quantity(text)
    assert (found if found is None else float(found)) == number


@pytest.mark.parametrize(
    ("expression", "matched"),
    [
        ({"key": "a", "operator": "In", "values": ["1"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "b", "operator": "DoesNotExist"}, True),
    ],
)
def test_label_expressions(expression, matched):
    assert matches({"matchExpressions": [expression]}, {"a": "1"}) is matched
