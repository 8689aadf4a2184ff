"""When a run ends before its time: patience with the held-out loss, and the monitors' alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from finetune import monitors
from finetune.config import DPORun, HackingSection, RewardRun, RLRun, SFTRun


class Watch:
    """Says from the log alone whether a run stops before its time, so that a resumed run stops where it would have.

    Args:
        run: the config.
        start: what was measured before the first step.
    """

    def __init__(self, run: SFTRun | DPORun | RewardRun | RLRun, start: dict[str, Any]) -> None:
        self.patience, self.start = run.early_stopping_patience, start
        self.section = run.monitors if isinstance(run, DPORun | RLRun) else None

    def alarms(self, history: Sequence[dict[str, Any]]) -> list[monitors.Alarm]:
        """What the monitors found so far."""
        if self.section is None:
            return []
        if isinstance(self.section, HackingSection):
            return monitors.hacking(self.section, self.start, history)
        return monitors.alarms(self.section, self.start, history)

    def reason_to_stop(self, history: list[dict[str, Any]]) -> str | None:
        """Why the run ends now, or None."""
        from finetune.trainers import out_of_patience

        if out_of_patience(history, self.patience):
            return f"{self.patience} evaluations without a lower held-out loss"
        found = self.alarms(history)
        if found and self.section is not None and self.section.action == "stop":
            return found[0].sentence
        return None

    def news(self, warn: Callable[[str], None]) -> Callable[[list[dict[str, Any]]], None]:
        """Tells of each alarm once."""
        told: set[monitors.Alarm] = set()

        def tell(history: list[dict[str, Any]]) -> None:
            for alarm in self.alarms(history):
                if alarm not in told:
                    told.add(alarm)
                    warn(f"Monitor, {alarm.sentence}")

        return tell

    def outcome(self, history: list[dict[str, Any]]) -> dict[str, Any]:
        """For the manifest; empty where there is nothing to say."""
        found, reason = [alarm.sentence for alarm in self.alarms(history)], self.reason_to_stop(history)
        return ({"alarms": found} if found else {}) | ({"stopped_because": reason} if reason else {})
