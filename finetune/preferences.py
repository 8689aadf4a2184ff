"""TRL's trainers for preferences with this project's hooks: DPO with soft labels, KTO, ORPO.

This module imports torch and TRL; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from finetune import divergence, head, losses
from finetune.trainers import Hooks

LABEL = "label_prob"
"""Column with the probability that the chosen answer is the better one."""


@dataclass
class LabelledPairs(DataCollatorForPreference):
    """TRL's collator, which also keeps the labels."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of pairs: first all the chosen ones, then all the rejected ones; ``label_prob`` is ``[pairs]``."""
        batch: dict[str, Any] = super().torch_call(examples)
        if LABEL in examples[0]:
            batch[LABEL] = torch.tensor([float(example[LABEL]) for example in examples])
        return batch


class _Reference(Hooks):
    """What trainers with a reference measure at an evaluation."""

    kl_rows: Sequence[dict[str, Any]] = ()
    """Held-out pairs on whose chosen answers the distance from the reference is measured."""
    answered: Callable[[], dict[str, float]] | None = None
    """Measures answers of the policy (`finetune.monitors`)."""
    columns: tuple[str, str] = ("ref_chosen_logps", "ref_rejected_logps")
    """What the reference gives for a row; KTO has no second one where it estimates no distance."""

    def measured(self) -> dict[str, float]:
        """``kl`` and ``chosen_logp`` on ``kl_rows``, and what ``answered`` finds."""
        self._metrics["eval"].pop("kl", None)  # type: ignore[attr-defined]  # KTO's own estimate from mismatched pairs
        found: dict[str, float] = {}
        if self.kl_rows:
            with self.compute_loss_context_manager():  # type: ignore[attr-defined]
                model = cast(PeftModel, self.model)  # type: ignore[attr-defined]
                found |= divergence.measure(model, self.kl_rows, "prompt_ids", "chosen_ids")
        if self.answered is not None:
            found |= self.answered()
        return found

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        # TRL would render and tokenise messages itself; ours are ids already, from the one chat format.
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """As TRL's, but in memory: its cache file is in the first process's temporary folder, which no other sees."""
        # TRL calls this while it is being built, right after it patched the model with its own head.
        model = cast(PeftModel, self.model)  # type: ignore[attr-defined]
        head.install(cast(PreTrainedModel, model.get_base_model()))
        accelerator, collate = self.accelerator, self.data_collator  # type: ignore[attr-defined]
        loader = accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=collate, shuffle=False))
        found: dict[str, list[float]] = {}
        for batch in loader:
            parts = zip(self.columns, self.compute_ref_log_probs(model, batch), strict=True)  # type: ignore[attr-defined]
            for column, part in parts:
                if part is not None:
                    found.setdefault(column, []).extend(accelerator.gather_for_metrics(part).cpu().tolist())
        for column, values in found.items():
            dataset = dataset.add_column(column, values)
        return dataset


