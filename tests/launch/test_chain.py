"""The chain releases Jobs in order, once, and says so when one waits in vain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from launch import chain
from launch.chain import QUEUE_LABEL, Decision, Link, decide, follow, read_link, release_patch, run_round
from runs.console import Reporter
from runs.errors import UserError
from tests.launch.overlays import documents


def links(overlay, **outcomes):
    """The Jobs of an overlay, some with an outcome."""
    found = []
    for document in documents(overlay):
        if document["kind"] == "Job":
            outcome = outcomes.get(document["metadata"]["name"].replace("-", "_"))
            conditions = [{"type": outcome, "status": "True"}] if outcome else []
            found.append(read_link({**document, "status": {"conditions": conditions}}))
    return found


def names(decided):
    return sorted(link.name for link in decided)


def test_the_jobs_are_released_one_after_the_other():
    done, order = {}, []
    for _ in range(6):
        decision = decide(
            [link._replace(released=link.released or link.name in order) for link in links("local", **done)]
        )
        order += names(decision.release)
        done |= {name.replace("-", "_"): "Complete" for name in ["sft", "classifier", *order]}
    assert order == ["critique-revision", "pairs", "dpo", "evaluate", "verdict"]


def test_nothing_is_released_while_a_predecessor_runs():
    decision = decide(links("local"))
    assert decision.release == []
    assert names(decision.waiting) == ["critique-revision", "dpo", "evaluate", "pairs", "verdict"]


@pytest.mark.parametrize(("outcome", "words"), [("Failed", "waits for sft, which failed."), (None, "does not exist")])
def test_who_waits_in_vain_is_named(outcome, words):
    found = [link for link in links("local", sft=outcome) if outcome or link.name != "sft"]
    assert any(words in fault for fault in decide(found).faults)


def test_with_a_queue_releasing_means_joining_it():
    queued = next(link for link in links("everything") if link.name == "pairs")
    assert release_patch(queued) == {"metadata": {"labels": {QUEUE_LABEL: "training"}}}
    assert release_patch(Link("a", (), False, "", None)) == {"spec": {"suspend": False}}


def test_a_round_patches_what_it_releases(capsys):
    jobs = [
        {"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}},
        {"metadata": {"name": "b", "annotations": {"constitutional-ai/after": "a"}}, "spec": {"suspend": True}},
    ]
    patched = []
    api = SimpleNamespace(
        list_namespaced_job=lambda namespace, label_selector: SimpleNamespace(items=jobs),
        patch_namespaced_job=lambda *arguments: patched.append(arguments),
        api_client=SimpleNamespace(sanitize_for_serialization=lambda job: job),
    )
    run_round(api, "constitutional-ai", Reporter())
    assert patched == [("b", "constitutional-ai", {"spec": {"suspend": False}})]
    assert "released b (after a)" in capsys.readouterr().out


class Refused(Exception):
    """As the client's ApiException."""

    def __init__(self, status):
        self.status = status


def rounds(monkeypatch, *outcomes):
    """Follow a chain whose rounds end as told; no time passes."""
    monkeypatch.setattr(chain.time, "sleep", lambda seconds: None)
    left = iter(outcomes)

    def look():
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    follow(look, Reporter(), faults=(Refused,))
    return list(left)


DONE = Decision([], [], [])
BUSY = Decision([], [Link("a", ("b",), False, "", None)], [])


def test_a_short_absence_of_the_api_server_is_waited_out(monkeypatch, capsys):
    assert rounds(monkeypatch, BUSY, Refused(503), Refused(500), BUSY, DONE, "more") == ["more"]
    assert "did not answer (503)" in capsys.readouterr().err


@pytest.mark.parametrize("outcomes", [[Refused(403)], [Refused(503)] * 30], ids=["no right", "gone"])
def test_a_refusal_or_a_long_absence_ends_it(monkeypatch, outcomes):
    with pytest.raises(UserError, match="cannot be read"):
        rounds(monkeypatch, *outcomes)


def test_waiting_in_vain_ends_it_with_the_reason(monkeypatch):
    with pytest.raises(UserError, match=r"a waits for b, which failed\."):
        rounds(monkeypatch, Decision([], [], ["a waits for b, which failed."]))
