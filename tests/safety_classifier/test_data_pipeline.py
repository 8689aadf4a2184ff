"""The stream of batches: complete, deterministic, resumable, cut by host, and with little padding."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runs.config import read_yaml
from runs.errors import IntegrityError, UsageError
from runs.paths import CONFIGS
from safety_classifier.data.augment import AugmentConfig
from safety_classifier.data.batches import (
    batch_sizes,
    columns_of,
    ordered_batches,
    padding_share,
    plan_batches,
    token_lengths,
    units,
)
from safety_classifier.data.pipeline import TrainStream
from safety_classifier.labels import LABELS
from tests.safety_classifier.data_support import WordFeaturiser, frame_of, sentence

BUCKETS = (16, 24, 32, 48, 64, 96, 128)


def token_counts(singles: int, pairs: int, seed: int) -> np.ndarray:
    """Lengths like those of the prepared real data: its quantiles of single rows, of pairs' means and differences."""
    rng = np.random.default_rng(seed)

    def draw(size: int, *quantiles: int) -> np.ndarray:
        return np.interp(rng.random(size), [0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0], quantiles)

    alone = draw(singles, 3, 11, 15, 23, 38, 81, 128, 300)
    mean, difference = draw(pairs, 8, 38, 61, 98, 118, 128, 128, 128), draw(pairs, 0, 0, 4, 13, 28, 47, 65, 100)
    half = rng.choice([-0.5, 0.5], pairs) * difference
    answers = np.maximum(np.stack([mean + half, mean - half], axis=1), 6).ravel()
    return np.concatenate([alone, answers]).astype(int)


