"""TRL's SFT and DPO trainers, with the few hooks that this project needs different.

This module imports torch and TRL; import it inside functions.

* Rows come in as token ids (`finetune.data`), and stay as they are.
* The row order is a function of seed and epoch alone, so that a resumed run sees the same batches.
  (transformers' own length grouping draws from the global generator, and loses the length column with TRL.)
* A checkpoint is the trained adapter, the optimiser and the random states, marked when it is whole.
* Held-out numbers are weighted by what they count: tokens for SFT, pairs for DPO. The trainers average batch
  means, which gives a short last batch the weight of a full one.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch.utils.data import Sampler, SequentialSampler
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from finetune import checkpoints, head, lora
from runs.atomic import write_text
from runs.errors import UserError

TIMINGS = ("runtime", "per_second", "preparation_time", "total_flos", "eval_num_tokens")
"""Parts of metric names that change from run to run, or say nothing; they stay out of the log."""


class EpochSampler(Sampler[int]):
    """Row indices in an order that only ``seed`` and the epoch decide; rows of like length together if ``grouped``."""

    def __init__(self, lengths: list[int], *, batch_size: int, seed: int, grouped: bool) -> None:
        self.lengths, self.batch_size, self.seed, self.grouped = lengths, batch_size, seed, grouped
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if not self.grouped:
            return iter(torch.randperm(len(self.lengths), generator=generator).tolist())
        order: list[int] = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        # Grouping leaves batches sorted from long to short; in that order the loss would saw up and down.
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [whole[index] for index in torch.randperm(len(whole), generator=generator).tolist()]
        return iter([row for batch in shuffled + rest for row in batch])


class _Hooks:
    """What both trainers do differently. Mixed in before TRL's class."""

    lengths: list[int]
    """Token count of each training row."""
    public_id: str
    """The base's public name."""
    save_total_limit: int
    keep_best: bool
    _batches: tuple[tuple[int, float], ...] = ()
    """Weight and loss of each held-out batch of the latest evaluation."""
    wall_before: float = 0.0
    """Training time of the earlier processes of this run."""
    started: float = 0.0

    @abstractmethod
    def _weight(self, inputs: dict[str, Any]) -> int:
        """What a held-out batch counts for."""

    def _get_train_sampler(self, train_dataset: Sized | None = None) -> Sampler[int]:
        arguments: TrainingArguments = self.args  # type: ignore[attr-defined]
        return EpochSampler(
            self.lengths,
            batch_size=arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
            seed=arguments.seed,
            grouped=arguments.train_sampling_strategy == "group_by_length",
        )

    def _get_eval_sampler(self, eval_dataset: Sized) -> Sampler[int]:
        # transformers groups held-out rows too, and looks for a column that pairs do not have. Ours come sorted.
        return SequentialSampler(eval_dataset)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card into every checkpoint; ours is written once, for the artifact."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        assert output_dir is not None
        # Not super(): that one also stores the frozen reference, the tokenizer and a pickle of the arguments.
        lora.save(cast(PeftModel, self.model), Path(output_dir), public_id=self.public_id)  # type: ignore[attr-defined]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        state: TrainerState = self.state  # type: ignore[attr-defined]
        work = Path(self.args.output_dir)  # type: ignore[attr-defined]
        wall = self.wall_before + time.monotonic() - self.started
        checkpoints.mark_complete(work / f"checkpoint-{state.global_step}", wall)
        best = best_step(state.log_history) if self.keep_best else None
        checkpoints.prune(work, newest=self.save_total_limit, also=() if best is None else (best,))

    def prediction_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        outcome = super().prediction_step(model, inputs, *rest, **named)  # type: ignore[misc]
        self._batches = (*self._batches, (self._weight(inputs), outcome[0].item()))
        return outcome

    def evaluation_loop(self, *rest: Any, **named: Any) -> Any:
        self._batches = ()
        outcome = super().evaluation_loop(*rest, **named)  # type: ignore[misc]
        outcome.metrics[f"{named['metric_key_prefix']}_loss"] = self._loss()
        return outcome

    def _loss(self) -> float:
        return self._mean([batch[1] for batch in self._batches])

    def _mean(self, values: Sequence[float]) -> float:
        """Mean of one value per held-out batch, by the batches' weights."""
        weights = [batch[0] for batch in self._batches]
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        stored: dict[str, list[float]] = self._metrics["eval"]  # type: ignore[attr-defined]
        if not self.model.training:  # type: ignore[attr-defined]
            for name, values in stored.items():
                if len(values) == len(self._batches):
                    stored[name] = [self._mean(values)]
        super().log(logs, start_time)  # type: ignore[misc]


