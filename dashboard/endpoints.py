"""Named endpoints: what a caller can act on arrives with what, why and mend; all other errors stay hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

import gradio as gr

from runs.errors import UserError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def told(endpoint: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """``endpoint`` with its `UserError` as an error of Gradio's, whose text reaches the client."""

    @wraps(endpoint)
    def call(*values: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            return endpoint(*values, **named)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def told_stream(endpoint: Callable[Arguments, Iterator[Result]]) -> Callable[Arguments, Iterator[Result]]:
    """As `told`, for endpoints that stream."""

    @wraps(endpoint)
    def call(*values: Arguments.args, **named: Arguments.kwargs) -> Iterator[Result]:
        try:
            yield from endpoint(*values, **named)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call
