"""The one record that data sources, templates, training and evaluation exchange."""

from __future__ import annotations

from runs.config import StrictModel


class Example(StrictModel):
    """A text to judge, or a response with the prompt that it answers."""

    text: str
    """What is judged: a text, or a response."""
    context: str = ""
    """The prompt that ``text`` answers; empty when the text stands alone."""
    labels: dict[str, float]
    """Annotated heads only, in [0, 1]. A head that is absent is unknown: the loss is masked there."""
    source: str
    """The name of the source."""
    group: str = ""
    """Rows that must stay in one split (a thread, a scenario, a template); empty: the row stands alone."""


class Preference(StrictModel):
    """Two responses to one prompt, of which people chose one."""

    context: str
    chosen: str
    rejected: str
    head: str
    """The preference head that it trains: ``harmlessness`` or ``helpfulness``."""
    source: str
    group: str = ""