class _Recorder:
    """A model that remembers its latest output."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.output: Any = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.output = self.model(*given, **named)
        return self.output


class DPO(_Reference, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer on ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` and, for soft labels, ``label_prob``."""

    def _weight(self, inputs: dict[str, Any]) -> int:
        return len(inputs["input_ids"]) // 2

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[no-untyped-call]
        columns = cast(list[str], self._signature_columns)
        if LABEL not in columns:
            columns.append(LABEL)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """As TRL's, without the labels, which are no input of the model."""
        given = {key: value for key, value in inputs.items() if key != LABEL}
        return super().compute_ref_log_probs(model, given)  # type: ignore[no-untyped-call]

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss; with labels, its ``sigmoid`` term is exchanged for `losses.soft_sigmoid`.

        TRL has no soft labels: it ignores ``label_smoothing`` in this loss, and takes no label by pair. All else, the
        other losses of a list and every metric, stays TRL's own.
        """
        if LABEL not in inputs:
            return super()._compute_loss(model, inputs, return_outputs)  # type: ignore[no-untyped-call]
        given = {key: value for key, value in inputs.items() if key != LABEL}
        if "ref_chosen_logps" not in given:
            reference = self.compute_ref_log_probs(self.model, given)
            given["ref_chosen_logps"], given["ref_rejected_logps"] = reference
        recorder, precomputed = _Recorder(model), self.precompute_ref_logps
        self.precompute_ref_logps = True  # for this call: the reference stands in ``given``
        try:
            hard = super()._compute_loss(recorder, given, return_outputs=False)  # type: ignore[no-untyped-call]
        finally:
            self.precompute_ref_logps = precomputed
        chosen, rejected = recorder.output.log_probs.sum(dim=1).chunk(2)
        delta = (chosen - given["ref_chosen_logps"]) - (rejected - given["ref_rejected_logps"])
        logits = self.beta * delta
        label = inputs[LABEL].to(logits)
        soft = losses.soft_sigmoid(logits, label) - losses.soft_sigmoid(logits, torch.ones_like(label))
        return hard + self.loss_weights[self.loss_types.index("sigmoid")] * soft.mean()


class ORPO(DPO):
    """ORPO (Hong et al. 2024) on DPO's rows: no reference in the loss; beta is its λ.

    TRL's own is experimental and renders and tokenises by itself. The loss is the same (a test compares them); the
    frozen copy of the start is used only to measure the distance from it.
    """

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        ids, seen, answer = inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"]
        pairs = len(ids) // 2
        # The likelihood term covers prompt and answer of the chosen side, as in the authors' code and TRL's.
        scored = torch.cat([seen[:pairs], answer[pairs:]])
        output = model(
            input_ids=ids,
            attention_mask=seen,
            use_cache=False,
            labels=ids.masked_fill(scored == 0, -100),
            fused_lm_head=True,
        )
        answer, whole = answer[:, 1:], seen[:pairs, 1:]
        log_probs = output.log_probs[:, -answer.shape[1] :]
        chosen, rejected = ((log_probs * answer).sum(1) / answer.sum(1)).chunk(2)
        nll = -(log_probs[:pairs] * whole).sum() / whole.sum()
        log_odds = losses.log_odds_ratio(chosen, rejected)
        with torch.no_grad():
            self._note(nll, log_odds, chosen, rejected, int(seen.sum()))
        return losses.orpo(nll, log_odds, self.beta)

    def _note(
        self, nll: torch.Tensor, log_odds: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor, tokens: int
    ) -> None:
        """Keep the batch's numbers for the log, under TRL's names."""
        mode = "train" if cast(PeftModel, self.model).training else "eval"
        values = {
            "nll_loss": nll[None],
            "log_odds_chosen": log_odds,
            "log_odds_ratio": torch.nn.functional.logsigmoid(log_odds),
            "rewards/chosen": self.beta * chosen,
            "rewards/rejected": self.beta * rejected,
            "rewards/margins": self.beta * (chosen - rejected),
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        gather = self.accelerator.gather_for_metrics
        for name, value in values.items():
            self._metrics[mode][name].append(gather(value).mean().item())
        if mode == "train":
            self._total_train_tokens += int(gather(torch.tensor(tokens, device=nll.device)).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


class KTO(_Reference, KTOTrainer):  # type: ignore[misc]
    """TRL's KTOTrainer (Ethayarajh et al. 2024) on single answers with a label: `finetune.data.unpaired` makes them.

    The KL term of a batch is estimated from its own answers under other prompts, so a batch stays together: batches are
    shuffled, rows are not.
    """

    columns = ("ref_logps", "ref_KL_logps")
    blocks = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Hooks.log`; the loss's KL estimate, of whole answers and clamped at 0, is not called ``kl``."""
        estimates = self._metrics["train"].pop("kl", None)
        if estimates is not None:
            self._metrics["train"]["kto_baseline"] = estimates
        super().log(logs, start_time)

    def _weight(self, inputs: dict[str, Any]) -> int:
        return len(inputs["input_ids"])
