"""Predictions as a table, CSV or Parquet, written from their finished JSON lines in one pass."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runs.atomic import write_error
from runs.errors import UsageError
from safety_classifier.labels import Labels

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
"""Suffix of an output to its format."""

_CHUNK = 4096

Record = dict[str, Any]


def write_table(log: Path, target: Path, labels: Labels, keep: Sequence[str]) -> None:
    """Write the records of ``log`` to ``target``: for each head its score, ``HEAD_flagged`` and ``HEAD_escalate``.

    A cell is empty where a head does not apply. What decided a score is in the JSON lines only.

    Raises:
        UserError: the disk is full.
        UsageError: a kept column has the name of one of ours.
    """
    kinds = columns(labels, keep)
    try:
        if target.suffix == ".csv":
            _write_csv(log, target, kinds, keep)
        else:
            _write_parquet(log, target, kinds, keep)
    except OSError as error:
        raise write_error(target, error) from error


def columns(labels: Labels, keep: Sequence[str]) -> dict[str, str]:
    """Column name to kind, in order: ``int``, ``string``, ``bool`` or ``double``.

    Raises:
        UsageError: a kept column has the name of one of ours.
    """
    kinds = {"row": "int", "key": "string", "safe": "double"}
    for head in labels.heads:
        kinds[head.name] = "double"
        if head.kind != "preference":
            kinds |= {f"{head.name}_flagged": "bool", f"{head.name}_escalate": "bool"}
    kinds |= {"windows": "int", "obfuscation": "double", "error": "string"}
    for name in keep:
        if name in kinds:
            raise UsageError(f"--keep {name}: the output has a column of that name.", mend="Write JSON lines instead.")
    return {"row": "int", "key": "string", **dict.fromkeys(keep, "string"), **kinds}


def _flat(record: Record, keep: Sequence[str]) -> Record:
    kept = record.get("input", {})
    flat: Record = {name: record.get(name) for name in ("row", "key", "safe", "windows", "obfuscation", "error")}
    if record["error"] is None:
        flat |= {name: _cell(kept.get(name)) for name in keep}
        flat |= record["probabilities"] | (record["response"] or {}) | (record["preference"] or {})
        for field in ("flagged", "escalate"):
            flat |= {f"{name}_{field}": value for name, value in record[field].items()}
    return flat


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _chunks(log: Path, keep: Sequence[str]) -> Iterator[list[Record]]:
    with log.open("rb") as handle:
        chunk: list[Record] = []
        for line in handle:
            chunk.append(_flat(json.loads(line), keep))
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def _write_csv(log: Path, target: Path, kinds: dict[str, str], keep: Sequence[str]) -> None:
    with target.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(kinds), lineterminator="\n")
        writer.writeheader()
        for chunk in _chunks(log, keep):
            writer.writerows(
                {name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()}
                for row in chunk
            )


def _write_parquet(log: Path, target: Path, kinds: dict[str, str], keep: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    types = {"int": pa.int64(), "string": pa.string(), "bool": pa.bool_(), "double": pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for chunk in _chunks(log, keep):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
