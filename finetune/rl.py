"""`finetune rl`: reinforcement learning from AI feedback (Bai et al. 2022, section 4), with RLOO or GRPO.

    uv run finetune rl --config configs/finetune/smollm2-135m-rl.yaml

The policy answers prompts; reward models and evaluators score the answers; answers better than their siblings become
more likely, at a price for leaving the reference. What is rewarded is what one gets, so evaluators that are no part of
the reward are watched beside it, with length, repetition and KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from finetune import data, dpo, fit, lora, rewarding
from finetune.cluster import Cluster, Rhythm, announced
from finetune.config import RewardTerm, RLRun
from finetune.fit import Options
from finetune.monitors import PolicyView, repetition
from finetune.rewarding import Answer, Instrument
from finetune.stage import Stage
from inference import chat
from inference.adapters import adapter_digest, check_adapter
from inference.records import Prompt, Request, Sampling
from runs.console import Reporter
from runs.errors import UsageError, UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from finetune.policy import GRPO, RLOO


def run_rl(run: RLRun, options: Options, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """Train.

    Returns:
        The command's result, for machines and for people.

    Raises:
        Preempted: SIGTERM came; the state is saved, and the same command goes on.
        UserError: data, model, rewards, device or output folder cannot be used as asked.
    """
    cluster = announced()
    if cluster.spread:
        raise UsageError(
            f"`finetune rl` trains in one process, and {cluster.size} were started.",
            mend="Start it without torchrun or accelerate launch.",
        )
    stage = Stage.begin("rl", run, options, reporter)
    family, inputs = stage.family, dict(stage.inputs)
    start = lora.resolve_adapter(run.init_adapter, family) if run.init_adapter is not None else None
    if start is not None:
        inputs["init_adapter"] = adapter_digest(check_adapter(start, base_identity=inputs["base"]))
    size = run.train.per_device_train_batch_size
    scored = rewarding.instruments(run.rewards, family, device=str(stage.device), batch_size=size)
    watched = rewarding.instruments(
        [RewardTerm(evaluator=name) for name in run.watched], family, device="", batch_size=1
    )
    inputs |= {f"reward:{number}:{one.name}": one.version for number, one in enumerate(scored)}
    inputs |= {f"watched:{one.name}": one.version for one in watched}
    identity = stage.identify(inputs)
    if (done := stage.finished(identity)) is not None:
        return done

    examples, prompts = data.rl_examples(run.data, stage.tokenizer, run.train.max_completion_length)
    examples.show(reporter)
    examples.check(evaluated=True)
    shared = rounds(run)
    if len(examples.train) < shared.rows:
        raise UsageError(
            f"One step takes {shared.rows} prompts, and there are {len(examples.train)}.",
            mend="Lower train.per_device_train_batch_size, or read more rows.",
        )
    model = dpo.load_policy(run, family, start, base=inputs["base"])

    def build(work: Path) -> RLOO | GRPO:
        return build_trainer(
            run, model, stage.tokenizer, examples, prompts, scored, watched, work, public_id=family.base.public_id
        )

    return stage.carry_out(identity, examples, build, _before)


def rounds(run: RLRun) -> Rhythm:
    """A step's prompts: each has ``num_generations`` answers among those of the step's forward passes."""
    answers = run.train.per_device_train_batch_size * run.train.gradient_accumulation_steps
    return Rhythm(run.train.gradient_accumulation_steps, answers // run.train.num_generations, True)


def build_trainer(
    run: RLRun,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: data.Examples,
    prompts: Sequence[Prompt],
    scored: Sequence[Instrument],
    watched: Sequence[Instrument],
    work: Path,
    *,
    public_id: str,
) -> RLOO | GRPO:
    """TRL's trainer. Given a PeftModel, it copies the adapter "default" to a frozen "ref", as for DPO."""
    from finetune import head, policy

    stops = sorted(chat.stop_ids(tokenizer))
    model.generation_config.eos_token_id = stops
    arguments = fit.arguments(
        run.train, work, model.device, evaluated=True, accumulation=run.train.gradient_accumulation_steps
    )
    for unknown in ("max_length", "train_sampling_strategy"):
        arguments.pop(unknown)
    arguments |= {
        "beta": run.train.beta,
        "num_generations": run.train.num_generations,
        "num_generations_eval": 1,
        "max_completion_length": run.train.max_completion_length,
        "temperature": run.train.temperature,
        "disable_dropout": True,
        "reward_weights": [term.weight for term in run.rewards],
    }
    names = unique_names(scored)
    given: dict[str, Any] = {
        "model": model,
        "reward_funcs": [
            policy.reward_function(one, prompts, tokenizer, name) for one, name in zip(scored, names, strict=True)
        ],
        "train_dataset": data.to_dataset(examples.train),
        "eval_dataset": data.to_dataset(examples.holdout),
        "processing_class": tokenizer,
    }
    trainer: RLOO | GRPO
    if run.train.algorithm == "rloo":
        from trl.trainer.rloo_config import RLOOConfig

        trainer = policy.RLOO(args=RLOOConfig(**arguments), **given)
    else:
        from trl.trainer.grpo_config import GRPOConfig

        trainer = policy.GRPO(args=GRPOConfig(**arguments), **given)
    trainer.public_id = public_id
    fit.prepare(trainer, run, examples, Cluster(), rounds(run))
    trainer.prompts = prompts
    held = [prompts[example.columns["row"]] for example in examples.holdout]
    trainer.answered = Examination(run, model, tokenizer, held, dict(zip(names, scored, strict=True)), watched)
    if run.train.temperature == 1.0:  # the direct head knows no temperature
        head.install(fit.base_model(trainer))
    return trainer


