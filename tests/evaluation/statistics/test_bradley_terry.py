"""Ratings: textbook tables, statsmodels, symmetry, and what has no finite value."""

import numpy as np
import pytest
import statsmodels.api as sm

from evaluation.statistics.bradley_terry import ELO, bradley_terry
from evaluation.statistics.records import Comparison
from runs.errors import UserError

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
"""Games of the American League's Eastern Division, 1987, won by the row's team (Agresti 2002, table 10.10)."""


def games(wins, names, prompt=str):
    found = []
    for i, row in enumerate(wins):
        for j, count in enumerate(row):
            found += [(names[i], names[j])] * count
    return [
        Comparison(prompt_id=prompt(k), first=winner, second=loser, outcome="first")
        for k, (winner, loser) in enumerate(found)
    ]


def strengths(ratings):
    return {one.model: one.elo / ELO for one in ratings.ratings}


def simulated(seed=0, prompts=120, ties=True):
    """Three models, each pair compared on every prompt, with lengths; the answers to a prompt share its mood."""
    generator = np.random.default_rng(seed)
    truth, names, found = {"base": 0.0, "stage2": 0.4, "stage3": 0.9}, ["base", "stage2", "stage3"], []
    for prompt in range(prompts):
        mood = generator.normal(0, 0.5)
        lengths = {name: int(generator.integers(20, 200)) for name in names}
        for i, j in ((0, 1), (1, 2), (0, 2)):
            first, second = (names[i], names[j]) if generator.random() < 0.5 else (names[j], names[i])
            u = truth[first] - truth[second] + 0.5 * np.log2((lengths[first] + 1) / (lengths[second] + 1)) + 0.3
            u += mood * (1 if first < second else -1)
            odds = np.exp([u / 2, -u / 2, 0.0 if ties else -np.inf])
            outcome = ("first", "second", "tie")[generator.choice(3, p=odds / odds.sum())]
            found.append(
                Comparison(
                    prompt_id=f"p{prompt}", first=first, second=second, outcome=outcome,
                    first_length=lengths[first], second_length=lengths[second],
                )
            )  # fmt: skip
    return found


def test_baseball_in_agresti():
    """Agresti (2002), table 10.11; to four digits by R's BradleyTerry2 (vignette and tests)."""
    ratings = bradley_terry(games(WINS, TEAMS), reference="Baltimore")
    expected = dict(zip(TEAMS, (1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0), strict=True))
    found = strengths(ratings)
    assert {team: round(found[team], 4) for team in expected} == expected
    assert (ratings.n_comparisons, ratings.n_ties, ratings.tie_parameter) == (273, 0, 0.0)


def test_the_worked_example_that_others_use():
    """Wikipedia, "Bradley-Terry model": A 0.640, B 1.043, C 0.660, D 2.270, with geometric mean 1."""
    wins = [[0, 2, 0, 1], [3, 0, 5, 0], [0, 3, 0, 1], [4, 0, 3, 0]]
    found = np.array(list(strengths(bradley_terry(games(wins, "ABCD"), reference="A")).values()))
    assert np.exp(found - found.mean()) == pytest.approx([0.640, 1.043, 0.660, 2.270], abs=5e-4)


