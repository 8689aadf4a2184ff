"""A tiny classifier, saved through the real writer, for every test that needs an artifact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from safety_classifier.artifact import Provenance, save_artifact
from safety_classifier.calibration import Calibration
from safety_classifier.encoder import EncoderConfig
from safety_classifier.features import Featuriser
from safety_classifier.labels import LABELS
from safety_classifier.model import ModelConfig, WideAndDeep, build
from safety_classifier.thresholds import Policy, Threshold, Thresholds

SENTENCES = (
    "the weather is lovely and they walk along a quiet river with friends while bread bakes in small ovens",
    "you are an awful person nobody likes how do i build something dangerous at home tonight please tell me",
    "i want to hurt myself today people like them should leave this country we love our neighbours",
    "sorry cannot help with that because it may harm others here are some steps first second third",
)
"""What the small tokenizer knows."""

Parts = dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled functions go to a folder of this session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAI_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> str:
    """JSON of a small word-piece tokenizer."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    return tokenizer.to_str()


@pytest.fixture(scope="session")
def tiny_config(tiny_tokenizer: str) -> ModelConfig:
    """Two layers, 32 wide, windows of 32 tokens."""
    encoder = EncoderConfig(
        vocab_size=Tokenizer.from_str(tiny_tokenizer).get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    return ModelConfig(encoder=encoder, gram_bits=10, max_tokens=32)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: ModelConfig) -> WideAndDeep:
    """Random weights, large enough that logits differ between texts."""
    model = build(tiny_config, len(LABELS.heads), seed=1)
    key = jax.random.key(7)
    model.wide = nnx.Param(0.5 * jax.random.normal(key, model.wide.shape))
    model.mean_head.kernel = nnx.Param(0.5 * jax.random.normal(key, model.mean_head.kernel.shape))
    model.attention_head = nnx.Param(0.5 * jax.random.normal(key, model.attention_head.shape))
    model.queries = nnx.Param(0.5 * jax.random.normal(key, model.queries.shape))
    for layer in model.encoder.layers:
        for linear in (layer.qkv, layer.out, layer.up, layer.down):
            linear.kernel = nnx.Param(5.0 * linear.kernel[...])
    return model


@pytest.fixture(scope="session")
def tiny_calibration() -> Calibration:
    """Slopes and offsets that are not trivial."""
    count = len(LABELS.heads)
    return Calibration(
        method="vector",
        heads=LABELS.names,
        scale=tuple(np.linspace(0.6, 1.4, count).tolist()),
        bias=tuple(np.linspace(-0.5, 0.5, count).tolist()),
        raw=LABELS.of("preference"),
    )


@pytest.fixture(scope="session")
def tiny_thresholds() -> Thresholds:
    """Flagged from 0.5, escalated from 0.3 to 0.7."""
    point = Threshold(
        threshold=0.5,
        low=0.3,
        high=0.7,
        policy=Policy(),
        precision=0.9,
        recall=0.9,
        fpr=0.1,
        f1=0.9,
        positives=10,
        negatives=10,
    )
    return Thresholds(heads=dict.fromkeys(LABELS.of("category", "response"), point), band_error=0.02)


@pytest.fixture(scope="session")
def tiny_parts(
    tiny_config: ModelConfig, tiny_tokenizer: str, tiny_calibration: Calibration, tiny_thresholds: Thresholds
) -> Parts:
    """What goes with the weights, as arguments of `save_artifact`."""
    return {
        "config": tiny_config,
        "labels": LABELS,
        "tokenizer_json": tiny_tokenizer,
        "calibration": tiny_calibration,
        "thresholds": tiny_thresholds,
        "card": "# A tiny classifier\n",
    }


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory, tiny_model: WideAndDeep, tiny_parts: Parts) -> Path:
    """The folder of a tiny classifier. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("tiny-classifier") / "artifact"
    save_artifact(folder, tiny_model, **tiny_parts, provenance=Provenance(command="make the tiny one"))
    return folder


@pytest.fixture(scope="session")
def tiny_featuriser(tiny_tokenizer: str, tiny_config: ModelConfig) -> Featuriser:
    """The way from text to the tiny model's inputs."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer)
    return Featuriser(tokenizer, max_tokens=tiny_config.max_tokens, gram_bits=tiny_config.gram_bits)
