"""What an evaluation does; ``configs/safety_classifier/evaluate.yaml`` explains every key."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from runs.config import StrictModel
from safety_classifier.evaluation.attacks import ATTACKS
from safety_classifier.evaluation.baselines import BASELINES
from safety_classifier.evaluation.suites import SUITES


class SuiteFile(StrictModel):
    """A suite and where its file lies."""

    suite: str
    path: Path

    @model_validator(mode="after")
    def _known(self) -> SuiteFile:
        if self.suite not in SUITES:
            raise ValueError(f"there is no suite '{self.suite}'; known: {', '.join(sorted(SUITES))}")
        return self


class Goal(StrictModel):
    """A bar that a figure must reach."""

    figure: str
    """A key of ``figures`` in results.json, such as ``test/macro/auprc``."""
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Goal:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most")
        return self


class Settings(StrictModel):
    """How much is measured, and how exactly."""

    resamples: int = Field(default=1000, ge=0)
    """Bootstrap resamples (B) of the tables on the test split and of the suites."""
    fairness_resamples: int = Field(default=200, ge=0)
    attack_resamples: int = Field(default=300, ge=0)
    attacks: tuple[str, ...] = tuple(ATTACKS)
    attack_rows: int = Field(default=400, ge=1)
    """Rows of either class of each headline category that are attacked, at most."""
    compare: tuple[str, ...] = ("tfidf",)
    """Baselines that go through attacks and fairness as well."""
    latency_batches: tuple[int, ...] = (1, 8, 32, 128)
    latency_seconds: float = Field(default=5.0, gt=0)
    """For each batch size."""
    goals: tuple[Goal, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Settings:
        for kind, given, known in (("attack", self.attacks, ATTACKS), ("baseline", self.compare, BASELINES)):
            for name in given:
                if name not in known:
                    raise ValueError(f"there is no {kind} '{name}'; known: {', '.join(sorted(known))}")
        return self


class EvaluateConfig(StrictModel):
    """The whole of ``safety-classifier evaluate``."""

    artifact: Path
    data: Path
    baselines: tuple[str, ...] = tuple(BASELINES)
    suites: tuple[SuiteFile, ...] = ()
    seed: int = 0
    settings: Settings = Settings()

    @model_validator(mode="after")
    def _baselines_known(self) -> EvaluateConfig:
        for name in self.baselines:
            if name not in BASELINES:
                raise ValueError(f"there is no baseline '{name}'; known: {', '.join(sorted(BASELINES))}")
        return self
