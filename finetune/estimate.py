"""How much memory a run takes on one device, from shapes alone: for planning, before any weight is loaded.

An estimate of what torch must hold at once, and no bound: allocators, CUDA's own context (half a gigabyte) and
fragments come on top. On a CPU the shipped SFT of SmolLM2-135M took 8.6 GiB where this says 5.4. The manifest of a run
has what it took.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
"""Of one number."""
QUANTISED = {"4bit": 4.127 / 8, "8bit": 1.0}
"""Bytes of a weight of a quantised linear module: NF4 has 4 bits and 0.127 for its doubly quantised constants
(Dettmers et al. 2023, QLoRA, section 3)."""
STATE = 16.0
"""Bytes for each trained number: weight, gradient and AdamW's two moments in float32."""
BLOCK = 34.0
"""Bytes of activations for each token and channel of a block at two bytes a number, without attention's scores, which
fused kernels do not keep (Korthikanti et al. 2022, equation 2)."""
HEAD_TOKENS = 4096
"""Tokens whose logits TRL's head has in memory at once on a GPU."""
HEAD_WORDS = 32_768
"""And words of the vocabulary."""
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    base: float
    adapter: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.base + self.adapter + self.activations + self.logits

    def gib(self) -> dict[str, float]:
        """For people and machines, in GiB."""
        parts = {"base": self.base, "adapter": self.adapter, "activations": self.activations, "logits": self.logits}
        return {name: round(value / GIB, 2) for name, value in {**parts, "total": self.total}.items()}


def memory(
    model: PreTrainedModel,
    *,
    trained: int,
    targets: Collection[str],
    dtype: str,
    quantization: str | None,
    tokens: int,
    checkpointing: bool,
    copies: int,
    shards: int,
    on_gpu: bool,
) -> Memory:
    """What one step holds.

    Args:
        model: the base, perhaps without weights (on the meta device).
        trained: numbers that are trained.
        targets: last parts of the names of the modules with an adapter; each keeps a dropped-out copy of its input.
        dtype: what the base is computed in.
        quantization: ``4bit``, ``8bit`` or None.
        tokens: of one forward pass, with padding.
        checkpointing: whether activations are computed again in the backward pass.
        copies: frozen copies of the adapter beside it: DPO's reference.
        shards: processes that share base and optimiser (FSDP2); 1 where each holds all.
        on_gpu: whether TRL's tiled head is used, or `finetune.head`, which scores all tokens at once.
    """
    from torch import nn

    config: Any = model.config.get_text_config()
    size = BYTES[dtype]
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] not in ("lm_head", "score")
    )
    everything = sum(weight.numel() for weight in model.parameters())
    base = (everything - linear) * size + linear * (QUANTISED[quantization] if quantization else size)
    layers = config.num_hidden_layers
    adapted = sum(
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets
    )
    block = tokens * (config.hidden_size * BLOCK * size / 2 + adapted / layers * (size + 1))  # and the dropout's mask
    activations = layers * tokens * config.hidden_size * size + block if checkpointing else layers * block
    words = config.vocab_size
    at_once = min(tokens, HEAD_TOKENS) * min(words, HEAD_WORDS) if on_gpu else tokens * words
    return Memory(
        base=base / shards,
        adapter=trained * (STATE / shards + 4.0 * copies),
        activations=activations,
        logits=at_once * 4.0 * 3,
    )
