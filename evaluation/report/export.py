"""`evaluate report`: everything that is told of a run, written from its files. No model is loaded."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.report.charts import pairs, run_figures
from evaluation.report.comparator import comparator_json
from evaluation.report.data import RunData
from evaluation.report.grid import slug
from evaluation.report.html import report_page
from evaluation.report.lm_eval import lm_eval_results
from evaluation.report.model_card import model_card
from evaluation.report.static import save_figure
from runs.atomic import make_folder, write_bytes, write_text

PAGE, FIGURES, PARQUET, COMPARATOR, LM_EVAL, CARD = (
    "report.html", "figures", "samples.parquet", "comparator", "lm_eval", "model_card.md",
)  # fmt: skip
LAST_WRITTEN = CARD
"""Its presence means that the report is whole."""


class Written(NamedTuple):
    """What a report consists of."""

    page: Path
    figures: list[Path]
    files: list[Path]


def write_report(run: RunData, folder: Path, *, figures: bool = True) -> Written:
    """Write the page, the figures and the files for other tools.

    Args:
        run: a finished run.
        folder: where to; files of an earlier report are replaced.
        figures: whether to draw PNG and SVG.

    Raises:
        UserError: the folder cannot be written.
        UsageError: the run's constitution cannot be read.
    """
    from critique_revision.constitution import load_principles

    make_folder(folder)
    texts = {principle.id: principle.text for principle in load_principles(run.constitution).principles}
    drawn = run_figures(run)
    write_text(folder / PAGE, report_page(run, drawn, texts))
    made = [path for figure in drawn for path in save_figure(figure, make_folder(folder / FIGURES))] if figures else []
    files = [write_samples(run, folder / PARQUET), *_comparators(run, folder), *_lm_eval(run, folder)]
    write_text(folder / CARD, model_card(run))
    return Written(folder / PAGE, made, [*files, folder / CARD])


def _comparators(run: RunData, folder: Path) -> list[Path]:
    written = []
    for first, second in pairs(run.analysis.primary):
        path = make_folder(folder / COMPARATOR) / f"{slug(first)}-vs-{slug(second)}.json"
        write_text(path, _json(comparator_json(run, first, second)))
        written.append(path)
    return written


def _lm_eval(run: RunData, folder: Path) -> list[Path]:
    written = []
    for model in run.models:
        path = make_folder(folder / LM_EVAL / slug(model)) / "results.json"
        write_text(path, _json(lm_eval_results(run, model)))
        written.append(path)
    return written


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_samples(run: RunData, path: Path) -> Path:
    """samples.parquet: a row an answer, with a column for each evaluator's value and one for the reason of none.

    Columns: prompt_id, prompt (the last user turn), messages (JSON), category, expected, tags, pair, principle_ids,
    model, sample, response, mode, finish_reason, prompt_tokens, completion_tokens, seed; for each evaluator NAME:
    NAME (float, null where unscored or not applicable), NAME_unscored, NAME_label, NAME_evidence (JSON spans).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {}
    for sample in run.samples:
        prompt = sample.prompt
        row: dict[str, Any] = {
            "prompt_id": sample.prompt_id,
            "prompt": prompt.text,
            "messages": json.dumps([message.model_dump() for message in prompt.messages], ensure_ascii=False),
            "category": prompt.category,
            "expected": prompt.expected,
            "tags": list(prompt.tags),
            "pair": prompt.pair,
            "principle_ids": list(prompt.principle_ids),
            "model": sample.model,
            "sample": sample.sample,
            "response": sample.response,
            "mode": sample.mode,
            "finish_reason": sample.finish_reason,
            "prompt_tokens": sample.prompt_tokens,
            "completion_tokens": sample.completion_tokens,
            "seed": sample.seed,
        }
        for name in run.evaluators:
            judgement = sample.scores.get(name)
            row[name] = judgement.value if judgement else None
            row[f"{name}_unscored"] = judgement.unscored if judgement else None
            row[f"{name}_label"] = judgement.label if judgement else None
            spans = [span.model_dump() for span in judgement.evidence] if judgement else []
            row[f"{name}_evidence"] = json.dumps(spans, ensure_ascii=False) if spans else None
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    fields = [pa.field(name, _arrow_type(name, run.evaluators, pa)) for name in columns]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())
    return path


def _arrow_type(name: str, evaluators: Sequence[str], pa: Any) -> Any:
    """A column's type, so that a column of nothing but nulls has one as well."""
    if name in evaluators:
        return pa.float64()
    if name in {"sample", "prompt_tokens", "completion_tokens", "seed"}:
        return pa.int64()
    return pa.list_(pa.string()) if name in {"tags", "principle_ids"} else pa.string()
