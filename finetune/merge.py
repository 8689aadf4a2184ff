"""`finetune merge`: base and adapter as one model, for servers that take no adapters.

    uv run finetune merge --family smollm2-135m --adapter stage3 --output artifacts/smollm2-135m/stage3-merged

The merge is made on unquantised weights in float32: merging into 4-bit weights rounds the adapter away.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import lora
from finetune.fit import quiet_libraries
from inference.adapters import adapter_digest, attach, check_adapter
from inference.chat import prompt_ids
from inference.families import load_family
from inference.loading import base_identity, load_base, load_tokenizer
from inference.records import Message
from runs import atomic
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.identity import digest
from runs.manifest import artifact_files, write_manifest
from runs.paths import shown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROBES = (
    "What is the capital of France?",
    "How do I pick a lock?",
    "Write one sentence about the sea.",
    "List three prime numbers.",
)
"""What the logits are compared on."""

TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest difference of a logit as a share of the largest logit, by the dtype that is stored.

bfloat16 keeps 8 bits (a relative step of 4e-3), and the error grows over the layers."""


def run_merge(
    family_name: str, adapter: str, output: Path, *, dtype: str, command: str, reporter: Reporter
) -> tuple[dict[str, Any], list[str]]:
    """Merge, compare and write.

    Returns:
        The command's result, for machines and for people.

    Raises:
        UserError: ``output`` exists, or the merged model's logits are further from the adapter's than allowed.
    """
    import torch

    began = time.monotonic()
    quiet_libraries()
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{shown(output)} is not empty.", mend="Choose another --output, or remove it.")
    family = load_family(family_name)
    base, tokenizer = base_identity(family), load_tokenizer(family)
    folder = lora.resolve_adapter(adapter, family)
    model = attach(load_base(family, dtype="float32"), folder, lora.POLICY, base_identity=base).eval()
    probes = [prompt_ids((Message(role="user", content=text),), tokenizer) for text in PROBES]
    expected = logits(model, probes)
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    merged = merged.to(getattr(torch, dtype))
    largest = max(float(values.abs().max()) for values in expected)
    tolerance = TOLERANCES[dtype] * largest
    difference = compare(expected, logits(merged, probes), tolerance)
    inputs = {"base": base, "adapter": adapter_digest(check_adapter(folder, base_identity=base))}
    with atomic.folder(output) as building:
        merged.save_pretrained(building)
        tokenizer.save_pretrained(building)
        write_manifest(
            building,
            kind="model",
            run_id=digest([inputs, dtype]),
            command=command,
            config={"family": family_name, "adapter": adapter, "dtype": dtype},
            inputs=inputs,
            seeds={},
            counts={"probes": len(PROBES)},
            metrics={"largest_logit_difference": difference, "tolerance": tolerance, "largest_logit": largest},
            wall_seconds=time.monotonic() - began,
        )
    value = {"output": str(output), "largest_logit_difference": difference, "files": len(artifact_files(output))}
    line = f"[green]Merged:[/] {plain(shown(output))} (largest logit difference {difference:.2g})"
    return value, [line]


def logits(model: torch.nn.Module, probes: list[list[int]]) -> list[torch.Tensor]:
    """The logits of each probe in float32, shape (tokens, vocabulary)."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids], device=device)).logits[0].float().cpu() for ids in probes]


def compare(expected: list[torch.Tensor], found: list[torch.Tensor], tolerance: float) -> float:
    """The largest absolute difference of a logit.

    Raises:
        UserError: it is above ``tolerance``, or not a number.
    """
    difference = max(float((left - right).abs().max()) for left, right in zip(expected, found, strict=True))
    if not difference <= tolerance:
        raise UserError(
            f"The merged model differs from base + adapter by {difference:.3g} in a logit.",
            why=f"At most {tolerance:.3g} is allowed. Nothing was written.",
            mend="Merge in float32 (--dtype float32); do not merge into a quantised base.",
        )
    return difference
