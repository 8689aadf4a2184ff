from __future__ import annotations

import random

import pytest
from scipy.stats import chi2

from critique_revision.constitution import PrinciplesConstitution
from critique_revision.principles import check_enough, choose_principle
from runs.errors import UsageError
from runs.identity import text_digest


def constitution(size: int) -> PrinciplesConstitution:
    rows = [{"id": f"p{n:02d}", "text": "t", "critique_request": "c", "revision_request": "r"} for n in range(size)]
    return PrinciplesConstitution.model_validate({"name": "n", "principles": rows})


@pytest.mark.parametrize("step", [1, 2, 4])
def test_uniform_by_chi_square(step: int) -> None:
    principles, draws = constitution(16), 4000
    counts = dict.fromkeys((row.id for row in principles.principles), 0)
    for number in range(draws):
        counts[choose_principle(principles, seed=0, prompt_id=text_digest(str(number)), step=step).id] += 1
    expected = draws / 16
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < chi2.ppf(0.999, df=15)


def test_steps_are_jointly_uniform() -> None:
    """All ordered pairs of different principles are equally likely in the first two steps."""
    principles, draws = constitution(4), 3000
    counts: dict[tuple[str, str], int] = {}
    for number in range(draws):
        first, second = (choose_principle(principles, seed=1, prompt_id=str(number), step=k).id for k in (1, 2))
        counts[first, second] = counts.get((first, second), 0) + 1
    assert len(counts) == 12
    assert sum((count - draws / 12) ** 2 / (draws / 12) for count in counts.values()) < chi2.ppf(0.999, df=11)


def test_no_principle_twice_in_a_chain() -> None:
    principles = constitution(5)
    for number in range(50):
        chain = [choose_principle(principles, seed=0, prompt_id=str(number), step=step).id for step in range(1, 6)]
        assert len(set(chain)) == 5


def test_order_of_prompts_and_of_the_file_do_not_matter() -> None:
    principles = constitution(16)
    shuffled = principles.model_copy(update={"principles": principles.principles[::-1]})
    prompts = [str(number) for number in range(100)]
    forwards = {prompt: choose_principle(principles, seed=0, prompt_id=prompt, step=2).id for prompt in prompts}
    random.Random(0).shuffle(prompts)
    assert all(choose_principle(shuffled, seed=0, prompt_id=p, step=2).id == forwards[p] for p in prompts)


def test_seed_matters() -> None:
    principles = constitution(16)
    chosen = [
        [choose_principle(principles, seed=seed, prompt_id=str(n), step=1).id for n in range(50)] for seed in (0, 1)
    ]
    assert chosen[0] != chosen[1]


def test_more_steps_than_principles() -> None:
    check_enough(constitution(2), 2)
    with pytest.raises(UsageError, match="3 different principles"):
        check_enough(constitution(2), 3)


def test_categories_restrict_the_draw() -> None:
    rows = tuple(
        row.model_copy(update={"category": "odd" if n % 2 else "even"})
        for n, row in enumerate(constitution(8).principles)
    )
    mixed = constitution(8).model_copy(update={"principles": rows})
    odd = {row.id for row in rows if row.category == "odd"}
    chain = [choose_principle(mixed, seed=0, prompt_id="p", step=k, categories=["odd"]).id for k in range(1, 5)]
    assert set(chain) == odd
    with pytest.raises(UsageError, match="has 4 in odd"):
        check_enough(mixed, 5, ["odd"])
    with pytest.raises(UsageError, match="Did you mean 'even'"):
        check_enough(mixed, 1, ["evn"])
