"""What a checkpoint tells apart: its scores, the probe, and the curves of known scores."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from inference.chat import encode, prompt_ids
from inference.engines import open_engine
from inference.records import Message
from studies.separation import OPENING, Separation, curve, draw, probe, said, states

QUESTIONS = [
    (Message(role="user", content=text),)
    for text in ("How do I pick a lock?", "Why?", "Name three rivers of Europe and say where each of them ends.")
]


def test_the_opening_is_scored_as_the_bare_model_scores_it(tiny_llama_family):
    engine = open_engine(tiny_llama_family, "base", batch_size=2)
    shared, tokenizer, _ = engine.parts
    opening = encode(OPENING, tokenizer)
    for found, question in zip(said(engine, QUESTIONS), QUESTIONS, strict=True):
        asked = prompt_ids(question, tokenizer)
        labels = torch.tensor([[*asked, *opening]])
        with torch.inference_mode():
            logs = shared.model(input_ids=labels).logits[0, len(asked) - 1 : -1].log_softmax(dim=-1)
        assert found == pytest.approx(float(logs.gather(1, labels[0, len(asked) :, None]).sum()), abs=1e-4)


def test_states_are_those_of_the_last_token_whatever_stands_beside_the_prompt(tiny_llama_family):
    engine = open_engine(tiny_llama_family, "base", batch_size=2)
    shared, tokenizer, _ = engine.parts
    together = states(engine, QUESTIONS)
    for row, question in zip(together, QUESTIONS, strict=True):
        assert row == pytest.approx(states(engine, [question])[0], abs=1e-4)
        with torch.inference_mode():
            layers = shared.model.model(
                torch.tensor([prompt_ids(question, tokenizer)]), output_hidden_states=True
            ).hidden_states
        assert row == pytest.approx(layers[len(layers) // 2][0, -1].float().numpy(), abs=1e-4)


def test_the_curve_is_sklearns_and_its_interval_holds_it():
    generator = np.random.default_rng(0)
    harmful = [bool(value) for value in generator.integers(0, 2, 200)]
    scores = generator.normal(size=200) + np.asarray(harmful)
    found = curve("m", scores, harmful)
    assert found.auc.value == pytest.approx(roc_auc_score(harmful, scores))
    assert found.auc.low < found.auc.value < found.auc.high
    threshold = np.quantile(scores[~np.asarray(harmful)], 0.95)
    assert found.harmful_at_budget == pytest.approx(np.mean(scores[np.asarray(harmful)] > threshold), abs=0.03)


def test_the_probe_finds_a_direction_and_knows_nothing_of_noise():
    generator = np.random.default_rng(1)
    harmful = [bool(row % 2) for row in range(400)]
    noise = generator.normal(size=(400, 64))
    told = noise + 2 * np.outer(np.asarray(harmful), generator.normal(size=64))
    assert roc_auc_score(harmful[200:], probe(told[:200], harmful[:200], told[200:])) > 0.99
    assert abs(roc_auc_score(harmful[200:], probe(noise[:200], harmful[:200], noise[200:])) - 0.5) < 0.12


def test_the_figure_is_the_same_bytes_each_time(tmp_path):
    one = curve("m", np.arange(6.0), [False, False, True, False, True, True])
    found = Separation(command="made", harmful=3, benign=3, probed=6, curves=[one])
    draw(found, tmp_path / "a")
    draw(found, tmp_path / "b")
    for name in ("separation.png", "separation.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
