"""``--dry-run``: what a run would train, for how many steps, in how much memory, without loading a weight.

The base is built on torch's meta device, from its config on disk or, where the base is not there (a gated model before
its licence was accepted), from the shape that its family's YAML states. Then there is no tokenizer either, and rows are
counted without their tokens; the answer says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from finetune import data, dpo, estimate, fit, lora, rl
from finetune.cluster import Cluster, Rhythm, rhythm
from finetune.config import DPORun, LoraSection, RewardRun, RLRun, SFTRun
from inference.families import Family, load_family
from inference.loading import load_tokenizer, resolve_device
from inference.sources import base_folder
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.paths import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Run = SFTRun | DPORun | RewardRun | RLRun


@dataclass(frozen=True)
class Shape:
    """A base without weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    notes: tuple[str, ...]
    """What is not known, and why."""


def describe(run: Run, reporter: Reporter, *, processes: int = 1) -> tuple[dict[str, Any], list[str]]:
    """The answer of ``--dry-run``, for machines and for people. Nothing is written.

    Args:
        run: the config.
        reporter: shows the rows.
        processes: over which the run will be spread.

    Raises:
        UserError: data cannot be read, or neither the base nor its shape is known.
    """
    fit.quiet_libraries()
    family = load_family(run.family)
    shape = bare(family, scored=isinstance(run, RewardRun))
    section, note = adapter(run, family)
    notes = [*shape.notes, *note]
    trained = lora.trainable_parameters(section, shape.model)
    if isinstance(run, RewardRun):
        trained += shape.model.config.get_text_config().hidden_size  # the head: one weight for each channel
    examples = rows(run, shape.tokenizer)
    examples.show(reporter)
    shared = share(run, processes)
    steps = fit.planned_steps(len(examples.train), run.train, shared)
    held = memory(run, family, shape.model, section, trained, processes)
    counts = examples.counts()
    value = {
        "config": run.model_dump(mode="json"),
        "counts": counts,
        "base_parameters": sum(weight.numel() for weight in shape.model.parameters()),
        "trainable_parameters": trained,
        "steps": steps,
        "held_out_rows": len(examples.holdout),
        "processes": processes,
        "memory_gib": held.gib(),
        "notes": notes,
    }
    lines = [plain(line) for line in yaml.safe_dump(value["config"], sort_keys=False).rstrip().splitlines()]
    tokens = f" over {counts['tokens']:,} tokens a pass" if shape.tokenizer is not None else ""
    lines.append(f"{trained:,} trainable parameters of {value['base_parameters']:,}; {steps} steps{tokens}")
    parts = ", ".join(f"{name} {size:.2f}" for name, size in held.gib().items() if name != "total")
    lines.append(f"about {held.gib()['total']:.1f} GiB on each of {processes} device(s): {parts}")
    lines += [f"[yellow]note[/] {plain(note)}" for note in notes]
    return value, lines


def bare(family: Family, *, scored: bool) -> Shape:
    """The base on the meta device.

    Raises:
        UserError: its config is not to be had, and the family's YAML does not state its shape.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    tokenizer: PreTrainedTokenizerBase | None = None
    notes: tuple[str, ...] = ()
    try:
        config: Any = AutoConfig.from_pretrained(base_folder(family))
        tokenizer = load_tokenizer(family)
    except UserError as error:
        if family.architecture is None:
            raise
        config = AutoConfig.for_model(**family.architecture)
        notes = (f"{error.what} Its shape is the family's; rows are counted without their tokens.",)
    if scored:
        config.num_labels = 1
    with torch.device("meta"):
        build: Any = AutoModelForSequenceClassification if scored else AutoModelForCausalLM
        model = build.from_config(config)
    return Shape(model, tokenizer, notes)


def adapter(run: Run, family: Family) -> tuple[LoraSection, list[str]]:
    """The shape of the trained adapter, and what is not known of it.

    Raises:
        UsageError: ``init_adapter`` names no checkpoint of the family and no folder.
    """
    if not isinstance(run, DPORun | RLRun):
        return run.lora, []
    if run.init_adapter is None:
        return run.lora or LoraSection(), []
    folder = lora.resolve_adapter(run.init_adapter, family)
    if not (folder / lora.CONFIG).is_file():
        return LoraSection(), [f"There is no adapter in {shown(folder)} yet; its shape is taken to be the default one."]
    stored = json.loads((folder / lora.CONFIG).read_text(encoding="utf-8"))
    known = {"r": stored["r"], "alpha": stored["lora_alpha"], "target_modules": stored["target_modules"]}
    return LoraSection.model_validate(known), []


def rows(run: Run, tokenizer: PreTrainedTokenizerBase | None) -> data.Examples:
    """The run's rows; without a tokenizer, none is too long."""
    if isinstance(run, SFTRun):
        return data.sft_examples(run.data, tokenizer)
    if isinstance(run, RLRun):
        return data.rl_examples(run.data, tokenizer, run.train.max_completion_length)[0]
    return dpo.read_pairs(run, tokenizer) if isinstance(run, DPORun) else data.dpo_examples(run.data, tokenizer)


def share(run: Run, processes: int) -> Rhythm:
    """How a step's rows are shared among ``processes``. Raises `UsageError` if they cannot be."""
    if isinstance(run, RLRun):
        return rl.rounds(run)
    return rhythm(
        Cluster(0, processes),
        per_device=run.train.per_device_train_batch_size,
        accumulation=run.train.gradient_accumulation_steps,
        total=run.train.global_batch_size,
    )


def memory(
    run: Run, family: Family, model: PreTrainedModel, section: LoraSection, trained: int, processes: int
) -> estimate.Memory:
    """The estimate for one device, at the longest rows that the config allows."""
    paired = isinstance(run, RewardRun) or (isinstance(run, DPORun) and "kto" not in run.train.loss_type)
    tokens = run.train.per_device_train_batch_size * (2 if paired else 1) * run.data.max_tokens
    return estimate.memory(
        model,
        trained=trained,
        targets=section.target_modules,
        dtype=run.model.dtype or family.dtype,
        quantization=run.model.quantization,
        tokens=tokens,
        checkpointing=run.train.activation_checkpointing,
        copies=1 if isinstance(run, DPORun | RLRun) else 0,
        shards=processes if run.train.fsdp else 1,
        on_gpu=resolve_device(run.model.device).type == "cuda" or family.dtype == "bfloat16",
    )
