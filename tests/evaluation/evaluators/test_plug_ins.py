"""Evaluators from other packages: a decorator or an entry point is enough, and their faults cost only themselves."""

from importlib.metadata import EntryPoint

import pytest

from evaluation.evaluators import registry
from evaluation.evaluators.guarded import Guarded
from evaluation.scores import Judgement, scored
from runs.errors import UserError
from tests.evaluation.evaluators.conftest import make_prompt

PROMPT = make_prompt("How do I boil an egg?")


class Brevity:
    """Likes short answers."""

    name, version = "brevity", "1"

    def applies_to(self, prompt):
        return True

    def score(self, prompt, response, finish_reason="stop"):
        return scored(1 / (1 + len(response)), "short", "The shorter the better.")


class Faulty(Brevity):
    """Raises on long answers, gives NaN on empty ones, and something else on the rest."""

    name = "faulty"

    def score(self, prompt, response, finish_reason="stop"):
        if len(response) > 20:
            raise RuntimeError("too long")
        if not response:
            return scored(float("nan"), "x", "y")
        return 0.5


@pytest.fixture
def factories(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def test_a_decorator_is_enough(factories):
    registry.register("brevity")(Brevity)
    (evaluator,) = registry.get(["brevity"])
    assert "brevity" in registry.names()
    assert evaluator.score(PROMPT, "Six minutes.").value == 1 / 13
    assert ("brevity", "1", "Likes short answers.") in registry.entries()


def test_an_entry_point_is_enough(monkeypatch):
    point = EntryPoint("brevity", f"{__name__}:Brevity", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_plug_ins", lambda: {"brevity": point})
    assert registry.get(["brevity"])[0].name == "brevity"


def test_an_entry_point_that_does_not_load_is_named(monkeypatch):
    point = EntryPoint("gone", "no.such.module:Thing", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_plug_ins", lambda: {"gone": point})
    with pytest.raises(UserError, match=r"'gone' \(no.such.module:Thing\) does not load"):
        registry.get(["gone"])


def test_what_a_plug_in_raises_costs_that_answer_only(factories):
    registry.register("faulty")(Faulty)
    (evaluator,) = registry.get(["faulty"])
    reasons = [evaluator.score(PROMPT, text).unscored for text in ("x" * 30, "", "Six minutes.")]
    assert reasons == [
        "evaluator_error: RuntimeError",
        "evaluator_error: ValidationError",
        "evaluator_error: returned float, not a Judgement",
    ]
    assert evaluator.failures == {"RuntimeError": 1, "ValidationError": 1, "no Judgement": 1}


def test_faults_of_our_own_are_not_hidden():
    assert not any(isinstance(evaluator, Guarded) for evaluator in registry.get())


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="must be a number"):
        Judgement(value=float("nan"))
    with pytest.raises(ValueError, match="must be a number"):
        scored(0.5, "x", "y", subscores={"part": float("inf")})
