"""What the statistics say, as records: reports, charts and gates read these and compute nothing themselves.

Estimates, bounds and margins are on the scale of the scores, 0 to 1: times 100 they are points.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runs.config import StrictModel

Interval = tuple[float, float]
"""Lower and upper bound."""
Kind = Literal["mean", "rate"]
"""``mean``: graded scores in [0, 1]. ``rate``: every score is 0 or 1."""
Outcome = Literal["better", "worse", "equivalent", "undecided", "not_measured"]


class EffectSize(StrictModel):
    """A named effect size."""

    name: Literal["risk_difference", "cohen_d_z", "cliff_delta", "odds_ratio"]
    value: float | None
    """None where it has no value: d_z when all differences are one non-zero number."""


class Contrast(StrictModel):
    """Treatment minus control on one metric, over the prompts that both have a score for.

    A contrast without two independent prompts has None for all that would need them; `estimate` alone survives
    with a single prompt.
    """

    treatment: str
    control: str
    metric: str
    subset: str = "all"
    """``all``, ``category:NAME`` or ``principle:ID``."""
    kind: Kind
    higher_is_better: bool = True
    n_pairs: int
    """Prompts (answers, with several samples a prompt) scored for both models: the denominator."""
    n_clusters: int
    """Independent units among them: a harmful prompt and its benign twin are one."""
    n_missing: int
    """Prompts that the metric applies to and that at least one model has no score for."""
    estimate: float | None
    """Mean of treatment minus control."""
    standard_error: float | None
    """Cluster-robust."""
    confidence: float = 0.95
    interval: Interval | None
    """At `confidence`, two-sided."""
    interval_method: str | None
    """``t``, ``cluster_t``, ``tango`` (paired rates), or ``no_spread`` (all differences are one number)."""
    bootstrap_interval: Interval | None = None
    """Percentile interval of the seeded cluster bootstrap; None where it was not asked for."""
    equivalence_interval: Interval | None
    """At level 2 x `confidence` - 1: inside the margin, both one-sided tests of TOST reject at 1 - confidence."""
    p_value: float | None
    """Two-sided."""
    p_method: str | None
    """``mcnemar_exact``, ``sign_flip_exact`` or ``sign_flip_sampled``."""
    p_adjusted: float | None
    """Within `family`, by `adjustment`; equal to `p_value` outside of any."""
    family: str | None = None
    """The declared set of tests that this one was adjusted with."""
    family_size: int = 1
    adjustment: Literal["none", "holm", "benjamini_hochberg"] = "none"
    effect_size: EffectSize
    """The headline: d_z for means, the risk difference for rates."""
    other_effect_sizes: tuple[EffectSize, ...] = ()
    minimum_detectable_effect: float | None
    """Smallest true difference that this many prompts show with 80 % power, at the level that the first step of
    Holm leaves to each test of the family. None where neither data nor declaration give a spread."""
    assumed_sd: float | None = None
    """Standard deviation of the differences that was declared before the run; None takes the observed one."""
    half_width: float | None
    """Half the width of `interval`: the precision achieved."""
    worst_case_bounds: Interval | None
    """Where the estimate could lie if every missing score were as bad, or as good, for the treatment as it can be
    (Manski 1989); None when no prompt belongs to the contrast. Equal to the estimate when nothing is missing."""
    discordant: tuple[int, int] | None = None
    """Rates: prompts where only the treatment has 1, and where only the control has."""

    @property
    def identified(self) -> bool:
        """Whether the sign of the estimate holds whatever the missing scores are."""
        if self.worst_case_bounds is None:
            return False
        low, high = self.worst_case_bounds
        return self.n_missing == 0 or low > 0 or high < 0


class Verdict(StrictModel):
    """What a contrast allows one to say."""

    contrast: Contrast
    outcome: Outcome
    margin: float | None
    """Differences smaller than this do not matter; declared before the run. None: equivalence is not asked about."""
    sentence: str


class Foresight(StrictModel):
    """What a run will be able to show on one metric, before it begins."""

    metric: str
    n_clusters: int
    """Independent prompts that the metric applies to."""
    family_size: int
    """Tests of the primary family."""
    assumed_sd: float
    minimum_detectable_effect: float | None
    """With 80 % power, at the level that the first step of Holm leaves to each test; None with nothing to compare."""


class NonInferiority(StrictModel):
    """Whether a price stays under a limit: is the treatment worse than the control by the margin or more?"""

    contrast: Contrast
    margin: float = Field(gt=0)
    outcome: Literal["held", "regressed", "undecided", "not_measured"]
    """``held``: the lower bound lies above -margin. ``regressed``: the upper bound lies below it."""
    lower_bound: float | None
    """One-sided, at the contrast's confidence; in the direction in which more is better."""
    upper_bound: float | None
    sentence: str


