"""Tiny models of the real architectures, made from config: random weights, real classes, real templates."""

from __future__ import annotations

from pathlib import Path

import yaml

GEMMA_TEMPLATE = (Path(__file__).parent / "fixtures" / "gemma_chat_template.jinja").read_text()
CHATML_TEMPLATE = (Path(__file__).parent / "fixtures" / "chatml_chat_template.jinja").read_text()
WORDS = [
    "the", "cat", "dog", "runs", "to", "and", "sees", "blue",
    "sky", "with", "good", "help", "for", "you", "why", "what",
]  # fmt: skip
"""What the made conversations are of."""


def _tokenizer(specials: dict[str, str], template: str, *, adds_bos: bool):
    """A byte-level BPE trained on the shipped prompts: any text round-trips, and the vocabulary is small."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    corpus = (Path(__file__).parents[1] / "evaluation" / "prompts" / "core.jsonl").read_text()
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    markers = list(dict.fromkeys(specials.values()))
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=markers,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus.splitlines(), trainer)
    if adds_bos:
        bos = specials["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    named = {name: token for name, token in specials.items() if name.endswith("_token")}
    others = [token for name, token in specials.items() if not name.endswith("_token")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=others, **named)
    tokenizer.chat_template = template
    return tokenizer


def build_llama(folder: Path, seed: int = 0) -> Path:
    """SmolLM2's architecture (Llama, ChatML) with two layers of width 32, saved in ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    specials = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    tokenizer = _tokenizer(specials, CHATML_TEMPLATE, adds_bos=False)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return _save(folder, model, tokenizer)


def build_gemma(folder: Path, seed: int = 0) -> Path:
    """Gemma v1's architecture (GemmaForCausalLM, its own template, no system role) in small."""
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    specials = {
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "turn_start": "<start_of_turn>",
        "turn_end": "<end_of_turn>",
    }
    tokenizer = _tokenizer(specials, GEMMA_TEMPLATE, adds_bos=True)
    torch.manual_seed(seed)
    model = GemmaForCausalLM(
        GemmaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=1024,
            initializer_range=0.5,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return _save(folder, model, tokenizer)


def _save(folder: Path, model, tokenizer) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_family(folder: Path, name: str, base: Path, adapters: dict[str, Path] | None = None) -> Path:
    """A family YAML over a local base; its path is what ``--family`` takes."""
    path = folder / f"{name}.yaml"
    content = {
        "name": name,
        "base": {"public_id": f"test/{name}", "path": str(base)},
        "dtype": "float32",
        "licence": "MIT",
        "adapters": {key: str(value) for key, value in (adapters or {}).items()},
    }
    path.write_text(yaml.safe_dump(content))
    return path
