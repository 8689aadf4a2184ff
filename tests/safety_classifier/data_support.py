"""What the tests of the data package share: small sources in inoffensive words, and a featuriser of whole words."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from runs.paths import data_root
from safety_classifier.labels import LABELS

SUBJECTS = ["gardener", "baker", "sailor", "teacher", "painter", "farmer", "driver", "singer", "tailor", "miner"]
VERBS = ["repairs", "carries", "paints", "sells", "hides", "borrows", "washes", "draws", "lifts", "counts"]
OBJECTS = ["lamps", "kettles", "barrels", "ladders", "carpets", "trumpets", "baskets", "mirrors", "wheels", "candles"]
PLACES = [
    "beside the harbour",
    "under the old bridge",
    "near a quiet mill",
    "behind the town hall",
    "on the north road",
]


def sentence(number: int) -> str:
    """One of 5,000 sentences; few are near-copies of one another."""
    first, second, third, fourth = ((number // 10**place) % 10 for place in range(4))
    end = (
        f"{SUBJECTS[(first + third + 3) % 10]} {VERBS[(second * 3 + fourth) % 10]} {OBJECTS[(first * 7 + second) % 10]}"
    )
    return f"{SUBJECTS[first]} {VERBS[second]} {OBJECTS[third]} {PLACES[fourth % 5]} while {end}"


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_sources(folder: Path, *sources: dict[str, Any]) -> Path:
    """A register of ``sources``; licence and ships are filled in."""
    complete = [{"licence": "MIT", "ships": True, **source} for source in sources]
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump({"schema_version": 1, "sources": complete}), encoding="utf-8")
    return path


def plain_source(name: str, path: Path, **more: Any) -> dict[str, Any]:
    """A CSV with columns text and label that annotates toxicity."""
    labels = {"toxicity": {"column": "label", "values": {"0": 0, "1": 1}}}
    return {"name": name, "path": str(path), "format": "csv", "labels": labels, **more}


def frame_of(texts: Sequence[str], **columns: Any) -> pd.DataFrame:
    """Prepared rows: alone, unlabelled, in train, unless ``columns`` say otherwise."""
    size = len(texts)
    frame = pd.DataFrame({"text": list(texts), "context": "", "source": "test", "group": "", "split": "train"})
    frame["weight"] = np.ones(size, np.float32)
    frame["pair"] = np.full(size, -1)
    for head in LABELS.names:
        frame[head] = np.full(size, np.nan, np.float32)
    return frame.assign(**columns)


class WordEncoded:
    def __init__(self, ids: list[list[int]]) -> None:
        self.ids = ids

    def length(self, row: int) -> int:
        return len(self.ids[row])


class WordFeaturiser:
    """One token per word, with the special ones of BERT; what `safety_classifier.data.batches.Featuriser` asks."""

    def __init__(self, max_tokens: int = 128) -> None:
        self.max_tokens = max_tokens

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [[len(word) for word in text.split()] for text in texts]

    def encode(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> WordEncoded:
        prompts = self.pieces(contexts or [""] * len(texts))
        rows = [
            [1, *([*prompt, 2] if prompt else []), *text, 2]
            for text, prompt in zip(self.pieces(texts), prompts, strict=True)
        ]
        return WordEncoded([row[: self.max_tokens] for row in rows])

    def pad(self, encoded: WordEncoded, rows: Sequence[int], bucket: int, count: int | None = None) -> dict[str, Any]:
        size = len(rows) if count is None else count
        ids, length = np.zeros((size, bucket), np.int32), np.zeros(size, np.int32)
        for place, row in enumerate(rows):
            tokens = encoded.ids[row][:bucket]
            ids[place, : len(tokens)], length[place] = tokens, len(tokens)
        return {"ids": ids, "length": length}


def real_data() -> Path:
    """The folder of the real data; the test is skipped without it."""
    root = data_root()
    if root is None or not (root / "safety").is_dir():
        pytest.skip("CAI_DATA does not name a folder with the safety data")
    return root
