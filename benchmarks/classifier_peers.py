"""The classifier in PyTorch and ONNX Runtime: the peers that the benchmark measures it against.

Written as their users would write them for speed: one product for query, key and value, the fused attention, the fused
optimiser, no padding beyond the longest row of a batch. `tests/test_benchmarks_classifier.py` holds them to our logits.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.classifier_rows import Arrays, Logits, Setting, part, training_batch
from safety_classifier.features import Encoded

THREADS = 2


class TorchLayer(nn.Module):
    """One post-layer-norm transformer layer."""

    def __init__(self, encoder: dict[str, Any]) -> None:
        super().__init__()
        width, hidden, epsilon = encoder["hidden_size"], encoder["intermediate_size"], encoder["layer_norm_eps"]
        self.heads = encoder["num_attention_heads"]
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.attention_norm, self.output_norm = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """X (B, S, width) and a mask that broadcasts to (B, heads, S, S), True where attention may go."""
        rows, size, width = x.shape
        qkv = self.qkv(x).view(rows, size, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.attention_norm(x + self.out(attended.transpose(1, 2).reshape(rows, size, width)))
        normed: Tensor = self.output_norm(x + self.down(functional.gelu(self.up(x))))
        return normed


class TorchClassifier(nn.Module):
    """`safety_classifier.model.WideAndDeep` in PyTorch."""

    def __init__(self, config: dict[str, Any], heads: int) -> None:
        super().__init__()
        encoder = config["encoder"]
        width = encoder["hidden_size"]
        self.words = nn.Embedding(encoder["vocab_size"], width)
        self.positions = nn.Parameter(torch.zeros(encoder["max_position_embeddings"], width))
        self.types = nn.Embedding(encoder["type_vocab_size"], width)
        self.embedding_norm = nn.LayerNorm(width, encoder["layer_norm_eps"])
        self.layers = nn.ModuleList([TorchLayer(encoder) for _ in range(encoder["num_hidden_layers"])])
        self.queries = nn.Linear(width, heads, bias=False)
        self.mean_head = nn.Linear(width, heads)
        self.attention_head = nn.Linear(width, heads, bias=False)
        self.wide = nn.Parameter(torch.zeros(2 ** config["gram_bits"], heads))

    def forward(
        self, ids: Tensor, types: Tensor, inside: Tensor | None, grams: Tensor, starts: Tensor | None, count: Tensor
    ) -> Tensor:
        """Logits (B, heads).

        Args:
            ids: (B, S).
            types: (B, S).
            inside: bool (B, S), False where a row is padded; None when no row is.
            grams: all n-grams one after the other; or (B, G), padded, when ``starts`` is None.
            starts: where each row's n-grams start.
            count: (B,) n-grams of each row.
        """
        x = self.embedding_norm(self.words(ids) + self.positions[: ids.shape[1]] + self.types(types))
        mask = None if inside is None else inside[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return self._deep(x, inside) + self._wide(grams, starts, count)

    def _deep(self, x: Tensor, inside: Tensor | None) -> Tensor:
        scores, values = self.queries(x), self.attention_head(x)
        if inside is None:
            mean = x.mean(1)
        else:
            kept = inside[:, :, None].to(x.dtype)
            mean = (x * kept).sum(1) / kept.sum(1)
            scores = scores.masked_fill(~inside[:, :, None], -1e9)
        pooled: Tensor = self.mean_head(mean) + (scores.softmax(1) * values).sum(1)
        return pooled

    def _wide(self, grams: Tensor, starts: Tensor | None, count: Tensor) -> Tensor:
        if starts is not None:
            total = functional.embedding_bag(grams, self.wide, starts, mode="sum")
        else:
            present = torch.arange(grams.shape[1])[None, :] < count[:, None]
            total = (self.wide[grams] * present[:, :, None].to(self.wide.dtype)).sum(1)
        return total * count.clamp(min=1)[:, None].to(total.dtype).rsqrt()


def torch_model(setting: Setting) -> TorchClassifier:
    """The model with the weights of ``setting``."""
    shape = setting.shape
    model = TorchClassifier(shape["config"], shape["heads"])
    model.load_state_dict(_torch_names(load_file(setting.arrays)))
    return model.eval()


def _torch_names(arrays: Arrays) -> dict[str, Tensor]:
    """Our names as PyTorch's; its linear maps hold (out, in)."""
    found = {}
    for path, array in arrays.items():
        name = path.removeprefix("encoder.").replace(".scale", ".weight")
        if name.endswith(".kernel"):
            name, array = name.replace(".kernel", ".weight"), array.T
        elif name in ("words", "types", "attention_head"):
            name = f"{name}.weight"
        elif name == "queries":
            name, array = "queries.weight", array.T
        found[name] = torch.tensor(np.ascontiguousarray(array))
    return found