def test_without_ties_it_is_statsmodels_logit_with_clustered_errors():
    comparisons = simulated(ties=False)
    names = ["base", "stage2", "stage3"]
    ratings = bradley_terry(comparisons, reference="base", covariates=["length", "order"])
    design = np.array(
        [
            [(one.first == name) - (one.second == name) for name in names[1:]]
            + [np.log2((one.first_length + 1) / (one.second_length + 1)), 1.0]
            for one in comparisons
        ]
    )
    groups = np.array([int(one.prompt_id[1:]) for one in comparisons])
    won = np.array([one.outcome == "first" for one in comparisons], dtype=float)
    fitted = sm.Logit(won, design).fit(
        disp=0, method="newton", tol=1e-14, cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    covariance = fitted.cov_params() * 120 / 119
    found = [one.elo / ELO for one in ratings.ratings[1:]] + [one.estimate for one in ratings.covariates]
    assert found == pytest.approx(fitted.params, abs=1e-9)
    assert ratings.log_likelihood == pytest.approx(fitted.llf, abs=1e-9)
    block = np.array(ratings.covariance)[1:, 1:] / ELO**2
    assert block == pytest.approx(covariance[:2, :2], abs=1e-9)


def test_with_ties_it_is_davidsons_loglinear_model():
    """Poisson counts of the outcomes of each ordered pair, with an effect for each pair (Sinclair 1982)."""
    comparisons = simulated()
    names, rows, counts = ["base", "stage2", "stage3"], [], []
    pairs = sorted({(one.first, one.second) for one in comparisons})
    for place, (first, second) in enumerate(pairs):
        for outcome, sign in (("first", 1), ("second", -1), ("tie", 0)):
            u = [sign / 2 * ((first == name) - (second == name)) for name in names[1:]]
            rows.append([*np.eye(len(pairs))[place], *u, float(outcome == "tie")])
            counts.append(sum((one.first, one.second, one.outcome) == (first, second, outcome) for one in comparisons))
    fitted = sm.GLM(counts, np.array(rows), family=sm.families.Poisson()).fit(tol=1e-14, tol_criterion="params")
    ratings = bradley_terry(comparisons, reference="base")
    found = strengths(ratings)
    expected = fitted.params[len(pairs) :]
    assert [found["stage2"], found["stage3"], np.log(ratings.tie_parameter)] == pytest.approx(expected, abs=1e-9)


def test_repeating_a_comparison_within_its_prompt_adds_no_evidence():
    comparisons = simulated()
    one, twice = (bradley_terry(c, reference="base") for c in (comparisons, comparisons * 2))
    for single, double in zip(one.ratings, twice.ratings, strict=True):
        assert double.elo == pytest.approx(single.elo, abs=1e-7)
        assert double.standard_error == pytest.approx(single.standard_error, abs=1e-7)


def test_swapping_sides_mirrors_and_order_changes_nothing():
    comparisons = simulated()
    swap = {"first": "second", "second": "first", "tie": "tie"}
    mirrored = [
        Comparison(
            prompt_id=one.prompt_id, first=one.second, second=one.first, outcome=swap[one.outcome],
            first_length=one.second_length, second_length=one.first_length,
        )
        for one in reversed(comparisons)
    ]  # fmt: skip
    options = {"reference": "base", "covariates": ["length"], "resamples": 50}
    one, other = bradley_terry(comparisons, **options), bradley_terry(mirrored, **options)
    for a, b in zip(one.ratings, other.ratings, strict=True):
        assert a.elo == pytest.approx(b.elo, abs=1e-6)
        assert a.standard_error == pytest.approx(b.standard_error, abs=1e-6)
        assert a.bootstrap_interval == pytest.approx(b.bootstrap_interval, abs=1e-3)


def test_models_that_answer_alike_are_equal():
    """Every comparison a tie, or won once from each side."""
    alike = [
        Comparison(prompt_id=f"p{k}", first="base", second="stage3", outcome=outcome)
        for k in range(10)
        for outcome in ("first", "second", "tie")
    ]
    ratings = bradley_terry(alike, reference="base")
    assert ratings.ratings[1].elo == pytest.approx(0, abs=1e-9)
    assert ratings.ratings[1].win_rate == pytest.approx(0.5)
    assert ratings.tie_parameter == pytest.approx(1.0)


def test_the_length_covariate_takes_away_what_length_bought():
    """base and long are equal, but the longer answer is preferred."""
    generator, comparisons = np.random.default_rng(1), []
    for prompt in range(400):
        lengths = int(generator.integers(20, 60)), int(generator.integers(40, 120))
        longer = generator.random() < 1 / (1 + (lengths[0] / lengths[1]) ** 2)
        comparisons.append(
            Comparison(
                prompt_id=str(prompt), first="long", second="base", outcome="first" if longer else "second",
                first_length=lengths[1], second_length=lengths[0],
            )
        )  # fmt: skip
    plain = bradley_terry(comparisons, reference="base").ratings[1]
    controlled = bradley_terry(comparisons, reference="base", covariates=["length"])
    assert plain.interval[0] > 0
    assert controlled.ratings[1].interval[0] < 0 < controlled.ratings[1].interval[1]
    assert controlled.covariates[0].interval[0] > 0


def test_bootstrap_and_sandwich_agree():
    ratings = bradley_terry(simulated(prompts=200), reference="base", resamples=500, seed=1)
    for one in ratings.ratings[1:]:
        assert one.bootstrap_interval == pytest.approx(one.interval, abs=0.25 * (one.interval[1] - one.interval[0]))
    assert (ratings.resamples, ratings.separated_resamples) == (500, 0)
    assert ratings == bradley_terry(simulated(prompts=200), reference="base", resamples=500, seed=1)


def test_resamples_without_a_finite_maximum_are_counted():
    """One loss in 30: a third of the resamples leaves it out."""
    comparisons = [
        Comparison(prompt_id=str(k), first="base", second="stage3", outcome="first" if k == 0 else "second")
        for k in range(30)
    ]
    ratings = bradley_terry(comparisons, reference="base", resamples=400)
    assert ratings.separated_resamples / 400 == pytest.approx((29 / 30) ** 30, abs=0.1)
    assert ratings.ratings[1].bootstrap_interval[1] > 2000


@pytest.mark.slow
def test_sandwich_intervals_cover_the_truth():
    """Voters whose judgements on a prompt hang together; 95 % intervals over 500 data sets."""
    hits = 0
    for seed in range(500):
        generator = np.random.default_rng(seed)
        comparisons = []
        for prompt in range(80):
            u = generator.normal(0, 1.0)
            # The average over moods is the truth of the marginal model: 0 by symmetry.
            won = generator.random(3) < 1 / (1 + np.exp(-u))
            comparisons += [
                Comparison(prompt_id=str(prompt), first="a", second="b", outcome="first" if w else "second")
                for w in won
            ]
        low, high = bradley_terry(comparisons, reference="b").ratings[1].interval
        hits += low <= 0 <= high
    assert 0.92 <= hits / 500 <= 0.975


@pytest.mark.parametrize(
    ("comparisons", "options", "message"),
    [
        ([("a", "b", "first")] * 3, {}, "No finite ratings"),
        ([("a", "b", "tie"), ("a", "b", "first"), ("c", "d", "tie")], {}, "No finite ratings: a, b | c, d"),
        ([("a", "b", "tie"), ("a", "a", "tie")], {}, "sets a against itself"),
        ([("a", "b", "tie")] * 2, {"covariates": ["length"]}, "no lengths"),
        ([("a", "b", "tie")] * 2, {"models": ["a", "b", "c"]}, "c is in no comparison"),
        ([("a", "b", "tie"), ("b", "c", "tie")], {"models": ["a", "b"]}, "not to be rated"),
        ([("b", "c", "tie")] * 2, {}, "a is in no comparison"),
        ([], {}, "a is in no comparison"),
        ([("a", "b", "tie")], {}, "at least two prompts"),
        ([("a", "b", "first"), ("a", "b", "second"), ("a", "b", "tie")], {"covariates": ["order"]}, "apart"),
    ],
)
def test_what_has_no_rating_is_refused(comparisons, options, message):
    made = [
        Comparison(prompt_id=str(k), first=first, second=second, outcome=outcome)
        for k, (first, second, outcome) in enumerate(comparisons)
    ]
    with pytest.raises(UserError) as error:
        bradley_terry(made, reference="a", **options)
    assert message in str(error.value)
