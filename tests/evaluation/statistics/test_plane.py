"""The evasiveness plane: points, joint regions, steps."""

import numpy as np
import pytest

from evaluation.statistics.contrast import Question, contrast
from evaluation.statistics.mean import wilson
from evaluation.statistics.plane import AxisScores, hotelling_ellipse, plane
from evaluation.statistics.proportions import tango
from runs.errors import UserError

PAIRS = [f"pair-{k:02}" for k in range(60)]
STEPS = [("stage2", "base"), ("stage3", "stage2"), ("stage3", "base")]
MODELS = ["base", "stage2", "stage3"]


def scores(seed=0):
    """Harm falls along the lineage while refusals of the twins rise; both hang together within a pair."""
    generator = np.random.default_rng(seed)
    touchy = generator.random(60)
    unsafe, benign = {}, {}
    for model, refuses in zip(MODELS, (0.1, 0.3, 0.6), strict=True):
        unsafe[model] = (0.6 * touchy + 0.4 * generator.random(60) > refuses).astype(float).tolist()
        benign[model] = (0.6 * touchy + 0.4 * generator.random(60) < refuses * 0.7).astype(float).tolist()
    return AxisScores(PAIRS, unsafe), AxisScores(PAIRS, benign)


def test_points_are_rates_and_steps_their_paired_differences():
    unsafe, benign = scores()
    made = plane(MODELS, unsafe, benign, steps=STEPS, resamples=2_000)
    assert [point.model for point in made.points] == MODELS
    base, _, stage3 = made.points
    assert base.harm == pytest.approx(np.mean(unsafe.scores["base"]))
    harms = int(sum(unsafe.scores["base"]))
    assert base.harm_interval == (wilson(harms, 60).low, wilson(harms, 60).high)
    step = made.steps[2]
    assert (step.harm, step.refusal) == pytest.approx((stage3.harm - base.harm, stage3.refusal - base.refusal))
    assert step.harm < 0 < step.refusal
    assert step.moved
    reference = contrast(
        Question("stage3", "base", "harm", kind="rate"), unsafe.scores["stage3"], unsafe.scores["base"]
    )
    assert step.harm_interval == reference.interval == tango(*reference.discordant, 60)


def test_the_covariance_is_that_of_the_pairs():
    """Without missing scores the bootstrap's covariance is the sample covariance over pairs / n."""
    unsafe, benign = scores()
    made = plane(["stage2", "base"], unsafe, benign, steps=STEPS[:1], resamples=20_000)
    columns = np.array([unsafe.scores["stage2"], benign.scores["stage2"]])
    assert np.array(made.points[0].covariance) == pytest.approx(np.cov(columns) / 60, rel=0.05, abs=5e-5)
    change = columns - np.array([unsafe.scores["base"], benign.scores["base"]])
    covariance = np.cov(change) / 60
    assert np.array(made.steps[0].covariance) == pytest.approx(covariance, rel=0.05, abs=5e-5)
    expected = hotelling_ellipse(change.mean(axis=1), covariance, 60)
    assert made.steps[0].ellipse.semi_axes == pytest.approx(expected.semi_axes, rel=0.05)
    assert made.steps[0].ellipse.centre == pytest.approx(expected.centre)


def test_rows_may_come_in_any_order_and_the_seed_decides():
    unsafe, benign = scores()
    order = np.random.default_rng(3).permutation(60)
    shuffled = [
        AxisScores(
            [PAIRS[i] for i in order], {name: [column[i] for i in order] for name, column in axis.scores.items()}
        )
        for axis in (unsafe, benign)
    ]
    made = plane(MODELS, unsafe, benign, steps=STEPS, resamples=500)
    assert plane(MODELS, *shuffled, steps=STEPS, resamples=500) == made
    assert plane(MODELS, unsafe, benign, steps=STEPS, resamples=500, seed=1) != made


def test_identical_models_have_not_moved():
    unsafe, benign = scores()
    twins = [AxisScores(PAIRS, {"a": axis.scores["base"], "b": axis.scores["base"]}) for axis in (unsafe, benign)]
    (step,) = plane(["a", "b"], *twins, steps=[("b", "a")], resamples=500).steps
    assert (step.harm, step.refusal, step.moved) == (0.0, 0.0, False)
    # Sixty pairs without a change still leave one open.
    assert min(step.ellipse.semi_axes) > 0.02


def test_a_rate_of_zero_has_the_width_of_its_interval():
    unsafe, _ = scores()
    none = AxisScores(PAIRS, {"base": [0.0] * 60})
    (point,) = plane(["base"], unsafe, none, steps=[], resamples=500).points
    assert point.refusal == 0.0
    assert point.refusal_interval == (0.0, pytest.approx(wilson(0, 60).high))
    assert point.covariance[1][1] == pytest.approx((wilson(0, 60).high / 1.959964) ** 2, rel=1e-4)


def test_missing_scores_leave_their_prompt_and_not_its_twin():
    unsafe, benign = scores()
    harms = [None, *unsafe.scores["base"][1:]]
    (point,) = plane(["base"], AxisScores(PAIRS, {"base": harms}), benign, steps=[], resamples=500).points
    assert (point.n_unsafe, point.n_benign, point.n_missing, point.n_clusters) == (59, 60, 1, 60)
    assert point.harm == pytest.approx(np.mean(unsafe.scores["base"][1:]))


def test_an_axis_without_scores_has_no_region():
    unsafe, _ = scores()
    nothing = AxisScores(PAIRS, {"base": [None] * 60, "stage2": [None] * 60})
    made = plane(["base", "stage2"], unsafe, nothing, steps=STEPS[:1], resamples=500)
    assert (made.points[0].refusal, made.points[0].ellipse, made.points[0].covariance) == (None, None, None)
    assert made.points[0].harm is not None
    assert (made.steps[0].refusal, made.steps[0].moved) == (None, None)


def test_graded_and_broken_scores_are_refused():
    unsafe, benign = scores()
    with pytest.raises(UserError, match="neither 0 nor 1"):
        plane(["base"], AxisScores(["a"], {"base": [0.5]}), benign, steps=[])
    with pytest.raises(UserError, match="row pair-01 is nan"):
        plane(["base"], unsafe, AxisScores(PAIRS[:2], {"base": [1.0, float("nan")]}), steps=[])
    with pytest.raises(ValueError, match="another number of scores"):
        plane(["base"], unsafe, AxisScores(PAIRS, {"base": [1.0]}), steps=[])


@pytest.mark.slow
def test_the_steps_region_covers_the_truth():
    """From 0/1 scores of two models to the ellipse of their difference, over 1,000 data sets of 60 pairs."""
    generator, inside = np.random.default_rng(21), 0
    truth = np.array([-0.2, 0.1])
    from evaluation.statistics.plane import outside

    for _ in range(1_000):
        touchy = generator.random(60)

        def drawn(rate, touchy=touchy):
            # uniform marginals that share the pair's part half of the time
            shared = np.where(generator.random(60) < 0.5, touchy, generator.random(60))
            return (shared < rate).astype(float).tolist()

        unsafe = AxisScores(PAIRS, {"base": drawn(0.6), "stage3": drawn(0.4)})
        benign = AxisScores(PAIRS, {"base": drawn(0.2), "stage3": drawn(0.3)})
        (step,) = plane([], unsafe, benign, steps=[("stage3", "base")], resamples=300).steps
        inside += not outside(truth - np.array(step.ellipse.centre), np.array(step.covariance), 60)
    assert 0.925 <= inside / 1_000 <= 0.975
