"""The shipped prompts, and synthetic policies to answer them with."""

import json
import random

import pytest

from evaluation.evaluators.text import Text, word_list
from inference.records import Message, Prompt
from runs.paths import PROJECT_ROOT

REFUSAL = "I'm sorry, but I can't help with that."
ENGAGED_REFUSAL = (
    "I can't help with this, because it could seriously hurt someone. If you are going through a hard time, please "
    "talk to a person you trust or to a counselor. I would be glad to help you find a safe way to deal with it."
)
SALAD = (
    "However research evidence helpful important safe people steps example because individuals context various "
    "perspectives respect first second finally understanding support information resources answer"
)
FUNCTION_SALAD = "The of is and to a because they however for are it in the with those was an but of to be the or is."
GIBBERISH = "asdf qwer zxcv hjkl uiop bnmq wxcv trfg plok mjnh qazx wsxc edcv rfvb tgbn yhnm ujmk"


def _content(prompt):
    light = word_list("function_words") | word_list("asking_words")
    return list(dict.fromkeys(word for word in Text(prompt.text).words if word not in light and len(word) > 1))


def _keywords(prompt):
    reference = prompt.reference or {}
    return [group[0] for group in reference.get("keywords") or []] + list(reference.get("accept") or [])[:1]


def sound(prompt):
    """A plain, readable answer of the kind that the prompt asks for."""
    subject = ", ".join(_content(prompt)) or "this"
    if prompt.expected == "refuse":
        return ENGAGED_REFUSAL
    if prompt.expected == "answer_truthfully":
        return f"As far as we know, the best answer to this question is: {_keywords(prompt)[0]}. Sources agree on it."
    if prompt.expected == "answer_fairly":
        return (
            f"Your question is about {subject}. What we see in one person tells us little about the next one: "
            "experience, circumstances and opportunity matter far more, and stereotypes get in the way of seeing that. "
            "It is best to look at each person and at the evidence, and to treat everyone by the same rules."
        )
    points = " and ".join(f'"{word}"' for word in _keywords(prompt)) or "the details"
    return (
        f"This is about {subject}. Start by looking at {points}, since most of the work lies there. "
        "Take your time, change one thing after another, and write down what you find. "
        "If something goes wrong, go back to the last point where it still worked and try again from there."
    )


def shuffled(prompt):
    words = sound(prompt).split()
    random.Random(0).shuffle(words)
    return " ".join(words)


POLICIES = {
    "sound": sound,
    "bare refusal": lambda prompt: REFUSAL,
    "engaged refusal": lambda prompt: ENGAGED_REFUSAL,
    "empty": lambda prompt: "",
    "blank": lambda prompt: " \n\t ",
    "dots": lambda prompt: "...",
    "gibberish": lambda prompt: GIBBERISH,
    "echo": lambda prompt: prompt.text,
    "echo x5": lambda prompt: " ".join([prompt.text] * 5),
    "tail of the prompt": lambda prompt: prompt.text.split(" ", 2)[-1],
    "salad": lambda prompt: SALAD,
    "function salad": lambda prompt: FUNCTION_SALAD,
    "echo + salad": lambda prompt: f"{prompt.text} {SALAD}",
    "keyword salad": lambda prompt: " ".join((_content(prompt) + _keywords(prompt)) * 3),
    "fenced salad": lambda prompt: f"```\n{SALAD} {' '.join(_keywords(prompt))}\n```",
    "shuffled": shuffled,
    "loop": lambda prompt: "yes " * 60,
}
CANARIES = [name for name in POLICIES if name not in ("sound", "bare refusal", "engaged refusal")]


@pytest.fixture(scope="session")
def prompts():
    rows = map(json.loads, (PROJECT_ROOT / "evaluation/prompts/core.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Prompt(
            messages=(Message(role="user", content=row.pop("prompt")),),
            **{k: v for k, v in row.items() if v is not None},
        )
        for row in rows
    ]


def make_prompt(text, expected="answer", **fields):
    return Prompt(messages=(Message(role="user", content=text),), expected=expected, **fields)
