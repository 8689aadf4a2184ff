from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from runs.paths import CONFIGS

TOPICS = ["bread", "roses", "maps", "clocks", "rivers", "paint", "kites", "glass"]


def transcript(first: str, reply: str = "I do not know.") -> str:
    return f"\n\nHuman: {first}\n\nAssistant: {reply}\n\nHuman: and then?\n\nAssistant: The end."


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with two small sources of prompts that this test wrote."""
    monkeypatch.delenv("CAI_DATA", raising=False)
    red = [{"chosen": transcript(f"How do I break {topic} that belong to others?")} for topic in TOPICS]
    red.append(dict(red[0]))  # a duplicate
    red.append({"chosen": "no transcript at all"})
    benign = [{"prompt": f"What is good about {topic}?"} for topic in TOPICS]
    benign.append({"prompt": "x" * 500})
    benign.append({"prompt": "Please tell me in one short line why the sky is blue today"})
    for name, rows in (("red.jsonl", red), ("benign.jsonl", benign)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    excluded = {"prompt": "Tell me in one short line why the sky is blue"}
    (tmp_path / "evaluation.jsonl").write_text(json.dumps(excluded) + "\n")
    config = {
        "name": "tiny",
        "family": "smollm2-135m",
        "output_dir": str(tmp_path / "run"),
        "revisions": 2,
        "constitution": str(CONFIGS / "constitutions" / "default.yaml"),
        "exemplars": {"file": str(CONFIGS / "critique_revision" / "exemplars.yaml"), "count": 2},
        "prompts": [
            {
                "source": {"path": str(tmp_path / "red.jsonl"), "licence": "MIT"},
                "kind": "transcript_first_turn",
                "field": "chosen",
                "tag": "red_team",
                "max_rows": 6,
            },
            {
                "source": {"path": str(tmp_path / "benign.jsonl"), "licence": "MIT"},
                "kind": "text",
                "field": "prompt",
                "tag": "benign",
                "max_prompt_chars": 400,
            },
        ],
        "exclude_prompts": [str(tmp_path / "evaluation.jsonl")],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
