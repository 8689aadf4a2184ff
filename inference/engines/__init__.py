"""Engines: things that turn requests into completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inference.families import BASE, DtypeName, Family

if TYPE_CHECKING:
    from inference.engines.transformers import TransformersEngine
    from inference.loading import Quantization

ENGINE_VERSION = "1"
"""Raised when the decoding loop changes what it would answer."""


def open_engines(
    family: Family,
    checkpoints: Sequence[str],
    *,
    batch_size: int,
    device: str = "auto",
    dtype: DtypeName | None = None,
    quantization: Quantization | None = None,
) -> dict[str, TransformersEngine]:
    """Load the family's base once and give an engine for each checkpoint on it.

    Raises:
        UsageError: a checkpoint that the family does not have.
        UserError, IntegrityError: weights or adapters that are missing, damaged, or of another base.
    """
    from inference.adapters import SharedModel, adapter_digest, check_adapter
    from inference.chat import chat_digest
    from inference.engines.transformers import TransformersEngine
    from inference.loading import base_identity, load_base, load_tokenizer

    base = base_identity(family)
    folders = {name: family.adapter_folder(name) for name in checkpoints if name != BASE}
    for name in checkpoints:
        family.check(name)
    manifests = {name: check_adapter(folder, base_identity=base) for name, folder in folders.items()}
    tokenizer = load_tokenizer(family)
    model = load_base(family, device=device, dtype=dtype, quantization=quantization)
    common = {
        "engine": f"transformers-{ENGINE_VERSION}",
        "base": base,
        "chat": chat_digest(tokenizer),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "quantization": quantization or "none",
        "batch_size": str(batch_size),
    }
    shared = SharedModel(model)
    for name, folder in folders.items():
        shared.attach(folder, name, base_identity=base)
    engines = {}
    for name in checkpoints:
        adapter = adapter_digest(manifests[name]) if name in manifests else "none"
        engines[name] = TransformersEngine(
            shared,
            tokenizer,
            adapter=name if name in folders else None,
            identity={**common, "adapter": adapter},
            batch_size=batch_size,
        )
    return engines


def open_engine(family: Family, checkpoint: str, *, batch_size: int, device: str = "auto") -> TransformersEngine:
    """The engine of one checkpoint. Raises as `open_engines`."""
    return open_engines(family, [checkpoint], batch_size=batch_size, device=device)[checkpoint]
