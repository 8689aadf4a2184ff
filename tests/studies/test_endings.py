"""Which answers a limit cuts, on lengths that are known."""

import pytest

from runs.errors import DataError
from studies.endings import draw, endings
from tests.studies.test_measure import answer


def answers(lengths: list[int], limit: int, model: str = "m"):
    return [
        answer(f"plain {index}", "complied").model_copy(
            update={
                "model": model,
                "completion_tokens": min(length, limit),
                "finish_reason": "length" if length >= limit else "stop",
            }
        )
        for index, length in enumerate(lengths)
    ]


def test_a_shorter_limit_cuts_what_a_run_with_it_would_have_cut(tmp_path):
    lengths = [3, 8, 8, 20, 50]
    found = endings([*answers(lengths, 20), *answers([1] * 5, 20, model="terse")])
    for limit in (1, 8, 9, 20):
        asked = [row.finish_reason == "length" for row in answers(lengths, limit)]
        assert found.cut("m", limit) == pytest.approx(sum(asked) / 5)
    assert found.cut("terse", 20) == 0.0
    draw(found, tmp_path)
    assert (tmp_path / "endings.png").stat().st_size > 5000


def test_answers_of_two_limits_or_of_none_are_refused():
    for mixed in (
        [*answers([9, 9], 5), *answers([9], 7)],
        answers([1, 2], 5),
        [*answers([9, 9], 5), *answers([9], 5, "n")],
    ):
        with pytest.raises(DataError, match="one limit"):
            endings(mixed)
