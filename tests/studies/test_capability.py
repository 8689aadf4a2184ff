"""What a stage costs on a benchmark, on answers that are known."""

import math

import pytest

from evaluation.benchmarks.records import BenchmarkSample
from runs.errors import DataError
from scripts.update_results import capability
from studies.capability import answered, main, measure


def question(model: str, number: int, right: bool) -> BenchmarkSample:
    return BenchmarkSample(
        model=model, task="arc_easy", filter="none", doc_id=number, doc_hash=f"d{number}", prompt_hash="p",
        target_hash="t", target="A", metrics={"acc": float(right)},
    )  # fmt: skip


def asked(right: dict[str, int]) -> list[BenchmarkSample]:
    """40 questions a checkpoint, of which it answers the first so many."""
    return [question(model, number, number < count) for model, count in right.items() for number in range(40)]


GROUPS = {"base": ["base"], "stage2": ["stage2"], "stage3": ["seed0", "seed1"]}


def test_seeds_are_averaged_by_question_before_the_interval():
    found = measure(asked({"base": 30, "stage2": 20, "seed0": 30, "seed1": 28}), GROUPS)
    base, stage2, stage3 = found.tasks[0].levels
    assert (base.accuracy.mean, stage2.accuracy.mean, stage3.accuracy.mean) == (0.75, 0.5, 0.725)
    assert base.cost is None
    assert stage3.by_seed == [0.0, -0.05]
    # Two of 40 questions with a difference of -1/2: s² = (2 · 0.25 - 40 · 0.025²) / 39, t(39; .975) = 2.02269.
    assert stage3.cost.mean == pytest.approx(-0.025)
    spread = math.sqrt((0.5 - 40 * 0.025**2) / 39)
    assert stage3.cost.high - stage3.cost.mean == pytest.approx(2.022691 * spread / math.sqrt(40), rel=1e-5)
    line = capability(found).splitlines()[-1]
    assert line.startswith("| arc_easy | 40 | 75.0 | 50.0 | 72.5 | -25.0 [")
    assert line.endswith("| +0.0, -5.0 | **missed** |")


def test_within_a_point_holds():
    found = measure(asked({"base": 30, "stage2": 20, "seed0": 30, "seed1": 30}), GROUPS)
    assert capability(found).splitlines()[-1].endswith("| holds |")


def test_a_checkpoint_with_other_questions_is_named():
    rows = asked({"base": 30, "stage2": 20})
    with pytest.raises(DataError, match="arc_easy") as caught:
        answered(rows[:-1], ["stage2"])
    assert "none: stage2" in str(caught.value.why)
    assert len(answered(rows, ["stage2"], skip=10)["arc_easy"]["base"]) == 30


def test_the_command_joins_runs_and_writes_the_record(tmp_path):
    files = [tmp_path / "base.jsonl", tmp_path / "later.jsonl"]
    for path, right in zip(files, ({"base": 30, "stage2": 20}, {"seed0": 30}), strict=True):
        path.write_text("".join(row.model_dump_json() + "\n" for row in asked(right)))
    main([*map(str, files), "--seeds", "seed0", "--output", str(tmp_path)])
    assert '"questions": 40' in (tmp_path / "capability.json").read_text()