def unique_names(instruments: Sequence[Instrument]) -> list[str]:
    """The instruments' names, numbered where one appears again."""
    found: list[str] = []
    for one in instruments:
        count = sum(name == one.name or name.startswith(f"{one.name}_") for name in found)
        found.append(one.name if not count else f"{one.name}_{count + 1}")
    return found


class Examination:
    """The policy's answers to held-out prompts, with the same seeds at every evaluation, and what becomes of them.

    Args:
        run: the config.
        model: the policy.
        tokenizer: the base's.
        prompts: held-out.
        scored: the reward's terms by name.
        watched: instruments that are no part of the reward.
    """

    def __init__(
        self,
        run: RLRun,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        scored: dict[str, Instrument],
        watched: Sequence[Instrument],
    ) -> None:
        from inference.engines.transformers import TransformersEngine

        self._run, self._model, self._tokenizer, self._prompts = run, model, tokenizer, prompts
        self._scored, self._watched = scored, watched
        size = run.train.per_device_eval_batch_size
        self._engine = TransformersEngine(PolicyView(model), tokenizer, adapter=None, identity={}, batch_size=size)
        self._sampling = Sampling(
            max_new_tokens=run.train.max_completion_length, temperature=run.train.temperature, seed=run.train.seed
        )

    @property
    def names(self) -> list[str]:
        """What every evaluation should have a number for."""
        return [*(f"rewards/{name}" for name in self._scored), *(f"watched/{one.name}" for one in self._watched)]

    def answers(self) -> list[Answer]:
        """One answer for each prompt, in their order."""
        from finetune.policy import without_stop

        requests = [Request(key=str(index), messages=prompt.messages) for index, prompt in enumerate(self._prompts)]
        made, stops = [], chat.stop_ids(self._tokenizer)
        for done in sorted(self._engine.generate(requests, self._sampling), key=lambda done: int(done.key)):
            prompt = self._prompts[int(done.key)]
            ids = chat.completion_ids(prompt.messages, done.text, self._tokenizer)
            if done.finish_reason == "length":
                ids = without_stop(ids, stops)
            before = chat.prompt_ids(prompt.messages, self._tokenizer)
            made.append(Answer(prompt, done.text, before, ids, done.finish_reason))
        return made

    def __call__(self) -> dict[str, float]:
        """``reward`` and its terms, ``watched/…``, ``kl`` (nats a token of these answers), length and repetition."""
        from finetune import divergence

        answers = self.answers()
        by_term = {name: one(answers) for name, one in self._scored.items()}
        totals = [rewarding.total(self._run.rewards, values) for values in zip(*by_term.values(), strict=True)]
        found: dict[str, float | None] = {"reward": _mean(totals)}
        found |= {f"rewards/{name}": _mean(values) for name, values in by_term.items()}
        found |= {f"watched/{one.name}": rewarding.means(one, answers) for one in self._watched}
        rows = [{"prompt": answer.prompt_ids, "answer": answer.answer_ids} for answer in answers if answer.answer_ids]
        found["kl"] = divergence.measure(self._model, rows, "prompt", "answer")["kl"] if rows else None
        found["answer_tokens"] = fmean(len(answer.answer_ids) for answer in answers)
        found["repetition"] = fmean(repetition(answer.text) for answer in answers)
        return {name: value for name, value in found.items() if value is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _before(trainer: RLOO | GRPO) -> dict[str, float]:
    """The start's answers.

    Raises:
        UserError: the KL to the reference is not 0, or an instrument has nothing to say about them.
    """
    assert isinstance(trainer.answered, Examination)
    fit.policy(trainer).eval()
    found = trainer.answered()
    dpo.check_reference(found.get("kl", 0.0))
    silent = [name for name in trainer.answered.names if name not in found]
    if silent:
        raise UserError(
            f"{', '.join(silent)}: nothing to say about any held-out prompt.",
            why="Evaluators apply to prompts by what is expected of the answer (`expected`, data.expected).",
            mend="Take it out of rewards or watched, or give the prompts that it is made for.",
        )
    return {f"{name}_at_start": round(value, 6) for name, value in found.items()}
