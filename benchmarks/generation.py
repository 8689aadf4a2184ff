"""Generation speed: the engine by batch size, against `generate` on one prompt after the other, in one process.

    uv run python benchmarks/generation.py [--prompts 32] [--max-new-tokens 64] [--batch-sizes 1 8 32]

Prints tokens per second and the ratio to the peer. The machine's load moves the absolute figures; quote the ratio.
"""

from __future__ import annotations

import argparse
import time

from runs.environment import prepare_process

prepare_process()

import torch

from evaluation.config import CORE_PROMPTS
from inference.chat import prompt_ids, stop_ids
from inference.engines import open_engines
from inference.families import load_family
from inference.loading import load_base, load_tokenizer
from inference.prompts import load_prompts
from inference.records import Prompt, Request, Sampling


def peer(family_name: str, prompts: list[Prompt], length: int) -> tuple[int, float]:
    """The library's own generate, greedy, a prompt at a time: tokens and seconds."""
    family = load_family(family_name)
    model, tokenizer = load_base(family, device="cpu"), load_tokenizer(family)
    stops, tokens, started = sorted(stop_ids(tokenizer)), 0, time.perf_counter()
    for prompt in prompts:
        ids = torch.tensor([prompt_ids(prompt.messages, tokenizer)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=length,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokens += sum(token not in stops for token in output[0, ids.shape[1] :].tolist())
    return tokens, time.perf_counter() - started


def engine(family_name: str, prompts: list[Prompt], length: int, batch_size: int) -> tuple[int, float]:
    """The project's engine: tokens and seconds."""
    opened = open_engines(load_family(family_name), ["base"], batch_size=batch_size, device="cpu")["base"]
    requests = [Request(key=prompt.id, messages=prompt.messages) for prompt in prompts]
    started = time.perf_counter()
    tokens = sum(c.completion_tokens for c in opened.generate(requests, Sampling(max_new_tokens=length)))
    return tokens, time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    shipped = load_prompts(CORE_PROMPTS)
    prompts = shipped[:: max(1, len(shipped) // options.prompts)][: options.prompts]
    tokens, seconds = peer(options.family, prompts, options.max_new_tokens)
    base = tokens / seconds
    print(f"{'peer: generate, one at a time':32} {base:8.1f} tokens/s   1.00 x")
    for size in options.batch_sizes:
        tokens, seconds = engine(options.family, prompts, options.max_new_tokens, size)
        print(f"{f'engine, batch {size}':32} {tokens / seconds:8.1f} tokens/s {tokens / seconds / base:6.2f} x")


if __name__ == "__main__":
    main()
