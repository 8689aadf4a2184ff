"""The classifier on disk: one folder with all that scoring needs, checked by hash when it is read.

``weights.safetensors`` (int8 unless asked otherwise), ``config.json``, ``labels.json``, ``tokenizer.json``,
``calibration.json``, ``thresholds.json``, ``model.stablehlo`` with ``model.json`` (the forward pass without our code),
``MODEL_CARD.md``, and ``manifest.json``, which is written last.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from runs import atomic
from runs.config import StrictModel
from runs.errors import IntegrityError, UsageError, UserError
from runs.identity import digest, file_digest, text_digest
from runs.manifest import NAME as MANIFEST
from runs.manifest import FileEntry, Manifest, verify, write_manifest
from runs.paths import ARTIFACTS
from safety_classifier import normalise
from safety_classifier.calibration import Calibration
from safety_classifier.card import render
from safety_classifier.export import export_artifact
from safety_classifier.features import Featuriser, load_tokenizer
from safety_classifier.labels import Labels
from safety_classifier.model import ModelConfig, WideAndDeep
from safety_classifier.quantisation import Storage, quantise_model
from safety_classifier.replace import replacing
from safety_classifier.thresholds import Thresholds
from safety_classifier.weights import arrays_of, filled_model, read_arrays, write_arrays

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT = ARTIFACTS / "safety_classifier"
"""Where the shipped classifier is."""

REBUILD = "safety-classifier train --config configs/safety_classifier/minilm.yaml"
"""Makes the shipped classifier again."""

WEIGHTS, CONFIG, LABELS, TOKENIZER = "weights.safetensors", "config.json", "labels.json", "tokenizer.json"
CALIBRATION, THRESHOLDS, CARD = "calibration.json", "thresholds.json", "MODEL_CARD.md"
SCORING = (WEIGHTS, CONFIG, LABELS, TOKENIZER, CALIBRATION, THRESHOLDS)
"""The files that a score depends on."""

Record = TypeVar("Record", bound=BaseModel)


class NormaliserVersion(StrictModel):
    """Which normaliser the weights were trained behind."""

    version: str
    """Of its steps."""
    digest: str
    """Of its tables."""


NORMALISER = NormaliserVersion(version=normalise.VERSION, digest=normalise.DIGEST)
"""The one that this code has."""


class ArtifactConfig(StrictModel):
    """``config.json``: what the code must agree on with the weights."""

    schema_version: int = 1
    model: ModelConfig
    storage: Storage
    labels: str
    """Digest of the label schema: names, order, kinds and definitions."""
    tokenizer: str
    """sha256 of ``tokenizer.json``."""
    normaliser: NormaliserVersion


class Provenance(StrictModel):
    """How the weights came to be, for the manifest."""

    command: str = REBUILD
    config: dict[str, Any] = Field(default_factory=dict)
    """The resolved training config."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """What was read: sources with digest, licence and rows; the encoder."""
    seeds: dict[str, int] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    """`safety_classifier.data.manifest.Manifest` as JSON: rows, licences and labels by source and split."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """What was measured. The card shows ``calibration`` (a report by head) and ``quantisation``."""
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class Artifact:
    """A classifier that was read and checked."""

    folder: Path
    config: ArtifactConfig
    labels: Labels
    calibration: Calibration
    thresholds: Thresholds
    manifest: Manifest
    arrays: dict[str, NDArray[Any]]
    """The weights under their dotted paths, as stored."""

    @property
    def identity(self) -> str:
        """Digest of all that a score depends on; the card and the provenance are left out."""
        return digest({name: self.manifest.files[name].sha256 for name in SCORING})

    def model(self) -> WideAndDeep:
        """The model as stored. Raises `IntegrityError` where the weights do not fit the config."""
        return filled_model(self.config.model, len(self.labels.heads), self.config.storage, self.arrays)

    def tokenizer(self) -> Tokenizer:
        """The word-piece tokenizer."""
        return load_tokenizer(self.folder / TOKENIZER)

    def featuriser(self) -> Featuriser:
        """The way from text to the model's inputs, as in training."""
        shape = self.config.model
        return Featuriser(self.tokenizer(), max_tokens=shape.max_tokens, gram_bits=shape.gram_bits)