class SFT(_Hooks, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer on ``input_ids`` and ``labels``."""

    def _weight(self, inputs: dict[str, Any]) -> int:
        # The first token has no predecessor to be predicted from.
        return int((inputs["labels"][:, 1:] != -100).sum())


class DPO(_Hooks, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer on ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""

    def _weight(self, inputs: dict[str, Any]) -> int:
        return len(inputs["input_ids"]) // 2

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        # TRL would render and tokenise messages itself; ours are ids already, from the one chat format.
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *rest: Any) -> Any:
        # TRL calls this while it is being built, right after it patched the model with its own head.
        head.install(cast(PreTrainedModel, cast(PeftModel, self.model).get_base_model()))
        return super()._precompute_ref_logps(dataset, *rest)


def best_step(history: list[dict[str, Any]]) -> int | None:
    """The step with the lowest held-out loss (the first of equals), or None before any evaluation."""
    evaluations = [(entry["eval_loss"], entry["step"]) for entry in history if "eval_loss" in entry]
    return min(evaluations)[1] if evaluations else None


def out_of_patience(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether the last ``patience`` evaluations all failed to lower the held-out loss.

    A function of the log, which every checkpoint carries: a resumed run stops where the other would have.
    """
    losses: list[float] = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])


def log_lines(history: list[dict[str, Any]]) -> str:
    """The log as JSON lines: one line a step, training and held-out numbers side by side, no timings."""
    steps: dict[int, dict[str, Any]] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            line = steps.setdefault(entry["step"], {"step": entry["step"], "epoch": round(entry.get("epoch", 0.0), 4)})
            line |= {
                key: round(value, 6) if isinstance(value, float) and key != "learning_rate" else value
                for key, value in entry.items()
                if key not in ("step", "epoch") and not any(part in key for part in TIMINGS)
            }
    # A checkpoint stores its log with sorted keys; sorting all lines makes those of a resumed run the same.
    lines = (
        {"step": line.pop("step"), "epoch": line.pop("epoch")} | dict(sorted(line.items())) for line in steps.values()
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


class Progress(TrainerCallback):
    """Moves the bar, keeps train_log.jsonl, times the steps, and stops a run that diverged or no longer improves."""

    def __init__(self, advance: Callable[..., None], log: Path, patience: int | None) -> None:
        self.advance, self.log_path, self.patience = advance, log, patience
        self.step_seconds: list[float] = []
        self._began, self._note = 0.0, ""

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Start the step's clock."""
        self._began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop the step's clock (before evaluation and saving) and move the bar."""
        self.step_seconds.append(time.monotonic() - self._began)
        self.advance(1, note=self._note)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write the log anew from the trainer's state, so that a resumed run neither doubles nor misses a line."""
        loss = (logs or {}).get("loss", 0.0)
        if loss != loss or abs(loss) == float("inf"):
            raise UserError(
                f"The loss is not a number at step {state.global_step}.",
                mend="Lower train.learning_rate, or raise train.warmup_steps.",
            )
        if logs and "loss" in logs:
            self._note = f"loss {loss:.3f}"
        write_text(self.log_path, log_lines(state.log_history))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop, with a checkpoint, when patience has run out."""
        if out_of_patience(state.log_history, self.patience):
            control.should_training_stop = True
            control.should_save = True
