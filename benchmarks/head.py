"""The training loss on a CPU: `finetune.head` against TRL's tiled head, forward and backward, in one process.

    uv run python benchmarks/head.py [--rows 8] [--tokens 128] [--repeats 3]

Shapes are SmolLM2-135M's: width 576, vocabulary 49,152; 58 % of the positions carry a label, as in helpful-base.
"""

from __future__ import annotations

import argparse
import statistics
import time
import types
from collections.abc import Callable

from runs.environment import prepare_process

prepare_process()

import torch
from trl.trainer.utils import add_fused_lm_head

from finetune import head
from inference.families import load_family
from inference.loading import load_base


def seconds(step: Callable[[], torch.Tensor], repeats: int) -> float:
    """Median time of a forward and a backward pass, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        step().backward()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = load_base(load_family("smollm2-135m"), device="cpu").requires_grad_(False)
    model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (options.rows, options.tokens), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) > 0.58, -100)
    plain = model.forward
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    tiled_loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss.item()
    tiled = seconds(lambda: model(input_ids=ids, labels=labels, fused_lm_head=True).loss, options.repeats)
    head.install(model)
    direct_loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss.item()
    direct = seconds(lambda: model(input_ids=ids, labels=labels, fused_lm_head=True).loss, options.repeats)
    model.forward = types.MethodType(plain.__func__, model)
    print(f"TRL's tiled head  {tiled:6.2f} s a step   1.00 x   loss {tiled_loss:.5f}")
    print(f"finetune.head     {direct:6.2f} s a step {tiled / direct:6.2f} x   loss {direct_loss:.5f}")


if __name__ == "__main__":
    main()
