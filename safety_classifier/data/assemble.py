"""Records of all sources as one table: read, sampled, merged."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runs.console import Reporter, plain
from safety_classifier.data.dedup import (
    NORMAL,
    Merged,
    digests,
    merge_copies,
    merge_near_copies,
    near_pairs,
    normal_forms,
)
from safety_classifier.data.minhash import Pairs, chain
from safety_classifier.data.readers import Faults, Item, read
from safety_classifier.data.sources import Source
from safety_classifier.examples import Example, Preference
from safety_classifier.labels import LABELS

if TYPE_CHECKING:
    import pandas

Advance = Callable[..., None]


@dataclass(frozen=True)
class Table:
    """All rows, merged."""

    frame: pandas.DataFrame
    """Columns text, context, their normal forms, source, group, weight, pair, one per head, and ``test_row``."""
    edges: Pairs
    """Pairs of rows that share a group, also through rows that were merged into them. Shape (pairs, 2)."""
    conflicts: dict[str, int]
    near_conflicts: dict[str, int]


def read_sources(
    sources: tuple[Source, ...], *, seed: int, max_rows: int | None, reporter: Reporter
) -> tuple[dict[str, list[Item]], dict[str, Faults]]:
    """The records of every source by its name, sampled, and what could not be used.

    Raises:
        UserError: a source is missing or damaged.
    """
    items: dict[str, list[Item]] = {}
    faults: dict[str, Faults] = {}
    with reporter.progress("reading sources", total=len(sources)) as advance:
        for source in sources:
            fault = faults[source.name] = Faults(source.name)
            found = _generated(source, seed, fault) if source.builtin else list(read(source, fault))
            limit = min((size for size in (source.limit, max_rows) if size is not None), default=len(found))
            items[source.name] = _sampled(found, limit, seed)
            if limit < len(found):
                fault.dropped["limit"] += len(found) - limit
            for line in fault.first:
                reporter.warn(plain(f"{source.name}: {line}"))
            advance(note=source.name)
    return items, faults


def merged_table(
    items: dict[str, list[Item]], sources: tuple[Source, ...], faults: dict[str, Faults], advance: Advance
) -> Table:
    """One table of the distinct rows; what merging drops is counted in ``faults``."""
    import pandas

    singles = _examples_frame(items, {source.name: source for source in sources})
    texts, contexts = singles["normal_text"].tolist(), singles["normal_context"].tolist()
    exact = merge_copies(singles, digests([f"{c}\0{t}" for c, t in zip(contexts, texts, strict=True)]))
    _count_dropped(singles, exact, "copy", faults)
    advance(note="exact copies")
    places = exact.frame.index.to_numpy()
    pairs = near_pairs([texts[i] for i in places], [contexts[i] for i in places])
    near = merge_near_copies(exact.frame.reset_index(drop=True), pairs)
    _count_dropped(exact.frame, near, "near-copy", faults)
    advance(note="near-copies")
    edges = _group_edges(singles, exact, near)
    preferences, reversed_pairs = _preferences_frame(items, {source.name: source for source in sources}, faults)
    frame = pandas.concat([near.frame.drop(columns="distinct"), preferences], ignore_index=True)
    conflicts = {**exact.conflicts, **reversed_pairs}
    return Table(frame, edges, conflicts, near.conflicts)


def _generated(source: Source, seed: int, faults: Faults) -> list[Item]:
    """The rows that this package's own templates write."""
    package = importlib.import_module(f"safety_classifier.{source.builtin}")
    records: list[Example | Preference] = [*package.generate(seed=seed), *package.preferences(seed=seed)]
    faults.rows = len(records)
    # The register's name is the row's source, whatever the template calls itself: counts go by it.
    return [Item(record.model_copy(update={"source": source.name}), test=False) for record in records]


def _sampled(items: list[Item], limit: int, seed: int) -> list[Item]:
    """``limit`` of the records, drawn by a hash of their texts, in their order."""
    if limit >= len(items):
        return items
    keys = digests([f"{seed}\0{_content(item.record)}" for item in items])
    chosen = np.sort(np.argsort(keys, kind="stable")[:limit])
    return [items[i] for i in chosen]


