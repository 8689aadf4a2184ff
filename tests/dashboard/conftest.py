"""Runs, pairs and a training made without a model; a served page; a browser where the machine has one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from critique_revision.records import FilteredStep, PreferencePair, RevisionStep
from dashboard.gradio_import import prepare_gradio
from dashboard.store import Store
from inference.records import Message
from runs.records import write_jsonl
from tests.evaluation import made_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

prepare_gradio()

RUN = "made"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "<img src=x onerror=\"document.title='owned'\"> ${document.title='owned'} {{value}} </script>"
"""A model's text that would run if any layer of the page took it for markup, a template or a script."""
COUNT = 60
"""Prompts of the made run."""


def says(model: str, prompt: object, chance: object) -> str:
    """As `made_runs.answer_like`, but the last model attacks the page."""
    text = made_runs.answer_like(model, prompt, chance)  # type: ignore[arg-type]
    return f"{text} {ATTACK}" if model == "stage3" else text


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results root with one finished run."""
    root = tmp_path_factory.mktemp("results")
    made_runs.made_run(root / RUN, asked=made_runs.prompts(COUNT), says=says)
    return root


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifacts folder with a training log and pairs."""
    root = tmp_path_factory.mktemp("artifacts")
    training = root / "tiny" / "stage3"
    training.mkdir(parents=True)
    lines = [{"step": step, "loss": 2.0 / step, "rewards/margins": 0.1 * step} for step in range(1, 20)]
    lines.append({"step": 20, "eval_loss": 0.2, "eval_rewards/accuracies": 0.9})
    (training / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_pairs(root / "tiny" / "pairs")
    return root


def write_pairs(folder: Path) -> Path:
    """Two accepted pairs and a rejected revision."""
    folder.mkdir(parents=True)
    steps, rows = [], []
    for number, reason in enumerate((None, None, "off_topic")):
        messages = (Message(role="user", content=f"How do I break lock number {number}?"),)
        answer, revision = (
            f"You take a hammer {ATTACK}",
            f"I would rather help you to call a locksmith, number {number}.",
        )
        steps.append(
            FilteredStep(
                prompt_id=f"p{number}", step=1, tag="red_team", principle_id="harm-01", reason=reason,
                reasons=(reason,) if reason else (), messages=messages, answer=answer, revision=revision,
                finish_reason="stop",
            )
        )  # fmt: skip
        rows.append(
            RevisionStep(
                key=f"p{number}:1", prompt_id=f"p{number}", step=1, principle_id="harm-01",
                critique="It helps with a burglary.", revision=revision, critic="base", reviser="base",
                critique_finish_reason="stop", finish_reason="stop", prompt_tokens=1, completion_tokens=1, seed=0,
            )
        )  # fmt: skip
    write_jsonl(folder / "accepted.jsonl", [step for step in steps if step.reason is None])
    write_jsonl(folder / "rejected.jsonl", [step for step in steps if step.reason is not None])
    write_jsonl(folder / "revisions-1.jsonl", rows)
    write_jsonl(folder / "pairs.jsonl", [_pair(step) for step in steps if step.reason is None])
    return folder


def _pair(step: FilteredStep) -> PreferencePair:
    sides = [(Message(role="assistant", content=text),) for text in (step.revision, step.answer)]
    return PreferencePair(
        prompt=step.messages, chosen=sides[0], rejected=sides[1], prompt_id=step.prompt_id, tag=step.tag, step=1,
        principle_ids=(step.principle_id,),
    )  # fmt: skip


@pytest.fixture(scope="session")
def store(results: Path, artifacts: Path) -> Store:
    """The store on both."""
    return Store(results, artifacts=artifacts)


@pytest.fixture(scope="session")
def address(store: Store) -> Iterator[str]:
    """A served dashboard."""
    from dashboard.app import build_app
    from dashboard.server import serve

    with serve(build_app(store)) as found:
        yield found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium through Playwright, which holds the thread's event loop: it ends with this package's tests."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install -y chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
