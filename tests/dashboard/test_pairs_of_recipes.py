"""Folders of recipes that revise nothing are shown as what they are."""

from __future__ import annotations

from pathlib import Path

from critique_revision.records import NO_PRINCIPLE, FilteredStep
from dashboard.pairs import read_pairs
from dashboard.views.pairs import pair_html
from inference.records import Message
from runs.records import write_jsonl


def step(number: int, reason: str | None) -> FilteredStep:
    return FilteredStep(
        prompt_id=f"p{number}", step=1, tag="benign", principle_id=NO_PRINCIPLE, reason=reason,
        reasons=(reason,) if reason else (), messages=(Message(role="user", content=f"Why {number}?"),),
        answer="Because of it.", revision="It follows from the rule.", finish_reason="stop", label_prob=0.58,
    )  # fmt: skip


def test_sides_labels_and_absent_principles(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [])
    write_jsonl(tmp_path / "accepted.jsonl", [step(0, None)])
    write_jsonl(tmp_path / "rejected.jsonl", [step(1, "tie")])
    kept, left_out = read_pairs(tmp_path)
    assert (kept.principle_id, kept.revised, kept.label_prob) == ("", False, 0.58)
    assert "labeller 0.58" in pair_html(kept)
    assert "Chosen side" in pair_html(kept)
    shown = pair_html(left_out)
    assert "left out" in shown
    assert "First answer" not in shown
