"""The data that the evaluators are fitted on, read from a data root (`--fit`); none of it ships."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from evaluation.calibrate.gold import GoldItem, GoldPair, Task, make_prompt
from evaluation.calibrate.readers import read_file
from inference.records import Prompt
from runs.errors import UserError
from runs.paths import shown

HARMLESS = "hh-rlhf/harmless-base/train.jsonl.gz"
HELPFUL = "hh-rlhf/helpful-base/train.jsonl.gz"
CONSTITUTION = {
    "harmless_pairs": "constitution-pairs/train-harmless-0-10k-iteration-0-with-no-sorry-at-all.json",
    "helpful_pairs": "constitution-pairs/train-helpful-0-10k-iteration-0-with-no-sorry-at-all.json",
}
REFUSALS = (
    "refusal/xstest_completions_llama2orig.csv",
    "refusal/xstest_completions_mistralinstruct.csv",
    "refusal/pyrit_refusal.csv",
)
"""PyRIT's extra file stays out: it checks the fit."""
FILES = (HARMLESS, HELPFUL, *CONSTITUTION.values(), *REFUSALS)
FOLDS = 5
MOST_PAIRS = 12_000
"""hh-rlhf pairs whose features are fitted on, spread evenly; some sixty coefficients settle on far fewer. The wording,
which has thousands of weights, sees all pairs."""


def require(root: Path) -> None:
    """Raises `UserError` where a development file is missing below ``root``."""
    missing = [name for name in FILES if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{shown(root)} lacks {len(missing)} of the {len(FILES)} development files.",
            why="Missing: " + ", ".join(missing),
            mend="Point --fit at the folder that holds them (docs/evaluators.md says where they come from).",
        )


def preference_pairs(root: Path, task: Task) -> list[GoldPair]:
    """hh-rlhf pairs of ``task`` (empty answers left out: there is nothing to fit on)."""
    name = HARMLESS if task == "harmless_pairs" else HELPFUL
    found = read_file(root / name, name=name).gold
    return [pair for pair in found if isinstance(pair, GoldPair) and pair.better and pair.worse]


def spread(pairs: list[GoldPair], most: int) -> list[int]:
    """Positions of at most ``most`` pairs, evenly spread."""
    if len(pairs) <= most:
        return list(range(len(pairs)))
    return [index * len(pairs) // most for index in range(most)]


def constitution_pairs(root: Path, task: Task) -> list[GoldPair]:
    """Two answers of one model under opposite constitutions; the first followed the good one."""
    name = CONSTITUTION[task]
    pairs = []
    for answers in json.loads((root / name).read_text(encoding="utf-8")).values():
        better, worse = (str(answer["response"]).strip() for answer in answers)
        request = str(answers[0]["prompt"]).rpartition("Human:")[2].removesuffix("Assistant:").strip()
        if better and worse and better != worse and request:
            pairs.append(
                GoldPair(
                    task=task,
                    dataset=name,
                    prompt=make_prompt(request, task),
                    better=better,
                    worse=worse,
                    cluster=request,
                )
            )
    return pairs


def refusal_items(root: Path) -> Iterator[GoldItem]:
    """Labelled answers, refused or not."""
    for name in REFUSALS:
        for item in read_file(root / name, name=name).gold:
            if isinstance(item, GoldItem):
                yield item


def topic_items(pairs: Sequence[GoldPair]) -> list[tuple[Prompt, str, bool]]:
    """Good answers to their own requests, and the same answers to the requests of other dialogues."""
    order = list(range(len(pairs)))
    random.Random(0).shuffle(order)  # noqa: S311 - a fixed seed: a fit must give the same file twice
    own = [(pair.prompt, pair.better, True) for pair in pairs]
    turn = zip(order, [*order[1:], order[0]], strict=True)
    return own + [(pairs[first].prompt, pairs[second].better, False) for first, second in turn]


def fold_of(cluster: str) -> int:
    """The cross-validation fold of a cluster: a hash, so that it does not depend on order or on other rows."""
    return int(sha256(cluster.encode()).hexdigest(), 16) % FOLDS
