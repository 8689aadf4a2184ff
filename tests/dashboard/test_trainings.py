from __future__ import annotations

import json
from pathlib import Path

import pytest

from dashboard.pairs import ACCEPTED_ONLY, find_sources, read_pairs, reasons_of, select
from dashboard.rankings import Rankings, agreement, first_side, next_pair
from dashboard.store import Store
from dashboard.trainings import MOST_POINTS, find_trainings, panels, read_log
from runs.errors import IntegrityError, UsageError
from runs.paths import ARTIFACTS
from runs.records import write_jsonl


def test_a_training_has_panels_of_training_and_held_out_curves(store: Store) -> None:
    (training,) = find_trainings(store)
    assert training.name == "artifacts/tiny/stage3"
    found = {panel.name: panel for panel in panels([training])}
    assert list(found) == ["loss", "pairs", "margins"]
    assert [curve.held_out for curve in found["loss"].curves] == [False, True]
    assert found["loss"].curves[1].points == ((20.0, 0.2),)


def test_the_speed_file_beside_the_log_is_a_panel(store: Store) -> None:
    (training,) = find_trainings(store)
    rows = [{"step": 10, "tokens_per_second": 100.5}, {"step": 20, "tokens_per_second": 120.0}]
    write_jsonl(training.log.with_name("train_speed.jsonl"), rows)
    found = {panel.name: panel for panel in panels([training])}
    assert list(found) == ["loss", "pairs", "margins", "speed"]
    (curve,) = found["speed"].curves
    assert curve.label == "tokens_per_second"
    assert curve.points == ((10.0, 100.5), (20.0, 120.0))


def test_reinforcement_learning_has_its_panels(tmp_path: Path) -> None:
    run = tmp_path / "artifacts" / "rl"
    run.mkdir(parents=True)
    row = {"step": 1, "reward": 0.5, "eval_reward": 0.6, "kl": 0.01, "eval_answer_tokens": 20.0, "eval_repetition": 0.1}
    write_jsonl(run / "train_log.jsonl", [row])
    (training,) = find_trainings(Store(tmp_path / "results", artifacts=tmp_path / "artifacts"))
    found = {panel.name: [curve.label for curve in panel.curves] for panel in panels([training])}
    assert found == {
        "kl": ["kl"],
        "rewards": ["reward", "eval_reward"],
        "length": ["eval_answer_tokens"],
        "repetition": ["eval_repetition"],
    }


def test_the_shipped_trainings_are_found(tmp_path: Path) -> None:
    found = {training.name: training for training in find_trainings(Store(tmp_path, artifacts=ARTIFACTS))}
    stage3 = found["artifacts/smollm2-135m/stage3"]
    assert stage3.finished
    assert stage3.facts["steps"]
    told = json.loads((ARTIFACTS / "smollm2-135m" / "stage3" / "manifest.json").read_bytes())
    assert stage3.facts["tokens a second"] == str(round(told["metrics"]["tokens_per_second"]))
    assert {panel.name for panel in panels([stage3])} >= {"loss", "pairs", "margins"}


def test_a_log_in_writing_loses_its_torn_line_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "train_log.jsonl"
    log.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_log(log) == [{"step": 1.0, "loss": 2.0}]
    log.write_text('{"step": 1, "lo\n{"step": 2, "loss": NaN}\n')
    with pytest.raises(IntegrityError, match="line 1"):
        read_log(log)


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    run = tmp_path / "artifacts" / "long"
    run.mkdir(parents=True)
    write_jsonl(run / "log.jsonl", [{"step": step, "train/loss": 1.0} for step in range(10_000)])
    (training,) = find_trainings(Store(tmp_path / "results", artifacts=tmp_path / "artifacts"))
    (panel,) = panels([training])
    assert len(panel.curves[0].points) <= MOST_POINTS + 1
    assert panel.curves[0].points[-1][0] == 9999


def test_pairs_come_with_their_history(store: Store) -> None:
    sources = find_sources(store)
    assert list(sources) == ["artifacts/tiny/pairs"]
    found = read_pairs(sources["artifacts/tiny/pairs"])
    assert [view.accepted for view in found] == [True, True, False]
    assert found[0].critique == "It helps with a burglary."
    assert reasons_of(found) == {"off_topic": 1}
    assert len(select(found, reason=ACCEPTED_ONLY)) == 2
    assert [view.key for view in select(found, reason="off_topic")] == [found[2].key]
    assert select(found, text="locksmith, 1.") == [found[1]]
    assert select(found, principle="help-01") == []


def test_an_export_without_history_is_read_as_well(store: Store, tmp_path: Path) -> None:
    (folder,) = find_sources(store).values()
    (tmp_path / "pairs.jsonl").write_bytes((folder / "pairs.jsonl").read_bytes())
    exported, whole = read_pairs(tmp_path), read_pairs(folder)
    assert [view.key for view in exported] == [view.key for view in whole if view.accepted]
    assert exported[0].critique is None


def test_votes_are_appended_and_counted(store: Store, tmp_path: Path) -> None:
    (folder,) = find_sources(store).values()
    pairs, rankings = read_pairs(folder), Rankings(tmp_path / "annotations")
    assert rankings.read() == []
    assert agreement([]).interval is None
    first = next_pair(pairs, [], "ann")
    assert first is not None
    made = rankings.add(first, "x", "ann", "a")
    assert made.vote == made.shown_first == first_side(first, "ann")
    second = next_pair(pairs, rankings.read(), "ann")
    assert second is not None
    assert second.key != first.key
    before = rankings.path.read_bytes()
    rankings.add(second, "x", "ann", "b")
    assert rankings.path.read_bytes().startswith(before)
    assert next_pair(pairs, rankings.read(), "ann") is None
    assert next_pair(pairs, rankings.read(), "bob") is not None
    found = agreement(rankings.read())
    assert found.votes == 2
    assert found.chosen + found.rejected == 2
    with pytest.raises(UsageError):
        rankings.add(first, "x", "ann", "maybe")


def test_the_left_side_is_drawn_for_every_rater_anew(store: Store) -> None:
    (folder,) = find_sources(store).values()
    view = read_pairs(folder)[0]
    sides = [first_side(view, f"rater {number}") for number in range(200)]
    assert 60 < sides.count("chosen") < 140
