"""The command `label`: measures against hand-worked numbers, and soft labels on a run's pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from critique_revision.calibration import reliability, report
from critique_revision.config import RecipeConfig
from critique_revision.constitution import load_principles
from critique_revision.export import export, open_filtered
from critique_revision.folder import open_finished
from critique_revision.labelling import Gold, Labeller, calibrate, label_pairs, labelling_config, read_gold, reports
from critique_revision.pairs import filter_run, statistics, write_filtered
from critique_revision.records import PreferencePair
from runs import config as configs
from runs.console import Reporter
from runs.errors import UserError
from runs.paths import CONFIGS, PROJECT_ROOT
from runs.records import read_jsonl
from tests.critique_revision import recipe_driver

QUIET = Reporter(quiet=True)
GOLD = PROJECT_ROOT / "evaluation" / "gold"


def test_report_of_four_labels_by_hand() -> None:
    found = report([0.9, 0.6, 0.3, 0.5, None])
    assert (found["pairs"], found["unlabelled"], found["correct"], found["ties"]) == (5, 1, 2, 1)
    assert found["accuracy"] == 0.5
    # Wilson, 2 of 4 with z = 1.96: the centre is 1/2, the half width z sqrt(1/16 + z² / 64) / (1 + z² / 4).
    z = 1.959964
    half = z * (0.25 / 4 + z**2 / 64) ** 0.5 / (1 + z**2 / 4)
    assert found["accuracy_interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.49 + 0.25) / 4)
    # Bins: 0.5 (0 of 1 right), 0.6 (1 of 1), 0.7 (0 of 1), 0.9 (1 of 1).
    assert found["ece"] == pytest.approx((0.5 + 0.4 + 0.7 + 0.1) / 4)
    assert report([None]) == {"pairs": 1, "unlabelled": 1}


def test_reliability_bins_hold_everything_once() -> None:
    values = [0.0, 0.5, 0.5001, 0.55, 0.99, 1.0]
    rows = reliability(values)
    assert sum(row["n"] for row in rows) == len(values)
    assert all(row["low"] <= row["confidence"] <= row["high"] for row in rows)


def test_gold_is_read_in_both_layouts_and_faults_are_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "How?", "chosen": "So.", "rejected": "Thus."},
        {"prompt": [{"role": "user", "content": "Why?"}], "chosen": [{"role": "assistant", "content": "A."}],
         "rejected": [{"role": "assistant", "content": "B."}]},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Good.", "rejected": "\n\nHuman: Hi\n\nAssistant: Bad."},
        {"prompt": "How?", "chosen": "So.", "rejected": "Thus."},
        {"prompt": "How?", "chosen": "So.", "rejected": "So."},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Good.", "rejected": "\n\nHuman: Ho\n\nAssistant: Bad."},
        {"prompt": "How?"},
    ]  # fmt: skip
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gold = read_gold([path])
    assert [(pair.chosen, pair.rejected) for pair in gold.pairs] == [("So.", "Thus."), ("A.", "B."), ("Good.", "Bad.")]
    assert gold.left_out == {"duplicate": 1, "equal_answers": 1, "two_prompts": 1, "no_pair": 1}
    shipped = read_gold([GOLD / "harmless-pairs.jsonl", GOLD / "helpful-pairs.jsonl"])
    assert len(shipped.pairs) == 24 + 32
    (tmp_path / "none.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match="No known pair"):
        read_gold([tmp_path / "none.jsonl"])


def labeller(recipe: Path, **changes: object) -> Labeller:
    values = yaml.safe_load(recipe.read_text()) | changes
    config = labelling_config(configs.parse(RecipeConfig, values, source="test"))
    constitution = load_principles(CONFIGS / "constitutions" / "default.yaml")
    return Labeller(config, constitution, (), recipe_driver.engines())


def test_a_labeller_that_takes_the_shorter_answer_is_measured(recipe: Path, tmp_path: Path) -> None:
    gold = read_gold([GOLD / "harmless-pairs.jsonl", GOLD / "helpful-pairs.jsonl"])
    found = calibrate(labeller(recipe), gold, tmp_path / "run", QUIET)
    right = sum(len(pair.chosen) < len(pair.rejected) for pair in gold.pairs)
    assert found["correct"] == right
    # P(A) is 0.6 where the shorter answer is first, else 0.45: (0.6 + 0.45) / 2 - 0.5 over both orders.
    assert found["order_bias"] == pytest.approx(0.025)
    assert found["order_consistency"] == 1.0
    assert found["by_source"]["harmless-pairs.jsonl"]["pairs"] == 24
    assert [row["correct"] for row in reports(tmp_path / "run")] == [right]
    swapped = Gold([type(pair)(pair.prompt, pair.rejected, pair.chosen, pair.source) for pair in gold.pairs])
    mirrored = calibrate(labeller(recipe), swapped, tmp_path / "run", QUIET)
    assert mirrored["mean_label_prob"] == pytest.approx(1.0 - found["mean_label_prob"])
    assert len(reports(tmp_path / "run")) == 2


def test_the_card_says_what_the_labeller_was_measured_at(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    calibrate(labeller(recipe), read_gold([GOLD / "harmless-pairs.jsonl"]), folder, QUIET)
    recipe_driver.run(recipe, folder)
    run = open_finished(folder)
    outcome = filter_run(run, run.config.filters)
    write_filtered(folder, outcome, statistics(run, outcome, run.config.filters))
    before = export(open_filtered(run), "dpo", tmp_path / "before", command="x")
    label_pairs(labeller(recipe), run, QUIET)
    after = export(open_filtered(run), "dpo", tmp_path / "after", command="x")
    assert before.run_id != after.run_id
    card = (tmp_path / "after" / "DATASET_CARD.md").read_text()
    for part in ("on 24 known pairs (harmless-pairs.jsonl)", "order bias +0.025", "`label_prob`: given to 14 of 14"):
        assert part in card
    row = json.loads((tmp_path / "after" / "pairs.jsonl").read_text().splitlines()[0])
    assert 0.0 <= row["label_prob"] <= 1.0


def test_a_calibration_may_come_before_the_run(recipe: Path, tmp_path: Path) -> None:
    gold = read_gold([GOLD / "harmless-pairs.jsonl"])
    calibrate(labeller(recipe), gold, tmp_path / "run", QUIET)
    recipe_driver.run(recipe, tmp_path / "run")
    assert open_finished(tmp_path / "run").prompts


def test_a_runs_pairs_get_labels_and_keep_all_else(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe_driver.run(recipe, folder)
    run = open_finished(folder)
    with pytest.raises(UserError, match="not filtered"):
        label_pairs(labeller(recipe), run, QUIET)
    outcome = filter_run(run, run.config.filters)
    write_filtered(folder, outcome, statistics(run, outcome, run.config.filters))
    found = label_pairs(labeller(recipe), run, QUIET)
    pairs = read_jsonl(folder / "pairs.jsonl", PreferencePair)
    assert [pair.model_copy(update={"label_prob": None}) for pair in pairs] == outcome.pairs
    for pair in pairs:
        shorter = len(pair.chosen[0].content) < len(pair.rejected[0].content)
        assert pair.label_prob == pytest.approx(0.575 if shorter else 1 - 0.575)
    assert found["agrees"] == sum((pair.label_prob or 0) > 0.5 for pair in pairs)
    assert json.loads((folder / "stats.json").read_text())["labels"]["agrees"] == found["agrees"]
    before = (folder / "pairs.jsonl").read_bytes()
    again = Labeller(**{**labeller(recipe).__dict__, "engines": recipe_driver.engines(kill_after=0)})
    assert label_pairs(again, run, QUIET) == found  # every answer is on record: no call, and the same bytes
    assert (folder / "pairs.jsonl").read_bytes() == before


def test_one_principle_of_the_named_categories_only(recipe: Path, tmp_path: Path) -> None:
    gold = read_gold([GOLD / "harmless-pairs.jsonl"], ["harm_prevention"])
    calibrate(labeller(recipe), gold, tmp_path / "run", QUIET)
    (path,) = (tmp_path / "run" / "calibration").glob("*/labels.jsonl")
    drawn = {json.loads(line)["principle_id"].split("-")[0] for line in path.read_text().splitlines()}
    assert drawn == {"harm"}
