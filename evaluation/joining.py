"""Putting runs together: what two runs must share before their numbers may stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runs.errors import UsageError
from runs.folder import differences

MODEL_FIELDS = frozenset({"base", "chat", "adapter", "model", "script", "answers"})
"""What makes a model itself: weights, adapter and chat format. Anything else of an engine's identity is a setting."""


def settings_of(identity: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Everything but the model that could have changed its answers."""
    engine = identity["models"][model]
    sampling = {key: value for key, value in (engine.get("sampling") or identity["sampling"]).items() if key != "seed"}
    engine = {key: value for key, value in engine.items() if key not in MODEL_FIELDS | {"sampling"}}
    return {"sampling": sampling, "engine": engine}


def check_settings(settings: Mapping[str, Mapping[str, Any]], *, allow: bool) -> str:
    """Refuse models that were not made to answer in the same way, or say so.

    Args:
        settings: model → `settings_of` it.
        allow: stamp instead of refusing.

    Returns:
        The stamp; empty where all are alike.

    Raises:
        UsageError: they differ and ``allow`` is false.
    """
    names = list(settings)
    found = [
        f"{other} against {names[0]}: {'; '.join(unlike)}"
        for other in names[1:]
        if (unlike := differences(settings[names[0]], settings[other]))
    ]
    if not found:
        return ""
    if not allow:
        raise UsageError(
            "The answers were not made under the same generation settings.",
            why=". ".join(found).replace(" there,", " first,").replace(" now)", " second)"),
            mend="Generate them alike; or add --allow-different-settings, which stamps every result.",
        )
    return f"Generation settings differ, and may be the cause of any difference: {'. '.join(found)}."


def check_evaluators(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The evaluators that both runs have, after checking that they are of one version.

    Raises:
        UsageError: a version differs, or there is none in common.
    """
    common = [name for name in first if name in second]
    unlike = [name for name in common if first[name] != second[name]]
    if unlike or not common:
        why = f"Of another version: {', '.join(unlike)}." if unlike else "They have no evaluator in common."
        mend = "Score both again with the present evaluators: uv run evaluate score RUN"
        raise UsageError("The two runs were not scored by the same evaluators.", why=why, mend=mend)
    return common


def common_prompts(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Prompt ids of both runs, in the first one's order.

    Raises:
        UsageError: there is none.
    """
    known = set(second)
    found = [key for key in dict.fromkeys(first) if key in known]
    if not found:
        raise UsageError("The two runs have no prompt in common.", mend="Compare runs over the same prompts file.")
    return found