def save_artifact(
    folder: Path,
    model: WideAndDeep,
    *,
    config: ModelConfig,
    labels: Labels,
    tokenizer_json: str | Path,
    calibration: Calibration,
    thresholds: Thresholds,
    card: str | None = None,
    provenance: Provenance | None = None,
    storage: Storage = "int8",
) -> Manifest:
    """Write a classifier; an earlier one in ``folder`` is replaced only when the new one is whole.

    Args:
        folder: where it goes.
        model: trained weights in float32, or a quantised model.
        config: the model's shape.
        labels: the schema.
        tokenizer_json: the tokenizer's JSON, or the path of the file.
        calibration: of the heads of ``labels``.
        thresholds: of the category and response heads.
        card: text of ``MODEL_CARD.md``; by default it is made of what else is given.
        provenance: for the manifest.
        storage: ``int8`` quantises the weights.

    Raises:
        UsageError: parts do not fit each other, or a weight is not finite.
        UserError: the disk refused, or ``folder`` holds something else; what is there is untouched.
    """
    provenance = provenance or Provenance()
    fault = _misfit(labels, calibration, thresholds)
    if fault:
        raise UsageError(fault)
    tokenizer = tokenizer_json.read_text(encoding="utf-8") if isinstance(tokenizer_json, Path) else tokenizer_json
    stored = quantise_model(model) if storage == "int8" else model
    arrays = arrays_of(stored)
    filled_model(config, len(labels.heads), storage, arrays)  # refuses weights of another config
    described = ArtifactConfig(
        model=config,
        storage=storage,
        labels=digest(labels),
        tokenizer=text_digest(tokenizer),
        normaliser=NORMALISER,
    )
    texts = {
        CONFIG: described.model_dump_json(indent=2) + "\n",
        LABELS: labels.model_dump_json(indent=2) + "\n",
        TOKENIZER: tokenizer,
        CALIBRATION: calibration.model_dump_json(indent=2) + "\n",
        THRESHOLDS: thresholds.model_dump_json(indent=2) + "\n",
        CARD: card if card is not None else _card(described, labels, calibration, thresholds, provenance, ""),
    }
    _refuse_strangers(folder)
    with replacing(folder) as building:
        write_arrays(building / WEIGHTS, arrays)
        for name, text in texts.items():
            atomic.write_text(building / name, text)
        export_artifact(building, stored, labels.names)
        return write_manifest(
            building,
            kind="classifier",
            run_id=digest([provenance.config, provenance.inputs, described.model_dump(mode="json")]),
            command=provenance.command,
            config=provenance.config,
            inputs=provenance.inputs,
            seeds=provenance.seeds,
            counts=provenance.data,
            metrics=provenance.metrics,
            wall_seconds=provenance.wall_seconds,
        )


