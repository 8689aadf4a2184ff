import json

import pytest

from finetune import data, lora, monitors
from finetune.config import MonitorSection
from finetune.dpo import run_dpo
from finetune.watch import Watch
from inference.families import load_family
from inference.loading import load_base
from runs.manifest import read_manifest
from tests.finetune.conftest import OPTIONS, QUIET, interrupted_at


def test_repetition_counts_4_grams_that_stood_there_before():
    assert monitors.repetition("a b c d a b c d") == pytest.approx(0.2)  # five, of which four are distinct
    assert monitors.repetition("a b c") == 0.0
    assert monitors.repetition("no " * 40) == pytest.approx(36 / 37)


def test_alarms_name_what_went_past_its_limit():
    section = MonitorSection(chosen_logp_fall=0.5, repetition_rise=0.1, length_fall=0.5)
    start = {"chosen_logp_at_start": -2.0, "repetition_at_start": 0.0, "answer_tokens_at_start": 40.0}
    fine = {"step": 5, "eval_chosen_logp": -2.4, "eval_repetition": 0.1, "eval_answer_tokens": 21.0}
    bad = {"step": 10, "eval_chosen_logp": -2.6, "eval_repetition": 0.2, "eval_answer_tokens": 19.0}
    found = monitors.alarms(section, start, [fine, {"step": 7, "loss": 1.0}, bad])
    assert [(alarm.step, alarm.name) for alarm in found] == [
        (10, "chosen_logp"),
        (10, "repetition"),
        (10, "answer_tokens"),
    ]
    assert found[0].sentence == "step 10: chosen_logp went from -2.000 to -2.600 (limit -2.500)"
    off = MonitorSection(chosen_logp_fall=None, repetition_rise=None, length_fall=None)
    assert monitors.alarms(off, start, [bad]) == []


def test_sampled_answers_are_the_same_every_time_and_leave_training_as_it_was(place, stage2, tokenizer):
    import torch

    model = load_base(load_family(place.family))
    model = torch.nn.Module.train(model)
    pairs = data.dpo_examples(place.dpo().data, tokenizer).holdout
    section = MonitorSection(max_new_tokens=12, prompts=4)
    answers = monitors.Answers(model, tokenizer, [pair.prompt for pair in pairs[:4]], section, 2)
    before = torch.get_rng_state()
    first = answers()
    assert first == answers()
    assert 0 < first["answer_tokens"] <= 12
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def ruinous(place, output, action, **monitored):
    """A run whose chosen answers become less likely: it unlearns them all with far too high a rate."""
    run = place.dpo(
        output, max_steps=10, eval_steps=5, learning_rate=0.05, lr_scheduler_type="constant", max_grad_norm=0
    )
    section = MonitorSection(action=action, prompts=4, max_new_tokens=8, **monitored)
    return run.model_copy(update={"monitors": section})


def test_a_monitor_stops_the_run_and_a_resumed_one_stops_at_the_same_step(place, stage2, tmp_path):
    value, _ = run_dpo(ruinous(place, tmp_path / "whole", "stop"), OPTIONS, QUIET)
    metrics = value["metrics"]
    assert metrics["steps"] < 10
    assert metrics["stopped_because"].startswith(f"step {metrics['steps']}: ")
    assert metrics["alarms"]
    with interrupted_at(4), pytest.raises(KeyboardInterrupt):
        run_dpo(ruinous(place, tmp_path / "broken", "stop"), OPTIONS, QUIET)
    run_dpo(ruinous(place, tmp_path / "broken", "stop"), OPTIONS, QUIET)
    for name in (lora.WEIGHTS, "train_log.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_a_monitor_that_warns_lets_the_run_end(place, stage2, tmp_path, capsys):
    from runs.console import Reporter

    value, _ = run_dpo(ruinous(place, tmp_path / "out", "warn"), OPTIONS, Reporter())
    assert value["metrics"]["steps"] == 10
    assert "stopped_because" not in value["metrics"]
    assert read_manifest(tmp_path / "out", rebuild="").metrics["alarms"] == value["metrics"]["alarms"]
    assert "Monitor, step" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert {"eval_chosen_logp", "eval_repetition", "eval_answer_tokens", "eval_kl"} <= lines[0].keys()


def test_an_alarm_is_told_once(place):
    run = ruinous(place, "x", "warn")
    told = []
    tell = Watch(run, {"chosen_logp_at_start": -1.0}).news(told.append)
    history = [{"step": 5, "eval_chosen_logp": -3.0}]
    tell(history)
    tell(history)
    assert told == ["Monitor, step 5: chosen_logp went from -1.000 to -3.000 (limit -1.200)"]
