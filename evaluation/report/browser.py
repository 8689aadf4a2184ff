"""The samples as the page's browser reads them: rows of short arrays, with repeated texts written once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from evaluation.records import Sample
from evaluation.report import figures
from evaluation.report.data import PromptRow


class _Index:
    """Gives each text a number, in the order in which texts are first met."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        for text in known:
            self(text)

    def __call__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)


def browser_data(
    rows: Sequence[PromptRow],
    models: Sequence[str],
    evaluators: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    uninformative: Iterable[str] = (),
) -> dict[str, Any]:
    """What ``assets/report.js`` shows.

    Args:
        rows: prompts with their answers.
        models: in the order of the columns.
        evaluators: in the order of the scores.
        pairs: (later, earlier) model names that changes are looked for between.
        uninformative: evaluators to be marked as such.
    """
    categories, expected, modes, strings = _Index(), _Index(), _Index(), _Index()

    def answer(sample: Sample | None) -> list[Any] | None:
        if sample is None:
            return None
        scores: list[list[Any] | None] = []
        spans = []
        for number, name in enumerate(evaluators):
            judgement = sample.scores.get(name)
            if judgement is None:
                scores.append(None)
            elif judgement.value is None:
                scores.append(["", strings(str(judgement.unscored))])
            else:
                scores.append([round(judgement.value, 4), strings(judgement.explanation or judgement.label)])
                spans += [[span.start, span.end, number, strings(span.why)] for span in judgement.evidence]
        cut = int(sample.finish_reason == "length")
        return [sample.response, modes(sample.mode), cut, sample.completion_tokens, scores, spans]

    table = [
        [
            [[message.role, message.content] for message in row.prompt.messages],
            categories(row.prompt.category),
            expected(row.prompt.expected),
            list(row.prompt.tags),
            [answer(row.answers.get(model)) for model in models],
        ]
        for row in rows
    ]
    unknown = [mode for mode in modes.texts if mode not in figures.MODE_COLOURS]
    return {
        "models": list(models),
        "colours": [figures.model_colour(models, model) for model in models],
        "evaluators": list(evaluators),
        "uninformative": sorted(uninformative),
        "pairs": [list(pair) for pair in pairs],
        "categories": categories.texts,
        "expected": expected.texts,
        "modes": modes.texts,
        "modeColours": [figures.mode_colour(mode, unknown) for mode in modes.texts],
        "strings": strings.texts,
        "rows": table,
    }


def script_json(value: Any) -> str:
    r"""JSON that is safe inside a ``<script>`` element: no tag or comment can begin or end in it.

    ``<``, ``>`` and ``&`` become ``\u003c`` and so on, which JSON reads back as the same text; U+2028 and U+2029
    end a line in old JavaScript.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