def add_evaluation(folder: Path, evaluation_table: str, metrics: dict[str, Any]) -> Manifest:
    """Put an evaluation into the card and the manifest of an artifact; what a score depends on stays as it is.

    Args:
        folder: the artifact.
        evaluation_table: Markdown.
        metrics: into the manifest's metrics, as ``evaluation``.

    Raises:
        IntegrityError: as `load_artifact`.
        UserError: the disk refused; the artifact is untouched.
    """
    artifact = load_artifact(folder)
    old = artifact.manifest
    provenance = Provenance(
        command=old.command, config=old.config, data=old.counts, metrics={**old.metrics, "evaluation": metrics}
    )
    parts = artifact.config, artifact.labels, artifact.calibration, artifact.thresholds
    with replacing(folder) as building:
        shutil.copytree(folder, building, dirs_exist_ok=True)
        atomic.write_text(building / CARD, _card(*parts, provenance, evaluation_table))
        entry = FileEntry(sha256=file_digest(building / CARD), size=(building / CARD).stat().st_size)
        manifest = old.model_copy(update={"metrics": provenance.metrics, "files": {**old.files, CARD: entry}})
        atomic.write_text(building / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        return manifest


def load_artifact(folder: Path | None = None) -> Artifact:
    """Read a classifier and check it: every hash, then that its parts fit each other and this code.

    Args:
        folder: default `DEFAULT`.

    Raises:
        IntegrityError: a file is missing, truncated, changed or of another config, or the normaliser is another one.
            The file is named, and how to make it again.
    """
    folder = DEFAULT if folder is None else folder
    if not folder.is_dir():
        raise IntegrityError(f"There is no classifier in {folder}.", mend=f"Make it: {REBUILD}")
    manifest = verify(folder, rebuild=REBUILD)
    unlisted = [name for name in SCORING if name not in manifest.files]
    if unlisted:
        why = f"Its manifest lists no {', '.join(unlisted)}."
        raise IntegrityError(f"{folder} is not a classifier.", why=why, mend=_mend(manifest))
    config = _record(ArtifactConfig, folder / CONFIG, manifest)
    labels = _record(Labels, folder / LABELS, manifest)
    calibration = _record(Calibration, folder / CALIBRATION, manifest)
    thresholds = _record(Thresholds, folder / THRESHOLDS, manifest)
    _check_fit(folder, config, labels, manifest)
    fault = _misfit(labels, calibration, thresholds)
    if fault:
        raise IntegrityError(f"{folder} does not fit together.", why=fault, mend=_mend(manifest))
    arrays = read_arrays(folder / WEIGHTS)
    artifact = Artifact(folder, config, labels, calibration, thresholds, manifest, arrays)
    artifact.model()  # refuses weights of another config now, and not at the first request
    return artifact


def _card(
    config: ArtifactConfig,
    labels: Labels,
    calibration: Calibration,
    thresholds: Thresholds,
    provenance: Provenance,
    evaluation_table: str,
) -> str:
    return render(
        labels=labels,
        config=config.model,
        calibration=calibration,
        thresholds=thresholds,
        data=provenance.data,
        metrics=provenance.metrics,
        evaluation_table=evaluation_table,
        command=provenance.command,
        encoder=provenance.config.get("model", {}).get("pretrained"),
    )


def _check_fit(folder: Path, config: ArtifactConfig, labels: Labels, manifest: Manifest) -> None:
    """Refuse labels, tokenizer or normaliser other than those that the weights were trained with."""
    if digest(labels) != config.labels:
        raise IntegrityError(
            f"{folder / LABELS} is not the schema of the weights.",
            why=f"{CONFIG} names the digest {config.labels[:12]}…",
            mend=_mend(manifest),
        )
    if manifest.files[TOKENIZER].sha256 != config.tokenizer:
        raise IntegrityError(
            f"{folder / TOKENIZER} is not the tokenizer of the weights.",
            why=f"{CONFIG} names the sha256 {config.tokenizer[:12]}…",
            mend=_mend(manifest),
        )
    ours, theirs = NORMALISER, config.normaliser
    if ours != theirs:
        raise IntegrityError(
            f"{folder} was trained behind another normaliser.",
            why=f"{theirs.version} ({theirs.digest}) there, {ours.version} ({ours.digest}) here: scores would differ.",
            mend=_mend(manifest),
        )


def _misfit(labels: Labels, calibration: Calibration, thresholds: Thresholds) -> str:
    """What does not fit between the schema and its companions; empty when all does."""
    if calibration.heads != labels.names:
        return f"The calibration is of {', '.join(calibration.heads)}; the schema has {', '.join(labels.names)}."
    decided = labels.of("category", "response")
    if set(thresholds.heads) != set(decided):
        odd = sorted(set(thresholds.heads) ^ set(decided))
        return f"Thresholds and schema differ in {', '.join(odd)}."
    return ""


def _mend(manifest: Manifest) -> str:
    return f"Rebuild it: {manifest.command}"


def _record(kind: type[Record], path: Path, manifest: Manifest) -> Record:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        why = f"{where}: {first['msg']}."
        raise IntegrityError(f"{path} cannot be read by this version.", why=why, mend=_mend(manifest)) from error


def _refuse_strangers(folder: Path) -> None:
    """A folder that is neither empty nor an artifact belongs to somebody else."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is not empty, and is not a classifier.", mend="Choose another folder.")
