"""LoRA adapters: where they go, and what of them is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.config import LoraSection
from inference.families import Family
from runs.atomic import write_text
from runs.errors import IntegrityError, unknown_name

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
POLICY = "default"
"""The trained adapter's name in memory. TRL's DPOTrainer copies an adapter of this name as its reference."""


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of the model's linear modules, without the output head.

    A reward model's head is trained as a whole. The language model's is left out because TRL multiplies by
    ``lm_head.weight`` itself: an adapter on it would be ignored.
    """
    from torch import nn

    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return sorted(names - {"lm_head", "score"})


def lora_config(section: LoraSection, model: PreTrainedModel, *, scored: bool = False) -> LoraConfig:
    """PEFT's config for ``section``; with ``scored``, a reward model's head is trained and stored with the adapter.

    Raises:
        UsageError: a target module matches nothing in ``model``.
    """
    from peft import LoraConfig

    known = linear_names(model)
    for name in section.target_modules:
        if name not in known:
            raise unknown_name("LoRA target module", name, known)
    return LoraConfig(
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=list(section.target_modules),
        bias="none",
        task_type="SEQ_CLS" if scored else "CAUSAL_LM",
        modules_to_save=["score"] if scored else None,
    )


def trainable_parameters(section: LoraSection, model: PreTrainedModel) -> int:
    """Parameters of an adapter of this shape: r · (inputs + outputs) for each target module."""
    from torch import nn

    lora_config(section, model)
    return sum(
        section.r * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in section.target_modules
    )


def resolve_adapter(name: str, family: Family) -> Path:
    """The folder of an adapter given as a checkpoint name of the family or as a folder.

    Raises:
        UsageError: it is neither.
    """
    if name in family.adapters:
        return family.adapter_folder(name)
    if Path(name).is_dir():
        return Path(name)
    raise unknown_name(f"adapter (family {family.name}, or a folder)", name, family.adapters)


def tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The trained adapter's weights under the names that PEFT stores, whole also where FSDP holds them in parts.

    Every process of a run must call it: the parts come from all of them.
    """
    from peft import get_peft_model_state_dict
    from torch.distributed.tensor import DTensor

    # "auto" would look the base up on the hub to see whether its vocabulary grew.
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, state_dict=_weights(model), adapter_name=POLICY, save_embedding_layers=False
    )
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


def _weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapters' own parameters; the base's are left out, so that FSDP need not gather them."""
    own = ("lora_", "modules_to_save")
    return {name: weight.detach() for name, weight in model.named_parameters() if any(part in name for part in own)}


def save(
    model: PeftModel, folder: Path, *, public_id: str, dtype: torch.dtype | None = None, write: bool = True
) -> None:
    """Write the trained adapter, and only that one: DPO's frozen "ref" copy is never stored.

    Args:
        model: holds the adapter `POLICY`.
        folder: gets ``adapter_model.safetensors`` and ``adapter_config.json``.
        public_id: the base's public name; never a path of this machine.
        dtype: what the weights are stored in; None keeps what they are trained in.
        write: whether this process writes; the others only give their parts.
    """
    from safetensors.torch import save_file

    weights = {
        name: value.detach().to("cpu", dtype or value.dtype).contiguous() for name, value in tensors(model).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    if not write:
        return
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    model.peft_config[POLICY].save_pretrained(str(folder))
    stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    stored |= {"base_model_name_or_path": public_id, "inference_mode": True, "revision": None}
    # PEFT keeps the targets in a set, whose order changes from process to process.
    stored["target_modules"] = sorted(stored["target_modules"])
    write_text(folder / CONFIG, json.dumps(stored, indent=2, sort_keys=True) + "\n")


def load(model: PeftModel, folder: Path) -> None:
    """Set the trained adapter's weights to those stored in ``folder``, and check that all of them arrived.

    Every process of a run must call it.

    Raises:
        IntegrityError: the file holds other tensors than the model, or a value was lost on the way.
    """
    import torch
    from safetensors.torch import load_file

    stored = load_file(folder / WEIGHTS)
    _set(model, stored)
    held = tensors(model)
    if held.keys() != stored.keys():
        raise IntegrityError(f"{folder / WEIGHTS} does not fit the adapter: its tensors have other names.")
    for name, value in held.items():
        if not torch.equal(value.detach().cpu(), stored[name].to(value.dtype)):
            raise IntegrityError(f"{folder / WEIGHTS}: '{name}' did not survive saving and loading.")


def interpolated(
    start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """The adapter that stands at ``share`` of the way from one adapter to another that was trained from it.

    The factors A and B themselves are averaged, as they are what was trained (Wortsman et al. 2022, Robust fine-tuning
    of zero-shot models, §3, equation 1); so the rank stays. Their product is not the average of the products, but
    nearly: see docs/log.md.

    Args:
        start: the first adapter's tensors.
        end: the other's, of the same names and shapes.
        share: 0 is ``start``, 1 is ``end``.

    Returns:
        Tensors of the names, shapes and dtypes of ``end``.

    Raises:
        IntegrityError: the adapters' names or shapes differ.
    """
    import torch

    def shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in weights.items()}

    if shapes(start) != shapes(end):
        raise IntegrityError("There is no way between the two adapters: their tensors have other names or shapes.")
    return {
        name: torch.lerp(start[name].to(value.device, torch.float32), value.float(), share).to(value.dtype)
        for name, value in end.items()
    }


def retreat(model: PeftModel, folder: Path, share: float) -> None:
    """Move the trained adapter to where it is ``share`` of the way from the adapter in ``folder``.

    Every process of a run must call it.

    Raises:
        IntegrityError: the adapters' names or shapes differ.
    """
    from safetensors.torch import load_file

    _set(model, interpolated(load_file(folder / WEIGHTS), tensors(model), share))


def _set(model: PeftModel, stored: dict[str, torch.Tensor]) -> None:
    import torch
    from peft import set_peft_model_state_dict
    from torch.distributed.tensor import DTensor, distribute_tensor

    parts = {
        name.replace(f".{POLICY}.", "."): weight
        for name, weight in model.named_parameters()
        if f".{POLICY}." in name and isinstance(weight, DTensor)
    }
    if not parts:
        set_peft_model_state_dict(model, stored, adapter_name=POLICY)
        return
    with torch.no_grad():
        for name, weight in parts.items():
            if name in stored:
                whole = stored[name].to(weight.device, weight.dtype)
                weight.copy_(distribute_tensor(whole, weight.device_mesh, weight.placements))
