"""What this project needs different in TRL's trainers, and the SFT trainer (`finetune.preferences` has the others).

This module imports torch and TRL; import it inside functions.

* Rows come in as token ids (`finetune.data`), and stay as they are.
* The row order is a function of seed and epoch alone, so that a resumed run sees the same batches.
  (transformers' own length grouping draws from the global generator, and loses the length column with TRL.)
* A checkpoint is the trained adapter, the optimiser, the random states and the sums of the log line in the making,
  marked when it is whole. It is the same under FSDP: every process gives its part, the first one writes.
* Held-out numbers are weighted by what they count: tokens for SFT, pairs for DPO. The trainers average batch
  means, which gives a short last batch the weight of a full one. Each process measures all of them.
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
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl.trainer.sft_trainer import SFTTrainer

from finetune import checkpoints, lora, speed
from finetune.cluster import Cluster, Rhythm
from runs.atomic import write_text
from runs.errors import UserError

LINE = "log_line.json"
"""The file of a checkpoint with the sums of the log line in the making."""

TIMINGS = ("runtime", "per_second", "step_time", "preparation_time", "total_flos", "eval_num_tokens")
"""Parts of metric names that change from run to run, or say nothing; they stay out of the log."""


class EpochSampler(Sampler[int]):
    """Row indices in an order that only ``seed`` and the epoch decide; rows of like length together if ``grouped``.

    With ``whole``, an epoch has only whole batches: a row that is left over waits for the next epoch's order. With
    ``block``, rows stay together in blocks of that size, a short one last, and only the blocks are shuffled.
    """

    def __init__(
        self,
        lengths: list[int],
        *,
        batch_size: int,
        seed: int,
        grouped: bool,
        whole: bool = False,
        block: int | None = None,
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.grouped = lengths, batch_size, seed, grouped
        self.block = block
        self.epoch = 0
        self.count = len(lengths) // batch_size * batch_size if whole else len(lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.block is not None:
            full = len(self.lengths) // self.block
            blocks = [*torch.randperm(full, generator=generator).tolist(), full]
            rows = [row for index in blocks for row in range(index * self.block, (index + 1) * self.block)]
            return iter([row for row in rows if row < len(self.lengths)][: self.count])
        if not self.grouped:
            return iter(torch.randperm(len(self.lengths), generator=generator).tolist()[: self.count])
        order: list[int] = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        # Grouping leaves batches sorted from long to short; in that order the loss would saw up and down.
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [whole[index] for index in torch.randperm(len(whole), generator=generator).tolist()]
        return iter([row for batch in shuffled + rest for row in batch][: self.count])


class Hooks:
    """What all trainers do differently. Mixed in before TRL's class."""

    lengths: list[int]
    """Token count of each training row."""
    public_id: str
    """The base's public name."""
    save_total_limit: int
    keep_best: bool
    cluster: Cluster
    rhythm: Rhythm
    blocks: bool = False
    """Whether the rows of a forward pass stay together."""
    sampler: Any = None
    """The order of the rows, by epoch."""
    clock: speed.Clock
    """Times the steps; `fit.prepare` starts it."""
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
        self.sampler = EpochSampler(
            self.lengths,
            batch_size=self.rhythm.rows,
            seed=arguments.seed,
            grouped=arguments.train_sampling_strategy == "group_by_length",
            whole=self.rhythm.whole,
            block=arguments.per_device_train_batch_size if self.blocks else None,
        )
        return cast(Sampler[int], self.sampler)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Held-out batches; each process takes all of them."""
        if not self.cluster.spread:
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[misc, no-any-return]
        # accelerate would deal the batches out, and repeat rows so that all processes have as many: other numbers
        # than one process measures. There are few held-out rows; each process takes them all.
        rows = self._remove_unused_columns(  # type: ignore[attr-defined]
            self.eval_dataset if eval_dataset is None else eval_dataset,  # type: ignore[attr-defined]
            description="evaluation",
        )
        size: int = self.args.per_device_eval_batch_size  # type: ignore[attr-defined]
        return DataLoader(rows, batch_size=size, collate_fn=self.data_collator)  # type: ignore[attr-defined]

    def _get_eval_sampler(self, eval_dataset: Sized) -> Sampler[int]:
        # transformers groups held-out rows too, and looks for a column that pairs do not have. Ours come sorted.
        return SequentialSampler(eval_dataset)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card into every checkpoint; ours is written once, for the artifact."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Store the trained adapter alone."""
        assert output_dir is not None
        # Not super(): that one also stores the frozen reference, the tokenizer and a pickle of the arguments.
        model = cast(PeftModel, self.model)  # type: ignore[attr-defined]
        lora.save(model, Path(output_dir), public_id=self.public_id, write=self.cluster.first)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        lora.load(cast(PeftModel, self.model), Path(resume_from_checkpoint))  # type: ignore[attr-defined]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded:
            return super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc, no-any-return]
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(*self._optimised, options=options)
        if self.cluster.first:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")  # type: ignore[attr-defined]
        return None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.sharded or checkpoint is None:
            return super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc, no-any-return]
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        state = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", weights_only=True)
        set_optimizer_state_dict(*self._optimised, state, options=StateDictOptions(full_state_dict=True))
        scheduler = torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True)
        self.lr_scheduler.load_state_dict(scheduler)  # type: ignore[attr-defined]
        return None

    @property
    def sharded(self) -> bool:
        """Whether FSDP holds the weights in parts."""
        return bool(self.is_fsdp_enabled)  # type: ignore[attr-defined]

    @property
    def _optimised(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """The model and the optimiser itself, without accelerate's wrapper."""
        return self.model, self.optimizer.optimizer  # type: ignore[attr-defined]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        state: TrainerState = self.state  # type: ignore[attr-defined]
        work = Path(self.args.output_dir)  # type: ignore[attr-defined]
        folder = work / f"checkpoint-{state.global_step}"
        sums = self._line_in_the_making()
        self.cluster.wait()  # every process has its random state on the disk
        if self.cluster.first:
            write_text(folder / LINE, json.dumps(sums) + "\n")
            checkpoints.mark_complete(folder, self.wall_before + time.monotonic() - self.started)
            best = best_step(state.log_history) if self.keep_best else None
            checkpoints.prune(work, newest=self.save_total_limit, also=() if best is None else (best,))

    def _line_in_the_making(self) -> dict[str, Any]:
        """The sums since the last log line: a run that stops between two lines goes on to the same ones."""
        here = self._tr_loss.item()  # type: ignore[attr-defined]
        losses = [here]
        if self.cluster.spread:
            losses = [0.0] * self.cluster.size
            torch.distributed.all_gather_object(losses, here)
        return {
            "loss": losses,
            "since": self._globalstep_last_logged,
            "tokens": self._total_train_tokens,
            "metrics": dict(self._metrics["train"]),  # type: ignore[attr-defined]
            "clock": self.clock.state(),
        }

    def restore_line(self, checkpoint: Path) -> None:
        """Take up the log line that ``checkpoint`` was made within."""
        path = checkpoint / LINE
        if not path.is_file():  # made before these were kept; it stands at the end of a line
            return
        sums = json.loads(path.read_text(encoding="utf-8"))
        if len(sums["loss"]) == self.cluster.size:
            mine = sums["loss"][self.cluster.rank]
        else:  # another number of processes: their mean is what is logged
            mine = sum(sums["loss"]) / len(sums["loss"])
        self._tr_loss += mine  # type: ignore[attr-defined]
        self._globalstep_last_logged = sums["since"]
        self._total_train_tokens = sums["tokens"]
        self._metrics["train"].update(sums["metrics"])  # type: ignore[attr-defined]
        self.restore_clock(checkpoint)

    def tokens_seen(self) -> int:
        """Tokens that the model read since the start of the run."""
        return int(self._total_train_tokens)

    def final(self) -> dict[str, Any]:
        """What is measured once, of the stored weights, besides the held-out evaluation."""
        return {}

    def restore_clock(self, checkpoint: Path) -> None:
        """Go on counting seconds and tokens from where ``checkpoint`` was made."""
        path = checkpoint / LINE
        state = json.loads(path.read_text(encoding="utf-8")).get("clock") if path.is_file() else None
        if state is not None:
            self.clock = speed.Clock(**state)

    def prediction_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """As the library's; the batch's weight and loss are kept."""
        outcome = super().prediction_step(model, inputs, *rest, **named)  # type: ignore[misc]
        self._batches = (*self._batches, (self._weight(inputs), outcome[0].item()))
        return outcome

    def evaluation_loop(self, *rest: Any, **named: Any) -> Any:
        """As the library's, with means over what the batches count for, and with `measured`."""
        self._batches = ()
        outcome = super().evaluation_loop(*rest, **named)  # type: ignore[misc]
        prefix = named["metric_key_prefix"]
        outcome.metrics[f"{prefix}_loss"] = self._loss()
        outcome.metrics.update({f"{prefix}_{name}": value for name, value in self.measured().items()})
        return outcome

    def measured(self) -> dict[str, float]:
        """What is measured at an evaluation besides the batches' own numbers."""
        return {}

    def _loss(self) -> float:
        return self._mean([batch[1] for batch in self._batches])

    def _mean(self, values: Sequence[float]) -> float:
        """Mean of one value per held-out batch, by the batches' weights."""
        weights = [batch[0] for batch in self._batches]
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL's, with held-out metrics as means over what the batches count for."""
        stored: dict[str, list[float]] = self._metrics["eval"]  # type: ignore[attr-defined]
        if not self.model.training:  # type: ignore[attr-defined]
            for name, values in stored.items():
                if len(values) == len(self._batches):
                    stored[name] = [self._mean(values)]
        super().log(logs, start_time)  # type: ignore[misc]


class SFT(Hooks, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer on ``input_ids`` and ``labels``."""

    def _weight(self, inputs: dict[str, Any]) -> int:
        # The first token has no predecessor to be predicted from.
        return int((inputs["labels"][:, 1:] != -100).sum())


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
        if "loss" in entry or any(name.startswith("eval_") for name in entry):
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
    """Moves the bar, keeps both logs, times the steps, and stops a run that diverged or no longer improves.

    Args:
        trainer: whose progress it is.
        advance: moves the bar.
        log: train_log.jsonl; only the first process writes.
        reason_to_stop: says from the log why the run ends before its time, or None.
        stop: holds True once this process was asked to stop.
        resumed: the checkpoint that the run goes on from.
        meter: told of every step.
        warn: shown the log after every evaluation.
    """

    def __init__(
        self,
        trainer: Hooks,
        advance: Callable[..., None],
        log: Path,
        reason_to_stop: Callable[[list[dict[str, Any]]], str | None],
        *,
        stop: Sequence[bool] = (),
        resumed: Path | None = None,
        meter: Callable[[dict[str, float]], None] | None = None,
        warn: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> None:
        self.trainer, self.advance, self.log_path, self.reason_to_stop = trainer, advance, log, reason_to_stop
        self.stop, self.resumed, self.meter, self.warn = stop, resumed, meter, warn
        self.speed_path = log.with_name(speed.SPEED_LOG)
        self.step_seconds: list[float] = []
        self.stopped = False
        self._began, self._note = 0.0, ""
        self._speeds: list[dict[str, Any]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Take up the log line that the checkpoint was made within."""
        if self.resumed is not None:
            self.trainer.restore_line(self.resumed)
        self._speeds = speed.rows_until(self.speed_path, state.global_step)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Tell the row order which epoch it is; accelerate's wrappers lose the trainer's own call."""
        if self.trainer.sampler is not None:
            self.trainer.sampler.set_epoch(int((state.epoch or 0.0) + 1e-6))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Start the step's clock."""
        self._began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop the step's clock (before evaluation and saving), move the bar, and leave when one was asked to."""
        self.step_seconds.append(time.monotonic() - self._began)
        self.trainer.clock.step(self.step_seconds[-1])
        self.advance(1, note=self._note)
        if self.meter is not None:
            self.meter({"step": state.global_step, "steps": state.max_steps, "seconds": self.step_seconds[-1]})
        # Asked of all in every step: a process that left alone would leave the others waiting.
        if self.trainer.cluster.any(bool(self.stop)) and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

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
            rate = self.trainer.clock.line(self.trainer.tokens_seen())
            self._speeds.append({"step": state.global_step, "tokens_per_second": round(rate, 1)})
        if self.meter is not None and logs:
            self.meter({name: value for name, value in logs.items() if isinstance(value, int | float)})
        if self.trainer.cluster.first:
            write_text(self.log_path, log_lines(state.log_history))
            speed.write_rows(self.speed_path, self._speeds)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop, with a checkpoint, when there is a reason to."""
        if self.warn is not None and self.trainer.cluster.first:
            self.warn(state.log_history)
        if self.reason_to_stop(state.log_history) is not None:
            control.should_training_stop = True
            control.should_save = True
