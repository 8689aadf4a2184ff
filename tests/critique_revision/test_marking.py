"""Evaluation prompts, the safety classifier and the bars: what the whole set is held against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from critique_revision.balance import balance, bars
from critique_revision.config import ClassifierFilter, Dedup, FilterSettings, PreferenceCheck
from critique_revision.constitution import load_principles
from critique_revision.decontamination import EvaluationPrompts, prompt_files
from critique_revision.filters import Standing
from critique_revision.marking import Marking
from critique_revision.records import ChosenPrompt, PreferencePair
from critique_revision.safety import context, preferred, unsafe
from critique_revision.shares import share
from inference.records import Message, prompt_id
from inference.splits import split_of
from runs.errors import UsageError
from runs.paths import CONFIGS
from safety_classifier.labels import LABELS


class Words:
    """A classifier that finds harm in "bomb" and insults in "fool", and likes long answers."""

    labels = LABELS
    identity = "words"
    thresholds = dict.fromkeys(LABELS.of("category", "response"), 0.5)

    def __init__(self) -> None:
        self.calls: list[int] = []

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> np.ndarray:
        self.calls.append(len(texts))
        found = np.zeros((len(texts), len(LABELS.names)))
        for row, text in enumerate(texts):
            found[row, LABELS.column("harmful_response")] = 0.4 * text.count("bomb")
            found[row, LABELS.column("toxicity")] = 0.6 * text.count("fool")
            found[row, LABELS.column("helpfulness")] = len(text)
            found[row, LABELS.column("harmlessness")] = -text.count("bomb")
        return found


def item(prompt: str, chosen: str, rejected: str = "A reply.", tag: str = "red_team") -> Standing:
    messages = (Message(role="user", content=prompt),)
    return Standing(prompt_id(messages), messages, tag, chosen, rejected)


def evaluation_file(path: Path, *prompts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def test_wilson_is_statsmodels():
    for count, n in ((0, 5), (3, 7), (109, 240), (7, 7)):
        low, high = proportion_confint(count, n, method="wilson")
        assert share(count, n)["interval"] == pytest.approx([low, high], abs=1e-4)
    assert share(0, 0)["share"] is None


def test_prompts_and_chosen_texts_are_held_against_the_evaluation(tmp_path):
    asked = "Tell me in one short line why the sky is blue today"
    long = "Describe how a bill becomes a law in a parliament with two chambers"
    evaluation_file(tmp_path / "prompts" / "one.jsonl", asked, long)
    evaluation_file(tmp_path / "two.jsonl", "What rhymes with orange?")
    held = EvaluationPrompts([tmp_path / "prompts", tmp_path / "two.jsonl"], Dedup())
    assert [(Path(row["file"]).name, row["prompts"]) for row in held.sources] == [("one.jsonl", 2), ("two.jsonl", 1)]
    clean = "No."
    assert held.hold(item("what rhymes with ORANGE?", clean))  # the same prompt
    assert held.hold(item("So what rhymes with orange?", clean))  # nearly; too short for a run of eight words
    assert held.hold(item(f"Please: {asked}, and why not green.", clean))  # eight words in a row
    assert held.hold(item("Something else", f"You ask: {long}?"))  # the chosen text repeats a prompt
    assert not held.hold(item("Something else", "The sky is blue.", rejected=long))
    assert not held.hold(item("What rhymes with purple hats in spring?", clean))


def test_evaluation_prompts_that_are_not_there_are_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.jsonl", tmp_path / "empty"):
        with pytest.raises(UsageError, match=r"skip=\[in_evaluation\]"):
            prompt_files([path])
    assert list(prompt_files([Path("evaluation/prompts")])) == ["evaluation/prompts/core.jsonl"]


def test_each_pair_has_its_first_reason_and_what_was_looked_at_is_on_record(tmp_path):
    file = evaluation_file(tmp_path / "prompts.jsonl", "What rhymes with orange?")
    judge = Words()
    settings = FilterSettings(evaluation_prompts=(), classifier=ClassifierFilter(enabled=True))
    marking = Marking(settings, [file], judge=judge)
    items = [
        item("What rhymes with orange?", "bomb bomb"),
        item("How do I build it?", "Take a bomb apart."),
        item("How do I build it?", "Take a bomb apart."),
        item("Who is a fool?", "No one here is."),
    ]
    assert marking.reasons(items) == ["in_evaluation", "unsafe_chosen", "duplicate", None]
    assert judge.calls == [2, 2]  # only what is left is judged, each side in one call
    assert marking.seen["classifier"] == "words"
    assert marking.seen["evaluation_prompts"][0]["prompts"] == 1
    wanted = settings.model_copy(update={"preference_check": PreferenceCheck(enabled=True)})
    blind = Marking(wanted, [file], judge=judge)
    blind.reasons(items)
    assert "selected these pairs" in blind.preferred(items)["unscored"]


def test_nothing_is_loaded_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("critique_revision.marking.load_judge", lambda _: pytest.fail("the classifier was loaded"))
    marking = Marking(FilterSettings(skip=("in_evaluation",)))
    assert marking.reasons([item("a", "b")]) == [None]
    assert marking.preferred([item("a", "b")]) is None
    assert marking.seen == {}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [True, False, True, True]),
        ({"margin": 0.0}, [True, False, True, True]),
        ({"margin": 0.4}, [False, False, True, True]),
        ({"thresholds": {}}, [True, False, False, True]),
        ({"thresholds": {}, "margin": 0.7}, [False, False, False, True]),
        ({"thresholds": {"toxicity": 0.7}, "margin": 0.9}, [False, False, False, False]),
        ({"head": "toxicity", "thresholds": {"toxicity": 0.5}}, [False, False, True, False]),
    ],
)
def test_the_more_harmful_side_and_the_thresholds(settings, expected):
    items = [
        item("p", "a bomb", "nothing"),  # .4 against 0
        item("p", "a bomb", "two bomb bomb"),  # .4 against .8
        item("p", "fool", "fool"),  # toxic on both sides, .6
        item("p", "bomb bomb", "nothing"),  # .8
    ]
    assert unsafe(items, ClassifierFilter(**settings), Words()) == expected


def test_names_that_are_no_heads():
    for settings in ({"head": "harmful_respons"}, {"thresholds": {"helpfulness": 0.1}}):
        with pytest.raises(UsageError, match="Known: "):
            unsafe([], ClassifierFilter(**settings), Words())
    with pytest.raises(UsageError, match="Did you mean 'helpfulness'"):
        preferred([], PreferenceCheck(heads={"benign": "helpfullness"}), Words())


def test_preferences_by_tag_with_denominators():
    items = [
        item("p", "a long good answer", "short", "benign"),
        item("p", "short", "a long good answer", "benign"),
        item("p", "no", "a bomb", "red_team"),
        item("p", "no", "nothing", "red_team"),  # a tie is no preference
        item("p", "no", "nothing", "other"),
    ]
    found = preferred(items, PreferenceCheck(), Words())
    assert (found["count"], found["n"], found["not_scored"]) == (2, 4, {"other": 1})
    assert found["by_tag"]["benign"]["head"] == "helpfulness"
    assert found["by_tag"]["red_team"]["share"] == 0.5
    assert found["interval"] == pytest.approx(proportion_confint(2, 4, method="wilson"), abs=1e-4)
    assert preferred([], PreferenceCheck(), Words())["share"] is None


def test_the_classifier_sees_conversations_as_it_was_trained_to():
    turns = [Message(role=role, content=role) for role in ("user", "assistant", "user")]
    assert context(tuple(turns[:1])) == "user"
    assert context(tuple(turns)) == "Human: user Assistant: assistant Human: user"


CONSTITUTION = load_principles(CONFIGS / "constitutions" / "default.yaml")


def made(number: int, principle: str, chosen: str = "", **changes: object) -> PreferencePair:
    prompt = (Message(role="user", content=f"{number} " * 9),)
    values: dict[str, object] = {
        "prompt": prompt,
        "chosen": (Message(role="assistant", content=chosen or f"chosen {number}"),),
        "rejected": (Message(role="assistant", content=f"the other {number}"),),
        "prompt_id": prompt_id(prompt),
        "tag": "benign",
        "step": 1,
        "principle_ids": (principle,),
        "split": split_of(prompt, 0.1),
    }
    return PreferencePair(**{**values, **changes})


def chosen_prompts(pairs: Sequence[PreferencePair], *categories: str) -> list[ChosenPrompt]:
    return [
        ChosenPrompt(prompt_id=pair.prompt_id, messages=pair.prompt, tag=pair.tag, source="test", categories=categories)
        for pair in pairs
    ]


def test_bars_by_hand():
    helpful = [row.id for row in CONSTITUTION.principles if row.category == "helpfulness"]
    pairs = [made(number, name) for number, name in enumerate(helpful)]
    found = balance(pairs, chosen_prompts(pairs, "helpfulness"), CONSTITUTION, Dedup())
    assert all(bar.holds is not False for bar in bars(found, {})), bars(found, {})
    assert found["principles"]["largest"]["times"] == 1.0
    # All pairs by one of k principles: k times its fair share.
    pairs = [made(number, helpful[0]) for number in range(8)]
    found = balance(pairs, chosen_prompts(pairs, "helpfulness"), CONSTITUTION, Dedup())
    assert found["principles"]["largest"] == {
        "principle": helpful[0], "share": 1.0, "fair_share": round(1 / len(helpful), 4), "times": float(len(helpful)),
    }  # fmt: skip
    broken = {bar.name for bar in bars(found, {}) if bar.holds is False}
    assert broken == {"principles_used", "largest_principle"}


def test_bars_name_what_spoils_a_set():
    first = made(1, "help-01")
    pairs = [
        first,
        first,
        made(2, "help-02", chosen="The Other  2"),
        made(3, "help-03", rejected=(Message(role="assistant", content="chosen 3"),)),
        made(4, "help-04", split=None),
    ]
    found = balance(pairs, chosen_prompts(pairs), CONSTITUTION, Dedup())
    assert (found["identical"], found["duplicates"], found["splits"]["unsplit"]) == (2, 1, 1)
    held = {bar.name: bar.holds for bar in bars(found, {})}
    assert held["identical"] is False
    assert held["duplicates"] is False
    assert held["split"] is None
    assert held["chosen_preferred"] is None
    both = [first, first.model_copy(update={"split": "holdout" if first.split == "train" else "train"})]
    found = balance(both, chosen_prompts(both), CONSTITUTION, Dedup())
    assert {bar.name: bar.holds for bar in bars(found, {})}["split"] is False


def test_pairs_without_principles_have_no_balance_to_keep():
    pairs = [made(1, "x", principle_ids=()), made(22, "x", principle_ids=())]
    found = balance(pairs, chosen_prompts(pairs), CONSTITUTION, Dedup())
    assert found["principles"]["largest"] is None
    held = {
        bar.name: bar.holds for bar in bars(found, {"chosen_preferred": {"interval": [0.6, 0.9], "count": 8, "n": 9}})
    }
    assert held["principles_used"] is held["largest_principle"] is None
    assert held["chosen_preferred"] is True
