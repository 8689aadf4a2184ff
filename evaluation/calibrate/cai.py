"""The evals and samples of the Constitutional AI paper (Bai et al. 2022), as its repository lays them out.

The repository has no licence file: its rows are read from a path and never copied here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from evaluation.calibrate.gold import Gold, GoldItem, GoldPair, conversation, make_prompt, split_transcripts
from inference.records import Prompt, Role
from inference.transcripts import RejectedRow
from runs.errors import UserError

CLASSES = (
    "theft", "discrimination", "adult_content", "offensive_language", "unethical", "violence", "soliciting_pii",
    "bullying", "misinformation",
)  # fmt: skip
"""The nine classes of the harmfulness classification, by the keyword that their option's text is known by."""
_KEYWORDS = (
    "theft",
    "discriminat",
    "adult",
    "offensive",
    "unethical",
    "violence",
    "soliciting",
    "bully",
    "misinformation",
)
EVASIVE = {"HHRLHF": True, "HRLHF": False, "RLMADISON": False, "RLMADISON_COT": False}
"""System → whether it is the evasive one: the paper trained RL-CAI not to be, and HRLHF was never taught to refuse."""
_TURN = re.compile(r"(?:^|\n)\s*(Human|Assistant|H|A)\s*:\s*")
_STOP = re.compile(r"\s*\n\n(?:Human|H):.*\Z", re.DOTALL)
_OPTION = re.compile(r"\(([A-I])\)\s*([^\n(]+)")


def hhh(name: str, number: int, row: dict[str, Any]) -> Iterator[Gold]:
    """438 pairs of transcripts, correct and incorrect; several share a context, which is the cluster."""
    prompt, better, worse = split_transcripts(_text(row["text_correct"]), _text(row["text_incorrect"]), "hhh_pairs")
    cluster = "\n".join(message.content for message in prompt.messages)
    yield GoldPair(task="hhh_pairs", dataset=name, prompt=prompt, better=better, worse=worse, cluster=cluster)


def choices(name: str, number: int, row: dict[str, Any]) -> Iterator[Gold]:
    """Harmful v. ethical (one wrong option), and the nine-way classification (eight)."""
    text = str(row["prompt"])
    prompt, answer = _conversation(text)
    correct = _chosen(name, number, text, _text(row["corrects"]))
    cluster = "\n".join(message.content for message in prompt.messages)
    if len(row["incorrects"]) == 1:
        label = "harmful" in correct or "unethical" in correct
        asked = prompt.model_copy(update={"expected": "refuse"})
        yield GoldItem(task="harm", dataset=name, prompt=asked, response=answer, label=label, cluster=cluster)
        return
    kinds = [kind for kind, keyword in zip(CLASSES, _KEYWORDS, strict=True) if keyword in correct]
    if not kinds:
        raise UserError(f"{name}, row {number}: unknown label in column 'corrects'.", mend=f"Known: {CLASSES}.")
    kind = kinds[0]
    yield GoldItem(
        task="harm_class", dataset=name, prompt=prompt, response=answer, label=True, cluster=cluster, kind=kind
    )


def samples(name: str, number: int, row: dict[str, Any]) -> Iterator[Gold]:
    """Sampled answers of one system; prompts are joined by their text, which is the cluster."""
    system = next((part for part in _parts(name) if part in EVASIVE), None)
    if system is None:
        raise UserError(
            f"{name}: the file's name holds none of the systems {', '.join(EVASIVE)}.",
            why="The CAI samples say which system answered by their file or folder only.",
        )
    prompt = _prompt(row["rl_prompt"])
    for answer in row["sampled_answers"]:
        text = _STOP.sub("", str(answer["sampled_string"])).strip()
        if text:
            yield GoldItem(
                task="evasive",
                dataset=system,
                prompt=prompt,
                response=text,
                label=EVASIVE[system],
                cluster=prompt.text,
            )


def revisions(name: str, number: int, row: dict[str, Any]) -> Iterator[Gold]:
    """SL-CAI's chains: the last revision against the first answer."""
    prompt = _prompt(row["rl_prompt"], "revision_pairs")
    first = _STOP.sub("", _sample(row["initial_response"])).strip()
    last = _STOP.sub("", _sample(row["cst"][-1]["revision"])).strip()
    if not first or not last or first == last:
        raise RejectedRow("nothing_revised")
    yield GoldPair(
        task="revision_pairs",
        dataset="SLMADISON",
        prompt=prompt,
        better=last,
        worse=first,
        cluster=prompt.text,
    )


def _parts(name: str) -> list[str]:
    """The words of a path that may be a system, longest first, so that RLMADISON_COT is not RLMADISON."""
    path = PurePosixPath(name.replace("\\", "/"))
    whole = "/".join([*path.parts[:-1], path.name.split(".")[0]]).upper()
    return [system for system in sorted(EVASIVE, key=len, reverse=True) if re.search(rf"(?<![A-Z]){system}", whole)]


def _text(value: Any) -> str:
    """A string, or the only string of a list."""
    return str(value[0] if isinstance(value, list) else value)


def _sample(value: Any) -> str:
    """The text of ``{"sample": …}``, of a list of one, or of a plain string."""
    if isinstance(value, list):
        value = value[0]
    return str(value["sample"] if isinstance(value, dict) else value)


def _prompt(value: Any, task: str = "evasive") -> Prompt:
    """A prompt of the samples: a transcript that ends with "Assistant:", or the bare request."""
    text = _text(value).strip()
    turns = _turns(re.sub(r"\n*(?:Assistant|A):\s*\Z", "", text))
    return conversation(turns, task) if turns and turns[-1][0] == "user" else make_prompt(text, task)


def _turns(text: str) -> list[tuple[Role, str]]:
    """(role, content) of each turn, what stands before the first marker left out."""
    marks = list(_TURN.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)] if marks else []
    roles: dict[str, Role] = {"H": "user", "A": "assistant"}
    return [
        (roles[mark[1][0]], text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
        if text[mark.end() : end].strip()
    ]


def _conversation(text: str) -> tuple[Prompt, str]:
    """The conversation inside a multiple-choice prompt, and its last answer.

    Raises:
        RejectedRow: there is no answer of an assistant in it.
    """
    options = _OPTION.search(text)
    turns = _turns(text[: options.start()] if options else text)
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if len(turns) < 2:
        raise RejectedRow("no_answer_to_judge")
    *before, (_, answer) = turns
    # An instruction that follows the conversation stands in its own paragraph.
    return conversation(before, "harm_class"), answer.split("\n\n")[0].strip()


def _chosen(name: str, number: int, text: str, correct: str) -> str:
    """The text of the correct option, lower case; ``corrects`` names it by its letter or quotes it."""
    options: dict[str, str] = {letter: option.strip().lower() for letter, option in _OPTION.findall(text)}
    letter = re.fullmatch(r"\s*\(?([A-I])\)?[.:]?\s*", correct)
    if letter and letter[1] in options:
        return options[letter[1]]
    quoted = _OPTION.search(correct)
    if quoted:
        return quoted[2].strip().lower()
    if correct.strip():
        return correct.strip().lower()
    raise UserError(f"{name}, row {number}: column 'corrects' names no option of the prompt.")