def _content(record: Example | Preference) -> str:
    if isinstance(record, Example):
        return f"{record.context}\0{record.text}"
    return f"{record.context}\0{record.chosen}\0{record.rejected}"


def _examples_frame(items: dict[str, list[Item]], sources: dict[str, Source]) -> pandas.DataFrame:
    import pandas

    rows = [(item.record, item.test) for found in items.values() for item in found if isinstance(item.record, Example)]
    labels = np.full((len(rows), len(LABELS.names)), np.nan, np.float32)
    columns = {name: place for place, name in enumerate(LABELS.names)}
    for place, (record, _) in enumerate(rows):
        for head, value in record.labels.items():
            labels[place, columns[head]] = value
    texts, contexts = [record.text for record, _ in rows], [record.context for record, _ in rows]
    return pandas.DataFrame(
        {
            "text": texts,
            "context": contexts,
            "normal_text": normal_forms(texts),
            "normal_context": normal_forms(contexts),
            "source": [record.source for record, _ in rows],
            "group": [record.group for record, _ in rows],
            "weight": [sources[record.source].weight for record, _ in rows],
            "pair": np.full(len(rows), -1),
            "test_row": [test for _, test in rows],
            "distinct": [sources[record.source].keep_near_duplicates for record, _ in rows],
        }
    ).join(pandas.DataFrame(labels, columns=list(LABELS.names)))


def _preferences_frame(
    items: dict[str, list[Item]], sources: dict[str, Source], faults: dict[str, Faults]
) -> tuple[pandas.DataFrame, dict[str, int]]:
    """Two adjacent rows for each distinct pair, the chosen one first; and, by head, pairs that contradict others."""
    import pandas

    found = [item for records in items.values() for item in records if isinstance(item.record, Preference)]
    records = [item.record for item in found if isinstance(item.record, Preference)]
    context, chosen, rejected = (
        normal_forms([getattr(record, name) for record in records]) for name in ("context", "chosen", "rejected")
    )
    heads = [record.head for record in records]
    keys = list(zip(heads, context, chosen, rejected, strict=True))
    known, seen = set(keys), set()
    conflicts: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for key, item, record in zip(keys, found, records, strict=True):
        if (key[0], key[1], key[3], key[2]) in known:
            conflicts[record.head] = conflicts.get(record.head, 0) + 1
            faults[record.source].dropped["conflict"] += 1
        elif key in seen:
            faults[record.source].dropped["copy"] += 1
        else:
            shared = {
                "context": record.context,
                "normal_context": key[1],
                "source": record.source,
                "group": record.group,
                "weight": sources[record.source].weight,
                "pair": len(rows) // 2,
                "test_row": item.test,
            }
            rows.append({"text": record.chosen, "normal_text": key[2], **shared, record.head: 1.0})
            rows.append({"text": record.rejected, "normal_text": key[3], **shared, record.head: 0.0})
        seen.add(key)
    columns = ["text", "context", *NORMAL, "source", "group", "weight", "pair", "test_row", *LABELS.names]
    frame = pandas.DataFrame(rows, columns=columns)
    return frame.astype({"pair": np.int64, "test_row": bool, **dict.fromkeys(LABELS.names, np.float32)}), conflicts


def _count_dropped(before: pandas.DataFrame, merged: Merged, reason: str, faults: dict[str, Faults]) -> None:
    gone = merged.into != np.arange(len(before))
    for source, count in before["source"][gone].value_counts().items():
        faults[str(source)].dropped[reason] += int(count)


def _group_edges(singles: pandas.DataFrame, exact: Merged, near: Merged) -> Pairs:
    """Pairs of rows of ``near`` that share a group, counting the groups of the rows that were merged into them."""
    after_exact = np.full(len(singles), -1)
    after_exact[exact.frame.index.to_numpy()] = np.arange(len(exact.frame))
    after_near = np.full(len(exact.frame), -1)
    after_near[near.frame.index.to_numpy()] = np.arange(len(near.frame))
    final = after_near[near.into[after_exact[exact.into]]]
    rows = np.flatnonzero((singles["group"] != "").to_numpy())
    codes = singles["group"].iloc[rows].factorize()[0].astype(np.int64)
    edges: Pairs = final[rows[chain(codes)]]
    return edges
