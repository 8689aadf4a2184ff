"""Base models and tokenizers in memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, cast

from inference.families import DtypeName, Family
from inference.sources import base_folder, base_identity
from runs.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["base_identity", "load_base", "load_tokenizer", "resolve_device"]

Quantization = Literal["4bit", "8bit"]

# On CPUs with bfloat16 units bitsandbytes advises to install a kernel from the hub, in every command that imports PEFT.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def resolve_device(device: str = "auto") -> torch.device:
    """The device to compute on; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: the device is unknown or not there.
    """
    import torch

    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        return torch.device(available[0])
    kind = device.split(":")[0]
    if kind not in {"cpu", "cuda", "mps"}:
        raise unknown_name("device", device, ["auto", *available])
    if kind not in available:
        raise UsageError(f"Device '{device}' is not available here.", mend=f"Available: {', '.join(available)}.")
    return torch.device(device)


def load_tokenizer(family: Family) -> PreTrainedTokenizerBase:
    """The family's tokenizer, padding on the left, with a chat template.

    Raises:
        UsageError: the tokenizer has no chat template, or no token to pad with.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_folder(family))
    tokenizer.padding_side = "left"
    if tokenizer.chat_template is None:
        raise UsageError(
            f"{family.base.public_id} has no chat template.",
            why="It is a base model, or its tokenizer was saved without one.",
            mend="Use its instruction-tuned sibling, or put chat_template.jinja beside its tokenizer.",
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UsageError(f"{family.base.public_id}'s tokenizer has neither a pad nor an end-of-text token.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    family: Family,
    *,
    device: str = "auto",
    dtype: DtypeName | None = None,
    quantization: Quantization | None = None,
    output: Literal["tokens", "score"] = "tokens",
) -> PreTrainedModel:
    """The family's base model in evaluation mode, on ``device``, in ``dtype`` (default: the family's).

    ``output="score"`` puts a linear head of one output in place of the vocabulary's. It is new, drawn from torch's
    generator: seed that, or load an adapter that brings the head.

    Raises:
        UserError: the weights are not to be had (`inference.sources.base_folder`).
        UsageError: the device is not there, or cannot compute the quantisation.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    scored = output == "score"
    target = resolve_device(device)
    chosen: torch.dtype = getattr(torch, dtype or family.dtype)
    if chosen is torch.float16 and "gemma" in family.name:
        raise UsageError("Gemma overflows in float16.", mend="Use bfloat16 or float32.")
    model = (AutoModelForSequenceClassification if scored else AutoModelForCausalLM).from_pretrained(
        base_folder(family),
        **({"num_labels": 1} if scored else {}),
        dtype=chosen,
        use_safetensors=True,
        device_map={"": target} if quantization or target.type != "cpu" else None,
        quantization_config=_quantization_config(quantization, target, chosen),
    )
    model.eval()
    return cast("PreTrainedModel", model)


def _quantization_config(
    quantization: Quantization | None, device: torch.device, compute: torch.dtype
) -> object | None:
    """A bitsandbytes config: NF4 with double quantisation (Dettmers et al. 2023, QLoRA, section 3) or LLM.int8()."""
    if quantization is None:
        return None
    from transformers import BitsAndBytesConfig
    from transformers.utils.import_utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise UsageError("bitsandbytes is not installed on this platform.", mend="Leave --quantization out.")
    if device.type == "mps" or (device.type == "cpu" and quantization == "8bit"):
        raise UsageError(
            f"{quantization} loading is not usable on {device.type}.",
            mend="Use a CUDA device, 4bit on the CPU, or leave --quantization out.",
        )
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
