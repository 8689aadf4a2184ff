"""What every stage does around its own data, model and trainer: what comes before them, and the training itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from finetune import data, fit
from finetune.cluster import Cluster, announced
from finetune.fit import Identity, Options, Run
from inference.chat import chat_digest
from inference.families import Family, load_family
from inference.loading import base_identity, load_tokenizer, resolve_device
from runs.console import Reporter
from runs.job import stop_flag

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Outcome: TypeAlias = tuple[dict[str, Any], list[str]]
"""A command's result, for machines and for people."""
AnyTrainer = TypeVar("AnyTrainer", bound="fit.Trainer")


@dataclass(frozen=True)
class Stage:
    """A stage that has begun: where it computes, on what family, and what its result depends on so far."""

    kind: str
    run: Run
    options: Options
    reporter: Reporter
    began: float
    cluster: Cluster
    place: str
    """The device of this process, as the configuration or the cluster names it."""
    device: torch.device
    family: Family
    tokenizer: PreTrainedTokenizerBase
    inputs: Mapping[str, Any]
    """Digests of base, chat format and data."""

    @classmethod
    def begin(cls, kind: str, run: Run, options: Options, reporter: Reporter) -> Stage:
        """Join the other processes, and load what is small. Raises `UserError` as the pieces do."""
        began = time.monotonic()
        fit.quiet_libraries()
        cluster = announced(fsdp=run.train.fsdp)
        place = cluster.device(run.model.device)
        device = resolve_device(place)
        fit.check_device(device, run.train, cluster)
        cluster.join(device)
        family = load_family(run.family)
        tokenizer = load_tokenizer(family)
        inputs = {"base": base_identity(family), "chat": chat_digest(tokenizer), **data.inputs(run.data)}
        return cls(kind, run, options, reporter, began, cluster, place, device, family, tokenizer, inputs)

    def identify(self, inputs: Mapping[str, Any]) -> Identity:
        """What the result depends on; ``inputs`` are this stage's, with more of its own."""
        return fit.identify(self.run, kind=self.kind, inputs=dict(inputs), cluster=self.cluster)

    def finished(self, identity: Identity) -> Outcome | None:
        """The result, where the output folder holds it already."""
        found = self.cluster.decided(
            lambda: fit.already_done(self.run.output_dir, identity, self.options, self.reporter)
        )
        return None if found is None else fit.result(found, self.run.output_dir)

    def carry_out(
        self,
        identity: Identity,
        examples: data.Examples,
        build: Callable[[Path], AnyTrainer],
        before: Callable[[AnyTrainer], dict[str, float]],
        after: Callable[[AnyTrainer], None] | None = None,
    ) -> Outcome:
        """Train, and store the artifact.

        Args:
            identity: of the result.
            examples: what is trained on.
            build: the trainer that works in a folder.
            before: what is measured before the first step.
            after: what is done to the trained weights before they are stored.

        Raises:
            Preempted: SIGTERM came; every process saved, and the same command goes on.
            UserError: the output folder or the training fails.
        """
        with ExitStack() as stack:
            stop = stack.enter_context(stop_flag())
            work = fit.claim(self.run, identity, self.options, self.cluster, stack)
            trainer = build(work)
            measured = fit.train(
                trainer, self.run, examples, work, self.reporter, before=lambda: before(trainer), stop=stop
            )
            if after is not None:
                after(trainer)
            manifest = fit.finish(
                trainer,
                self.run,
                kind=self.kind,
                family=self.family,
                identity=identity,
                examples=examples,
                measured=measured,
                work=work,
                options=self.options,
                began=self.began,
            )
        return fit.result(manifest, self.run.output_dir)
