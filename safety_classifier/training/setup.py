"""Everything that a training run works with, opened from its config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from runs.console import Reporter
from runs.identity import file_digest, text_digest
from runs.paths import cache_dir
from safety_classifier.config import ClassifierRun
from safety_classifier.data.pipeline import TrainStream
from safety_classifier.data.prepare import prepare
from safety_classifier.encoder import EncoderConfig
from safety_classifier.features import Featuriser, load_tokenizer
from safety_classifier.labels import LABELS, Labels
from safety_classifier.model import Batch, ModelConfig, WideAndDeep, build
from safety_classifier.precision import Precision, training_precision
from safety_classifier.pretrained import BUNDLED, encoder_config, encoder_folder, load_encoder
from safety_classifier.training.optimiser import make_optimiser
from safety_classifier.training.step import (
    Compiled,
    Partition,
    State,
    compile_functions,
    initial_state,
    make_mesh,
    own_copy,
    partition,
    place,
    replicate,
)

if TYPE_CHECKING:
    import pandas
    from jax.sharding import Mesh

RECIPE_VERSION = 1
"""Raised when the code changes so that the same config trains other weights."""


@dataclass
class Session:
    """A training run in memory."""

    run: ClassifierRun
    labels: Labels
    frame: pandas.DataFrame
    """The prepared rows of all splits."""
    data_manifest: dict[str, Any]
    """Counts, licences and digests of the data."""
    tokenizer_file: Path
    featuriser: Featuriser
    model_config: ModelConfig
    parts: Partition
    compiled: Compiled
    stream: TrainStream
    steps: int
    """Steps of the whole run."""
    rows_per_batch: float
    """Mean rows a step, over all hosts."""
    mesh: Mesh
    precision: Precision
    inputs: dict[str, Any]
    """Digests of what is read."""
    state: State

    @property
    def weights(self) -> list[Any]:
        """What is validated and shipped: the moving average where one is kept."""
        return self.state.average or self.state.trained

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that could change the weights."""
        settings = {name: getattr(self.run, name).model_dump(mode="json") for name in ("data", "model", "train")}
        return {
            "kind": "safety_classifier",
            "recipe_version": RECIPE_VERSION,
            "config": settings,
            "inputs": self.inputs,
        }

    def place(self, batch: dict[str, Any]) -> Batch:
        """This host's rows of a batch on the mesh."""
        return place(batch, self.mesh)

    def forward(self, weights: list[Any]) -> Callable[[Batch], Any]:
        """The forward pass with these trained arrays."""
        return lambda batch: self.compiled.forward(weights, self.parts.frozen, batch)

    def model_with(self, weights: list[Any]) -> WideAndDeep:
        """The model with these trained arrays, for this process alone."""
        model: WideAndDeep = self.parts.merge(own_copy(self.parts.join(weights, self.parts.frozen)))
        return model


def open_session(run: ClassifierRun, reporter: Reporter) -> Session:
    """Prepare the data, build the model, compile nothing yet.

    Raises:
        UserError: data, encoder or config do not fit together.
    """
    prepared = prepare(run.data, cache_dir() / "safety_classifier", reporter=reporter)
    frame = prepared.frame()
    folder = encoder_folder(run.model.pretrained or BUNDLED)
    shape = encoder_config(folder) if run.model.pretrained else (run.model.encoder or EncoderConfig())
    model_config = ModelConfig(encoder=shape, gram_bits=run.model.gram_bits, max_tokens=run.model.max_tokens)
    tokenizer_file = folder / "tokenizer.json"
    featuriser = Featuriser(
        load_tokenizer(tokenizer_file), max_tokens=run.model.max_tokens, gram_bits=run.model.gram_bits
    )
    mesh = make_mesh(run.train.data_parallel)
    stream = TrainStream(
        frame[frame["split"] == "train"].reset_index(drop=True),
        featuriser,
        buckets=run.train.buckets,
        tokens_per_batch=run.train.tokens_per_batch,
        seed=run.train.seed,
        epochs=run.train.epochs,
        augment=run.train.augment,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        devices=mesh.size // jax.process_count(),
    )
    steps = min(len(stream), run.train.max_steps or len(stream))
    rows = float(np.mean([batch.size for batch in stream.plan(0).batches]))
    model = build(model_config, len(LABELS.names), run.train.seed)
    if run.model.pretrained:
        load_encoder(model.encoder, folder)
    parts, trained = partition(model, run.train.freeze if run.model.pretrained else ())
    optimiser = make_optimiser(run.train, parts.trained_names, [array.ndim for array in trained], steps)
    precision: Precision = training_precision() if run.train.precision == "auto" else run.train.precision
    parts = Partition(parts.names, parts.trained, tuple(replicate(list(parts.frozen), mesh)), parts.merge)
    return Session(
        run=run,
        labels=LABELS,
        frame=frame,
        data_manifest=prepared.manifest.model_dump(mode="json"),
        tokenizer_file=tokenizer_file,
        featuriser=featuriser,
        model_config=model_config,
        parts=parts,
        compiled=compile_functions(run.train, parts, optimiser, rows=rows, precision=precision),
        stream=stream,
        steps=steps,
        rows_per_batch=rows,
        mesh=mesh,
        precision=precision,
        inputs={
            "data": prepared.manifest.identity,
            "encoder": file_digest(folder / "model.safetensors") if run.model.pretrained else "from scratch",
            "tokenizer": file_digest(tokenizer_file),
            "labels": text_digest(LABELS.model_dump_json()),
        },
        state=replicate(initial_state(trained, optimiser, run.train.ema_decay), mesh),
    )
