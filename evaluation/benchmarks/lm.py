"""lm-eval's model interface around a checkpoint that is in memory already: no second copy, no cache of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from inference.engines.transformers import TransformersEngine


def as_lm(engine: TransformersEngine) -> LM:
    """``engine``'s checkpoint as lm-eval's `LM`.

    It is `HFLM` around the shared weights; the one thing that changes is that the engine's adapter is switched on
    before every use of the model, so that checkpoints may take turns.
    """
    from lm_eval.models.huggingface import HFLM

    shared, tokenizer, adapter = engine.parts

    class SharedLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
        """One checkpoint of a `inference.adapters.SharedModel`."""

        @property
        def model(self) -> Any:
            """The shared model, computing with this checkpoint's adapter."""
            shared.activate(adapter)
            return shared.model

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            """As `HFLM`, without a bar of its own."""
            found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
            return found

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
            """As `HFLM`, without a bar of its own."""
            found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
            return found

        def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
            """As `HFLM`, without a bar of its own."""
            found: list[str] = super().generate_until(requests, disable_tqdm=True)
            return found

        def get_model_info(self) -> dict[str, Any]:
            """The engine's identity: the hub, which `HFLM` would ask, knows nothing of it."""
            return {"model_dtype": engine.identity["dtype"], "identity": engine.identity}

    model: LM = SharedLM(
        pretrained=shared.model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=int(engine.identity["batch_size"]),
    )
    return model
