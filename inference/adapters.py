"""LoRA adapters by name on one shared base; never merged in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from runs.errors import IntegrityError, UserError
from runs.manifest import NAME, Manifest, verify

if TYPE_CHECKING:
    from peft import LoraModel, PeftModel
    from transformers import PreTrainedModel


def check_adapter(folder: Path, *, base_identity: str) -> Manifest:
    """Verify an adapter's bytes and that it was trained on this base.

    Raises:
        UserError: there is no such folder.
        IntegrityError: no valid manifest, changed bytes, or another base; the message says how to rebuild.
    """
    if not folder.is_dir():
        raise UserError(
            f"There is no adapter in {folder}.",
            mend="Train it: `uv run finetune sft --config …` makes stage2, `uv run finetune dpo --config …` stage3.",
        )
    rebuild = "uv run finetune {sft,dpo} --config configs/finetune/… (the command stands in its MODEL_CARD.md)"
    if (folder / NAME).is_file():
        rebuild = Manifest.model_validate_json((folder / NAME).read_bytes()).command
    manifest = verify(folder, rebuild=rebuild)
    found = manifest.inputs.get("base")
    if found != base_identity:
        raise IntegrityError(
            f"The adapter in {folder} belongs to another base model.",
            why=f"It was trained on {found}; this family's base is {base_identity}.",
            mend="Choose the family that it was trained for with --family, or train it again on this base.",
        )
    return manifest


def adapter_digest(manifest: Manifest) -> str:
    """sha256 of the adapter's weights, as the manifest that `check_adapter` gave states it."""
    return manifest.files["adapter_model.safetensors"].sha256


def attach(
    model: PreTrainedModel | PeftModel, folder: Path, name: str, *, base_identity: str, trainable: bool = False
) -> PeftModel:
    """Load the adapter in ``folder`` onto ``model`` under ``name``; the base weights stay as they are.

    Raises:
        UserError, IntegrityError: as `check_adapter`.
    """
    from peft import PeftModel

    check_adapter(folder, base_identity=base_identity)
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
        return model
    return PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)


class SharedModel:
    """One base in memory with any number of named adapters, of which one (or none) computes at a time.

    Engines call `activate` before each forward pass, so that two engines whose generators are read in
    turn never compute with each other's adapter. Switching costs nothing when the adapter is active already.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self.model = model
        self._active: str | None = None
        self._switched = False

    def attach(self, folder: Path, name: str, *, base_identity: str) -> None:
        """Load another adapter beside those that are there. Raises as `attach`."""
        self.model = attach(self.model, folder, name, base_identity=base_identity)
        self.model.eval()
        self._switched = False

    def activate(self, name: str | None) -> None:
        """Compute with adapter ``name``, or with the bare base when it is None."""
        from peft import PeftModel

        if self._switched and name == self._active:
            return
        if isinstance(self.model, PeftModel):
            layers = cast("LoraModel", self.model.base_model)
            if name is None:
                layers.disable_adapter_layers()
            else:
                layers.enable_adapter_layers()
                self.model.set_adapter(name, inference_mode=True)
        elif name is not None:
            raise UserError(f"Adapter '{name}' is not attached.")
        self._active, self._switched = name, True