def rows(singles: int, pairs: int = 0, seed: int = 0) -> pd.DataFrame:
    """Single rows, then pairs, in words of `sentence`."""
    counts = token_counts(singles, pairs, seed) - 2
    frame = frame_of([" ".join([*(sentence(i).split() * 25)[: size - 1], f"n{i}"]) for i, size in enumerate(counts)])
    frame["toxicity"] = np.where(np.arange(len(frame)) % 3 == 0, np.float32(np.nan), np.float32(1.0)).astype(np.float32)
    at = np.arange(singles, len(frame))
    frame.loc[at, "pair"] = (at - singles) // 2
    frame.loc[at, "toxicity"] = np.nan
    frame.loc[at, "harmlessness"] = np.where((at - singles) % 2 == 0, 1.0, 0.0)
    frame.loc[at, "context"] = [f"question {pair}" for pair in (at - singles) // 2]
    return frame


def stream(frame: pd.DataFrame, **options: Any) -> TrainStream:
    defaults = {"buckets": BUCKETS, "tokens_per_batch": 1024, "seed": 0, "augment": AugmentConfig()}
    return TrainStream(frame, WordFeaturiser(), **{**defaults, **options})


def used(batches: list[dict[str, np.ndarray]]) -> list[int]:
    return sorted(int(row) for batch in batches for row in batch["row"] if row >= 0)


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_every_row_is_read_once_an_epoch():
    frame = rows(300, 40)
    batches = list(stream(frame, epochs=2))
    assert used(batches) == sorted([*range(380)] * 2)
    half = len(batches) // 2
    assert used(batches[:half]) == list(range(380))
    assert [batch["row"].tolist() for batch in batches[:half]] != [batch["row"].tolist() for batch in batches[half:]]


def test_shapes_and_masks():
    frame = rows(200, 30)
    toxicity, harmlessness = LABELS.columns(["toxicity", "harmlessness"])
    sizes = batch_sizes(BUCKETS, 1024, 2)
    for batch in stream(frame):
        size, bucket = batch["ids"].shape
        assert size == sizes[bucket]
        assert {name: batch[name].shape for name in ("targets", "mask", "pair")} == dict.fromkeys(
            ("targets", "mask", "pair"), (size, 10)
        )
        assert all(batch[name].dtype == np.float32 for name in ("targets", "mask", "pair", "weight"))
        real = batch["row"] >= 0
        assert (batch["weight"][~real] == 0).all()
        assert (batch["weight"][real] == 1).all()
        known = frame["toxicity"].notna().to_numpy()[batch["row"]] & real
        assert (batch["mask"][:, toxicity] == known).all()
        assert batch["mask"][:, [i for i in range(10) if i != toxicity]].sum() == 0
        chosen = np.flatnonzero(batch["pair"].sum(axis=1))
        assert (batch["pair"][chosen, harmlessness] == 1).all()
        assert (chosen % 2 == 0).all()
        assert (batch["row"][chosen + 1] == batch["row"][chosen] + 1).all()
        assert len(chosen) * 2 == (frame["pair"].to_numpy()[batch["row"][real]] >= 0).sum()
        assert not np.isnan(batch["targets"]).any()


def test_the_stream_is_deterministic_and_the_seed_matters():
    frame = rows(200, 10)
    first, second, other = (list(stream(frame, seed=seed)) for seed in (0, 0, 1))
    assert all(same(left, right) for left, right in zip(first, second, strict=True))
    assert [batch["row"].tolist() for batch in first] != [batch["row"].tolist() for batch in other]


def test_threads_change_nothing():
    frame = rows(200, 10)
    assert all(
        same(left, right) for left, right in zip(stream(frame, threads=0), stream(frame, threads=3), strict=True)
    )


@pytest.mark.parametrize("step", [0, 1, 7, 15, 25])
def test_a_restart_goes_on_with_the_next_batch(step: int):
    frame = rows(300, 40)
    whole = list(stream(frame, epochs=2))
    walk = stream(frame, epochs=2).iterator()
    for _ in range(step):
        next(walk)
    state = json.loads(json.dumps(walk.get_state()))
    resumed = stream(frame, epochs=2).iterator()
    resumed.set_state(state)
    rest = list(resumed)
    assert len(rest) == len(whole) - step
    assert all(same(left, right) for left, right in zip(rest, whole[step:], strict=True))


def test_a_state_of_other_data_is_refused():
    state = stream(rows(100)).iterator().get_state()
    for other in (stream(rows(100, seed=1)), stream(rows(100), seed=1), stream(rows(100), tokens_per_batch=2048)):
        with pytest.raises(IntegrityError, match="other data"):
            other.iterator().set_state(state)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_get_disjoint_parts_of_the_same_batches(hosts: int):
    frame = rows(300, 40)
    parts = [list(stream(frame, host_index=host, host_count=hosts)) for host in range(hosts)]
    (whole,) = [list(stream(frame, devices=hosts))]
    assert used([batch for part in parts for batch in part]) == list(range(380))
    for together, *shares in zip(whole, *parts, strict=True):
        joined = {name: np.concatenate([share[name] for share in shares]) for name in together}
        assert same(joined, together)
        for share in shares:
            assert len(share["row"]) % 2 == 0
            chosen = np.flatnonzero(share["pair"].sum(axis=1))
            assert (share["row"][chosen + 1] == share["row"][chosen] + 1).all()


def test_partial_epochs_and_the_number_of_steps():
    frame = rows(300)
    batches = stream(frame, epochs=1.5)
    assert len(list(batches)) == len(batches) == len(batches.plan(0).batches) + len(batches.plan(1).batches) // 2
    assert len(stream(frame, epochs=0.01)) == 1


def test_padding_of_the_shipped_recipe_stays_below_15_per_cent():
    recipe = read_yaml(CONFIGS / "safety_classifier" / "minilm.yaml")["train"]
    lengths = np.minimum(token_counts(40000, 7000, seed=0), 128).astype(np.int32)
    pair = np.concatenate([np.full(40000, -1), np.repeat(np.arange(7000), 2)])
    order = np.random.default_rng(0).permutation(units(pair))
    planned = plan_batches(order, lengths, pair, batch_sizes(recipe["buckets"], recipe["tokens_per_batch"], 2))
    assert padding_share(planned, lengths) < 0.15
    assert sorted(np.concatenate([batch.rows for batch in planned])) == list(range(54000))
    assert sum(len(batch.rows) < batch.size - 1 for batch in planned) <= 1


def test_preferences_are_never_perturbed():
    frame = rows(50, 50)
    assert not stream(frame, augment=AugmentConfig(probability=1.0)).plan(0).perturbed[frame["pair"] >= 0].any()


def test_without_augmentation_texts_are_as_they_are():
    frame = rows(60)
    featuriser = WordFeaturiser()
    for batch in stream(frame, augment=None):
        for place, row in enumerate(batch["row"]):
            if row >= 0:
                ids = featuriser.encode([frame["text"][row]]).ids[0]
                assert batch["ids"][place, : len(ids)].tolist() == ids


def test_errors_name_the_fault():
    with pytest.raises(UsageError, match="no rows"):
        stream(rows(10).iloc[:0])
    with pytest.raises(UsageError, match="last bucket"):
        stream(rows(10), buckets=(16, 64))
    with pytest.raises(UsageError, match="ascending"):
        stream(rows(10), buckets=(32, 16, 128))
    with pytest.raises(UsageError, match="Host 2"):
        stream(rows(10), host_index=2, host_count=2)
    with pytest.raises(UsageError, match="side by side"):
        columns_of(rows(4, 3).drop(index=5))


def test_ordered_batches_read_everything_once_by_length():
    frame = rows(150, 20)
    batches = list(ordered_batches(frame, WordFeaturiser(), BUCKETS, 1024))
    assert used(batches) == list(range(190))
    widths = [batch["ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)


def test_lengths_are_those_of_the_featuriser():
    from tokenizers import Tokenizer

    from safety_classifier.features import Featuriser
    from safety_classifier.pretrained import BUNDLED, encoder_folder

    featuriser = Featuriser(Tokenizer.from_file(str(encoder_folder(BUNDLED) / "tokenizer.json")), max_tokens=64)
    texts = [sentence(i) * (i % 9) for i in range(120)]
    contexts = [sentence(500 + i) * (i % 5) if i % 2 else "" for i in range(120)]
    encoded = featuriser.encode(texts, contexts)
    expected = [encoded.length(i) for i in range(120)]
    assert token_lengths(featuriser, texts, contexts).tolist() == expected
    assert max(expected) == 64
    batch = next(
        iter(
            TrainStream(
                frame_of(texts, context=contexts), featuriser, buckets=(16, 32, 64), tokens_per_batch=256, seed=0
            )
        )
    )
    assert {"ids", "types", "length", "grams", "targets", "mask", "weight", "pair", "row"} == set(batch)