class Batches:
    """What the peers share: batches in the order of arrival, padded to their own longest row."""

    batch: int | None = 32

    def __init__(self, setting: Setting) -> None:
        self.setting, featuriser = setting, setting.featuriser
        self.longest, self.tokenizer = featuriser.max_tokens, featuriser.tokenizer
        self.tokenizer.enable_truncation(self.longest)
        self.pad_id = featuriser.pad_id

    def score(self, rows: Encoded) -> Logits:
        """Logits in the order of the rows."""
        size = self.batch or len(rows)
        parts = [self.logits(part(rows, start, start + size)) for start in range(0, len(rows), size)]
        return np.concatenate(parts)

    def score_texts(self, texts: Sequence[str]) -> Logits:
        """Only tokenised: neither normalised nor n-grams, so that the peers do less work than we."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        one = np.zeros(1, np.int32)  # an empty table would be a shape of its own to a compiler
        return self.score(Encoded(ids, [len(row) for row in ids], [one] * len(ids)))

    def logits(self, rows: Encoded) -> Logits:
        """Logits of one batch."""
        raise NotImplementedError

    def padded(self, rows: Encoded) -> tuple[Any, Any, Any]:
        """Ids, types and the mask of what is inside, each (B, S)."""
        lengths = np.array([len(row) for row in rows.ids])
        size = int(lengths.max())
        ids = np.full((len(rows), size), self.pad_id, np.int64)
        for place, row in enumerate(rows.ids):
            ids[place, : len(row)] = row
        places = np.arange(size)
        inside = places < lengths[:, None]
        return ids, (inside & (places >= np.array(rows.second)[:, None])).astype(np.int64), inside


class TorchPeer(Batches):
    """PyTorch, eager or compiled.

    Args:
        setting: weights and shapes.
        bf16: run the forward pass in bfloat16 and train under autocast.
        compiled: by TorchInductor.
    """

    def __init__(self, setting: Setting, *, bf16: bool, compiled: bool) -> None:
        super().__init__(setting)
        torch.set_num_threads(THREADS)
        self.bf16, self.compiled = bf16, compiled
        model = torch_model(setting)
        self.model = model.bfloat16() if bf16 else model
        self.run = _compile(self.model) if compiled else self.model
        self.trainers: dict[tuple[int, int], Callable[[], None]] = {}
        self.training: tuple[TorchClassifier, Any] | None = None

    @torch.inference_mode()
    def logits(self, rows: Encoded) -> Logits:
        """Logits of one batch."""
        ids, types, inside = (torch.from_numpy(array) for array in self.padded(rows))
        counts = np.array([len(grams) for grams in rows.grams])
        flat = torch.from_numpy(np.concatenate(rows.grams))
        starts = torch.from_numpy((np.cumsum(counts) - counts).astype(np.int32))
        mask = None if bool(inside.all()) else inside
        if self.compiled:
            _mark(ids, types, mask, flat, starts)
        found = self.run(ids, types, mask, flat, starts, torch.from_numpy(counts))
        return np.asarray(found.float().numpy())

    def step(self, rows: int, length: int) -> None:
        """One AdamW step; the word and position embeddings are frozen, as ours are."""
        key = (rows, length)
        if key not in self.trainers:
            self.trainers[key] = self._trainer(rows, length)
        self.trainers[key]()

    def _trainer(self, rows: int, length: int) -> Callable[[], None]:
        if self.training is None:
            model = torch_model(self.setting).train()
            model.words.requires_grad_(False)
            model.positions.requires_grad_(False)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimiser = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
            self.training = model, optimiser
        model, optimiser = self.training
        run = torch.compile(model, dynamic=False) if self.compiled else model
        drawn = training_batch(self.setting.shape, rows, length)
        batch = {name: torch.from_numpy(array) for name, array in drawn.items()}
        ids, width = batch["ids"].long(), batch["grams"].shape[1]
        starts, count = torch.arange(rows, dtype=torch.int32) * width, torch.full((rows,), width)
        types, grams = torch.zeros_like(ids), batch["grams"].flatten()

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = run(ids, types, None, grams, starts, count)
            entropy = functional.binary_cross_entropy_with_logits(logits.float(), batch["targets"], reduction="sum")
            torch.autograd.backward(entropy / rows)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

        return step


def _compile(model: nn.Module) -> Callable[..., Tensor]:
    """Compiled once for each fixed shape that is not marked as dynamic, and once for all others."""
    settings: Any = torch._dynamo.config
    settings.automatic_dynamic_shapes = False
    settings.recompile_limit = 64
    inductor: Any = torch._inductor.config
    inductor.freezing = True  # weights as constants, packed once
    compiled: Callable[..., Tensor] = torch.compile(model)
    return compiled


FIXED = {(1, 32), (32, 32), (8, 128)}
"""Shapes that the benchmark repeats: their graphs may be specialised."""


def _mark(ids: Tensor, types: Tensor, inside: Tensor | None, grams: Tensor, starts: Tensor) -> None:
    """Say which axes change from call to call."""
    torch._dynamo.maybe_mark_dynamic(grams, 0)
    if tuple(ids.shape) in FIXED:
        return
    for tensor, axes in ((ids, (0, 1)), (types, (0, 1)), (inside, (0, 1)), (starts, (0,))):
        for axis in axes if tensor is not None else ():
            torch._dynamo.maybe_mark_dynamic(tensor, axis)


class OnnxPeer(Batches):
    """ONNX Runtime, from PyTorch's export.

    Args:
        setting: weights and shapes.
        int8: `onnxruntime.quantization.quantize_dynamic` with its defaults.
    """

    def __init__(self, setting: Setting, *, int8: bool) -> None:
        super().__init__(setting)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        if os.environ.get("OMP_WAIT_POLICY") == "passive":  # the same for its own threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(torch_model(setting), Path(folder), int8=int8)
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def logits(self, rows: Encoded) -> Logits:
        """Logits of one batch."""
        ids, types, inside = self.padded(rows)
        count = np.array([len(grams) for grams in rows.grams])
        grams = np.zeros((len(rows), max(int(count.max()), 1)), np.int64)
        for place, row in enumerate(rows.grams):
            grams[place, : len(row)] = row
        feed = {"ids": ids, "types": types, "inside": inside, "grams": grams, "count": count}
        return np.asarray(self.session.run(None, feed)[0])

    def step(self, rows: int, length: int) -> None:
        """Not offered."""
        raise NotImplementedError("ONNX Runtime is measured at inference only")


class Padded(nn.Module):
    """The model on one padded array of n-grams, which ONNX can say."""

    def __init__(self, model: TorchClassifier) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    def forward(self, ids: Tensor, types: Tensor, inside: Tensor, grams: Tensor, count: Tensor) -> Tensor:
        """Logits (B, heads)."""
        logits: Tensor = self.model(ids, types, inside, grams, None, count)
        return logits


def export_onnx(model: TorchClassifier, folder: Path, *, int8: bool) -> Path:
    """The model as an ONNX file that takes batches of any size and length."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    example = torch.ones(2, 9, dtype=torch.long)
    arguments = (example, example, example > 0, torch.ones(2, 7, dtype=torch.long), torch.tensor([7, 5]))
    names, path = ["ids", "types", "inside", "grams", "count"], folder / "model.onnx"
    axes = {name: {0: "rows", 1: f"{name}_size"} if name != "count" else {0: "rows"} for name in names}
    axes |= {name: {0: "rows", 1: "size"} for name in ("ids", "types", "inside")}
    named: dict[str, Any] = {"input_names": names, "output_names": ["logits"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs onnxscript
        torch.onnx.export(Padded(model), arguments, path, dynamo=False, opset_version=17, **named)
    if not int8:
        return path
    logging.getLogger().setLevel(logging.ERROR)  # it recommends pre-processing to whoever takes its defaults
    quantised = folder / "int8.onnx"
    quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
    return quantised


def torch_peak(shape: tuple[int, int, int], *, bf16: bool, seconds: float) -> float:
    """Operations a second of one matrix product in PyTorch."""
    from benchmarks.classifier_timing import rate

    torch.set_num_threads(THREADS)
    rows, inner, columns = shape
    kind = torch.bfloat16 if bf16 else torch.float32
    a, b = torch.randn(rows, inner, dtype=kind), torch.randn(inner, columns, dtype=kind)
    return 2.0 * math.prod(shape) * rate(lambda: torch.mm(a, b), seconds)