class Ellipse(StrictModel):
    """A joint confidence region in the plane."""

    centre: tuple[float, float]
    semi_axes: tuple[float, float]
    """Longer first."""
    angle: float
    """Of the longer axis, in radians from the x axis, counter-clockwise."""
    confidence: float


class PlanePoint(StrictModel):
    """One model in the evasiveness plane."""

    model: str
    harm: float | None
    """Share of unsafe prompts that were answered with harm (x)."""
    refusal: float | None
    """Share of benign twins that were refused (y)."""
    n_unsafe: int
    n_benign: int
    n_missing: int
    """Prompts of the plane that this model has no score for."""
    n_clusters: int
    """Pairs of an unsafe prompt and its twin (and prompts without one)."""
    covariance: tuple[tuple[float, float], tuple[float, float]] | None
    """Of (harm, refusal), from the bootstrap of pairs."""
    ellipse: Ellipse | None
    """None when a rate is missing; a flat ellipse has a semi-axis of 0."""
    harm_interval: Interval | None
    """Percentile interval of the same bootstrap; each axis by itself."""
    refusal_interval: Interval | None


class PlaneStep(StrictModel):
    """A stage of training: the way from one point of the plane to the next."""

    treatment: str
    control: str
    harm: float | None
    refusal: float | None
    """Treatment minus control; less is better on both axes."""
    covariance: tuple[tuple[float, float], tuple[float, float]] | None
    ellipse: Ellipse | None
    """Of the difference: it leaves (0, 0) outside when the models differ jointly."""
    harm_interval: Interval | None
    refusal_interval: Interval | None
    moved: bool | None
    """Whether (0, 0) lies outside of the ellipse; None when it cannot be drawn."""


class Plane(StrictModel):
    """Harm on unsafe prompts against refusal of their benign twins, along the lineage."""

    points: tuple[PlanePoint, ...]
    """In the order of the lineage: joined, they are the path."""
    steps: tuple[PlaneStep, ...]
    """One for each declared contrast."""
    resamples: int
    seed: int


class PrincipleScore(StrictModel):
    """One model's mean on one metric over the prompts that exercise a principle."""

    principle: str
    model: str
    metric: str
    status: Literal["measured", "not_measured"]
    """Never "passed": a mean has no threshold of its own."""
    why: str
    """Why it was not measured; empty when it was."""
    n_prompts: int
    """Prompts that exercise the principle and that the metric applies to."""
    n_scored: int
    n_clusters: int
    mean: float | None
    """None unless measured."""
    interval: Interval | None


class PrincipleIndex(StrictModel):
    """Scores by principle of the constitution, with coverage."""

    scores: tuple[PrincipleScore, ...]
    coverage: dict[str, int]
    """Principle → prompts that exercise it, the constitution's own order; 0 for those that none does."""
    unknown: dict[str, int] = Field(default_factory=dict)
    """Ids that prompts name and the constitution does not have → prompts."""


class Comparison(StrictModel):
    """A preference between two models' answers to one prompt."""

    prompt_id: str
    cluster: str | None = None
    """Prompts that belong together; None: the prompt is its own cluster."""
    first: str
    """The model whose answer was shown, or read, first."""
    second: str
    outcome: Literal["first", "second", "tie"]
    first_length: int | None = Field(default=None, ge=0)
    second_length: int | None = Field(default=None, ge=0)
    """Length of each answer, in tokens or characters, the same unit throughout; needed for the length covariate."""


class Covariate(StrictModel):
    """An effect that is held constant in a rating."""

    name: Literal["length", "order"]
    estimate: float
    """Natural-log odds. ``length``: per doubling of the ratio of lengths. ``order``: of being first."""
    interval: Interval


class Rating(StrictModel):
    """A model's Bradley-Terry rating, as a difference from the reference model."""

    model: str
    elo: float
    """In Elo points: 400 / ln 10 times the natural-log strength. 0 for the reference."""
    standard_error: float
    interval: Interval
    """From the prompt-clustered sandwich covariance."""
    bootstrap_interval: Interval | None = None
    win_rate: float
    """Expected against the reference with covariates at 0, ties counted as half."""


class Ratings(StrictModel):
    """Bradley-Terry with ties (Davidson 1970) on one set of preferences."""

    reference: str
    ratings: tuple[Rating, ...]
    covariance: tuple[tuple[float, ...], ...]
    """Of the Elo points, in the order of `ratings`; the reference's row and column are 0."""
    tie_parameter: float
    """Davidson's nu: 0 without ties; P(tie) = nu / (2 + nu) between equals."""
    covariates: tuple[Covariate, ...] = ()
    n_comparisons: int
    n_ties: int
    n_clusters: int
    log_likelihood: float
    confidence: float
    resamples: int = 0
    separated_resamples: int = 0
    """Bootstrap samples without a finite maximum: their ratings count as beyond every other."""
