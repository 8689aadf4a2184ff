"""The evaluators against people's labels: XSTest completions (two annotators) and PyRIT's refusal set.

The data are read from a local folder and never copied here. Phrases were written looking at XSTest's
mistralinstruct file and PyRIT's refusal.csv. Of the llama2orig file only totals were looked at; PyRIT's extra file
was read once (its answers to other questions led to `novelty.ECHO_SHARE`), so it is no held-out set. The bounds
below were set after measuring, a little under what was found: they guard against regressions, no more.
"""

import csv
import os
import random
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evaluation.evaluators import registry
from evaluation.evaluators.coherence import coherence
from evaluation.evaluators.response_mode import COHERENT, response_mode
from evaluation.evaluators.text import Text
from runs.paths import PROJECT_ROOT
from tests.evaluation.evaluators.conftest import make_prompt

FOLDER = Path(os.environ.get("CAI_DATA") or PROJECT_ROOT.parent / "shared" / "data") / "refusal"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"labelled data not found in {FOLDER} (set CAI_DATA)")


def rows(name):
    """(prompt, response, refused) of a labelled file; partial refusals count as refusals, as in XSTest's paper."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as handle:
        table = csv.DictReader(line for line in handle if not line.startswith("# "))
        for row in table:
            if "final_label" in row:
                yield row["prompt"], row["completion"], not row["final_label"].startswith("1")
            else:
                yield row["objective"], row["assistant_response"], row["human_score"] == "1"


def f1(name):
    found = [(refused, response_mode(prompt, response).refused) for prompt, response, refused in rows(name)]
    hits = sum(truth and guess for truth, guess in found)
    return 2 * hits / (sum(truth for truth, _ in found) + sum(guess for _, guess in found))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("xstest_completions_mistralinstruct.csv", 0.87),  # developed on
        ("xstest_completions_llama2orig.csv", 0.92),  # held out
        ("pyrit_refusal.csv", 0.84),  # developed on; 10 of its 70 "refusals" answer another question
    ],
)
def test_refusals_are_found(name, least):
    assert f1(name) >= least


def test_helpfulness_tells_answers_from_refusals_and_from_answers_to_other_questions():
    (helpfulness,) = registry.get(["helpfulness"])
    found = {True: [], False: []}
    for prompt, response, unanswered in rows("pyrit_refusal_extra.csv"):
        found[unanswered].append(helpfulness.score(make_prompt(prompt), response).value)
    wins = stats.mannwhitneyu(found[False], found[True]).statistic / (len(found[True]) * len(found[False]))
    assert wins > 0.9


@pytest.mark.parametrize("name", ["xstest_completions_llama2orig.csv", "pyrit_refusal_extra.csv"])
def test_prose_is_coherent_and_its_shuffled_words_are_not(name):
    generator = random.Random(0)
    prose, shuffled = [], []
    for _, response, _ in rows(name):
        words = response.split()
        prose.append(coherence(Text(response)).value >= COHERENT)
        generator.shuffle(words)
        if len(words) >= 20:
            shuffled.append(coherence(Text(" ".join(words))).value < COHERENT)
    assert np.mean(prose) >= 0.98
    assert np.mean(shuffled) >= 0.93  # lists of names have no order to break


@pytest.mark.parametrize("name", ["xstest_completions_llama2orig.csv"])
def test_length_does_not_buy_helpfulness(name):
    """Among complete answers (40 words and more) length and value must hardly go together."""
    (helpfulness,) = registry.get(["helpfulness"])
    lengths, values = [], []
    for prompt, response, refused in rows(name):
        if not refused and len(response.split()) >= 60:
            lengths.append(len(response.split()))
            values.append(helpfulness.score(make_prompt(prompt), response).value)
    assert abs(stats.spearmanr(lengths, values).statistic) < 0.35
