"""TRL's GRPO and RLOO trainers with this project's hooks.

This module imports torch and TRL; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from peft import PeftModel
from torch.utils.data import DataLoader, Sampler
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import RepeatSampler

from finetune.rewarding import Answer, Instrument
from finetune.trainers import Hooks
from inference import chat
from inference.records import Prompt


class Rounds(RepeatSampler):
    """TRL's order of prompts, each repeated for its answers, as a function of seed and epoch alone.

    TRL's own draws the epochs from one generator, whose state no checkpoint has.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(int(self.seed or 0) + self.epoch)
        return cast(Iterator[int], super().__iter__())  # type: ignore[no-untyped-call]


class _Rounds(Hooks):
    """What both algorithms do differently from TRL."""

    prompts: Sequence[Prompt] = ()
    """What the column ``row`` counts."""
    answered: Callable[[], dict[str, float]] | None = None
    """Measures answers to held-out prompts."""

    def _weight(self, inputs: dict[str, Any]) -> int:
        return len(inputs)

    def tokens_seen(self) -> int:
        """Prompts and answers that were read or written."""
        return int(self.state.num_input_tokens_seen)  # type: ignore[attr-defined]

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        given: Any = self.args  # type: ignore[attr-defined]
        self.sampler = Rounds(
            data_source=self.train_dataset if dataset is None else dataset,  # type: ignore[attr-defined]
            mini_repeat_count=given.num_generations,
            batch_size=given.generation_batch_size // given.num_generations,
            repeat_count=given.num_iterations * given.steps_per_generation,
            shuffle=True,
            seed=given.seed,
        )
        return cast(Sampler[int], self.sampler)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Not used: `evaluate` has prompts answered once each, with seeds of their own."""
        raise NotImplementedError

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answers to the held-out prompts, measured; TRL's would draw from the generator that training uses."""
        model = cast(PeftModel, self.model).eval()  # type: ignore[attr-defined]
        assert self.answered is not None
        metrics = {f"eval_{name}": value for name, value in self.answered().items()}
        assert not model.training
        self.log(dict(metrics))
        handler: Any = self.callback_handler  # type: ignore[attr-defined]
        self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[attr-defined, has-type]
        return metrics

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        # The one chat format, not the tokenizer's own call.
        from inference.records import Message

        tokenizer: Any = self.processing_class  # type: ignore[attr-defined]
        conversations = [tuple(Message.model_validate(turn) for turn in prompt) for prompt in prompts]
        ids = [chat.prompt_ids(messages, tokenizer) for messages in conversations]
        return (ids, None, {})


class RLOO(_Rounds, RLOOTrainer):  # type: ignore[misc]
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024): the KL is a penalty in the reward."""


class GRPO(_Rounds, GRPOTrainer):  # type: ignore[misc]
    """Group-relative policy optimisation (Shao et al. 2024): the KL is a term of the loss."""


def reward_function(
    instrument: Instrument, prompts: Sequence[Prompt], tokenizer: Any, name: str
) -> Callable[..., list[float | None]]:
    """``instrument`` as TRL calls rewards: with completions and the rows' other columns.

    Args:
        instrument: what scores.
        prompts: what the column ``row`` counts.
        tokenizer: of the policy.
        name: under which TRL logs it.
    """
    stops = chat.stop_ids(tokenizer)

    def reward(
        *, completions: list[Any], completion_ids: list[list[int]], row: list[int], **_: Any
    ) -> list[float | None]:
        answers = [
            Answer(
                prompt=prompts[index],
                text=str(completion[0]["content"]).strip(),
                prompt_ids=chat.prompt_ids(prompts[index].messages, tokenizer),
                answer_ids=list(ids),
                finish_reason="stop" if ids and ids[-1] in stops else "length",
            )
            for completion, ids, index in zip(completions, completion_ids, row, strict=True)
        ]
        return instrument(answers)

    reward.__name__ = name
    return reward


def without_stop(ids: list[int], stops: frozenset[int]) -> list[int]:
    """The ids before the first token that ends a turn."""
    first = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    return ids[:first]
