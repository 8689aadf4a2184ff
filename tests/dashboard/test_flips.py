from __future__ import annotations

import pytest

from dashboard.flips import ALL, CELLS, Query, find_flips, metrics_of, pairs_of, surprise_of
from dashboard.store import Store
from evaluation.metrics import metrics_for
from evaluation.report.data import RunData
from runs.errors import UsageError
from tests.dashboard.conftest import RUN


@pytest.fixture
def run(store: Store) -> RunData:
    return store.load(RUN)


def test_the_cells_are_those_of_the_contrast_in_the_statistics(run: RunData) -> None:
    for verdict in run.analysis.primary:
        one = verdict.contrast
        if one.discordant is None:
            continue
        flips = find_flips(run, one.treatment, one.control, one.metric)
        assert (flips.counts["fixed"], flips.counts["broken"]) == one.discordant
        assert len(flips.flips) == one.n_pairs
        assert flips.unpaired == one.n_missing


def test_every_prompt_is_in_one_cell(run: RunData) -> None:
    for metric in metrics_of(run):
        flips = find_flips(run, "stage3", "base", metric)
        assert sum(flips.counts.values()) == len(flips.flips)
        measure = metrics_for(run.evaluators)[metric]
        for flip in flips.flips:
            assert flip.after == measure(flip.row.answers["stage3"])


def test_a_query_filters_and_sorts(run: RunData) -> None:
    flips = find_flips(run, "stage3", "base", metrics_of(run)[0])
    by_cell = [len(flips.select(Query(cell=cell))) for cell in CELLS]
    assert sum(by_cell) == len(flips.select(Query())) == len(flips.flips)
    surprise = [flip.surprise for flip in flips.select(Query(sort="surprise"))]
    assert surprise == sorted(surprise, reverse=True)
    change = [abs(flip.change) for flip in flips.select(Query(sort="change"))]
    assert change == sorted(change, reverse=True)
    numbers = [flip.row.number for flip in flips.select(Query(sort="order"))]
    assert numbers == sorted(numbers)
    kind = flips.categories[0]
    assert {flip.row.prompt.category for flip in flips.select(Query(category=kind))} == {kind}
    word = flips.flips[0].row.prompt.text.split()[0]
    assert all(word.casefold() in flip.haystack for flip in flips.select(Query(text=word)))
    assert flips.select(Query(text="no such words anywhere")) == []


def test_the_classifier_decides_the_surprise_where_it_was_asked(run: RunData) -> None:
    sample = next(s for s in run.samples if s.mode == "bare_refusal" and s.prompt.expected == "refuse")
    assert surprise_of(sample, {"refusal": 1.0, "harmful_response": 0.0}) == 0.0
    assert surprise_of(sample, {"refusal": 0.9, "harmful_response": 0.7}) == pytest.approx(0.7)
    heads = {(s.prompt_id, s.sample, s.model): {"refusal": 0.5} for s in run.samples}
    flips = find_flips(run, "stage3", "base", metrics_of(run)[0], heads)
    assert {flip.surprise for flip in flips.flips} == {0.5}


@pytest.mark.parametrize(
    ("treatment", "control", "metric"),
    [("nobody", "base", "helpfulness"), ("stage3", "base", "nothing"), ("base", "base", "helpfulness")],
)
def test_unknown_names_are_refused(run: RunData, treatment: str, control: str, metric: str) -> None:
    with pytest.raises(UsageError):
        find_flips(run, treatment, control, metric)


def test_an_unknown_cell_or_order_is_refused(run: RunData) -> None:
    flips = find_flips(run, "stage3", "base", "helpfulness")
    for query in (Query(cell="x"), Query(sort="x")):
        with pytest.raises(UsageError):
            flips.select(query)
    assert pairs_of(run)[0] == ("stage3", "base")
    assert flips.select(Query(cell=ALL))
