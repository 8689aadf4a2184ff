"""Checks on rendering itself: every overlay builds, twice to the same bytes, and leaves no placeholder behind."""

from __future__ import annotations

import re

from launch.checks.tree import Finding, reads, where
from launch.render import parse, render_text

PLACEHOLDERS = re.compile(r"\bFAMILY\b(?!\))|^any$")
"""What components put in for others to replace."""


def check_render(overlay: str) -> list[Finding]:
    """Render an overlay twice and look for what should have been replaced. Raises as `render_text` does."""
    first, second = render_text(overlay), render_text(overlay)
    faults = [] if first == second else [Finding("render", overlay, "two renderings differ")]
    for document in parse(first):
        for text in reads({key: document.get(key) for key in ("metadata", "spec")}):
            if PLACEHOLDERS.search(text):
                faults.append(Finding("render", where(document), f"{text!r} was to be replaced"))
    return faults
