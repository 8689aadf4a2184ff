"""The launcher against a server that speaks HTTP and misbehaves on demand."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from launch import api as apis
from launch import follow, state, submit
from launch.api import Api, Unreachable
from runs.errors import ExitCode, UsageError, UserError
from tests.launch.cluster_double import Double, failure

STAMP = "2024-01-01T00:00:{:02}.000000000Z {}\n"
DONE = {"succeeded": 2, "conditions": [{"type": "Complete", "status": "True"}]}


@pytest.fixture
def double():
    server = Double()
    yield server
    server.close()


@pytest.fixture
def api(double, tmp_path, monkeypatch) -> Api:
    monkeypatch.setattr(apis, "WATCH_S", 1)
    monkeypatch.setattr(follow, "PAUSE_S", 0.02)
    monkeypatch.setattr(follow, "POLL_S", 0.05)
    return Api.connect(double.namespace, kubeconfig=double.kubeconfig(tmp_path / "config"))


def job(name: str = "sft", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "ai:1", "command": ["true"]}
    template = {"spec": {"containers": [container], "restartPolicy": "Never", "serviceAccountName": "worker"}}
    annotations = {submit.AFTER: "base"}
    metadata = {"name": name, "annotations": annotations, "labels": {"app.kubernetes.io/part-of": "constitutional-ai"}}
    spec = {"completions": 2, "suspend": True, "template": template, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


# Connecting


def test_an_unknown_context_names_the_nearest(double, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'double'"):
        Api.connect("x", context="doubel", kubeconfig=double.kubeconfig(tmp_path / "config"))


def test_without_a_kubeconfig_the_mend_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"(?s)No cluster is configured.*get-credentials"):
        Api.connect("x", kubeconfig=str(tmp_path / "none"))


def test_a_cluster_that_cannot_be_reached(double, tmp_path):
    api = Api.connect("x", kubeconfig=double.kubeconfig(tmp_path / "config"))
    double.close()
    with pytest.raises(Unreachable, match=r"(?s)cannot be reached.*list Jobs.*kubectl cluster-info"):
        api.jobs()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failure(401, "Unauthorized", "Unauthorized"), r"(?s)credentials are not valid.*gcloud auth login"),
        (failure(403, "Forbidden", 'jobs.batch is forbidden: User "u"'), r"(?s)not allowed.*User \"u\".*rbac"),
        (failure(403, "Forbidden", "jobs is forbidden: exceeded quota: gpus"), r"(?s)quota refuses.*exceeded quota"),
        (failure(422, "Invalid", "spec.template: field is immutable"), r"(?s)invalid.*immutable"),
        (failure(503, "ServiceUnavailable", "etcd leader changed"), r"(?s)too busy or broken \(503\).*etcd"),
    ],
)
def test_refusals_say_why_and_what_to_do(double, api, answer, message):
    double.faults.append(("POST", "/jobs", answer))
    with pytest.raises(UserError, match=message):
        api.create(submit.prepare(job()))


def test_a_missing_namespace_is_named(double, tmp_path):
    api = Api.connect("elsewhere", kubeconfig=double.kubeconfig(tmp_path / "config"))
    with pytest.raises(UsageError, match=r"(?s)no namespace 'elsewhere'.*kubectl apply -k"):
        api.create(submit.prepare(job()))


def test_an_object_that_the_strict_model_refuses_is_never_sent(double, api):
    faulty = submit.prepare(job(backofLimit=3))
    with pytest.raises(UsageError, match=r"(?s)not valid.*backofLimit"):
        api.create(faulty)
    assert not double.requests


def test_a_newer_servers_fields_do_not_disturb(double, api):
    double.job("sft-1", active=1, aFieldOfTomorrow={"x": 1})
    assert state.read(api.job("sft-1")).phase == "waiting"


# Submitting


def test_every_job_has_a_name_of_its_own_and_waits_for_nothing():
    first, second = submit.prepare(job()), submit.prepare(job())
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["metadata"]["name"].startswith("sft-")
    assert first["spec"]["suspend"] is False
    assert submit.AFTER not in first["metadata"]["annotations"]
    assert len(submit.prepare(job("x" * 60))["metadata"]["name"]) <= submit.LONGEST


@pytest.mark.parametrize("name", ["Upper", "-a", "a-", "a_b", "a" * 60, "ä", ""])
def test_names_that_kubernetes_refuses_are_refused_before(name):
    with pytest.raises(UsageError, match="cannot be the name"):
        submit.prepare(job(), name=name)


def test_what_a_job_needs_is_made_once(double, api):
    supply = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"A": "1"}}
    warned: list[str] = []
    assert submit.provide(api, [supply], warned.append) == ["ConfigMap 'settings'"]
    assert submit.provide(api, [supply], warned.append) == []
    double.always.append(("POST", "/configmaps", failure(403, "Forbidden", "no")))
    submit.provide(api, [supply], warned.append)
    assert "ConfigMap 'settings'" in warned[0]


def test_a_changed_template_under_an_old_name_is_refused_or_replaces(double, api):
    submit.create(api, submit.prepare(job(), name="mine"), replace=False, say=print)
    changed = submit.prepare(job(completions=4), name="mine")
    with pytest.raises(UserError, match=r"(?s)'mine' is there already.*another one.*--replace"):
        submit.create(api, changed, replace=False, say=print)
    with pytest.raises(UserError, match=r"the same template|template is the same"):
        submit.create(api, submit.prepare(job(), name="mine"), replace=False, say=print)
    submit.create(api, changed, replace=True, say=print)
    assert double.objects["jobs"]["mine"]["spec"]["completions"] == 4


def test_a_job_that_is_not_there_names_the_nearest(double, api):
    double.job("sft-1a2b3c")
    with pytest.raises(UsageError, match="Did you mean 'sft-1a2b3c'"):
        api.job("sft-1a2b3d")


# Waiting


def later(*steps: Any) -> threading.Thread:
    def play() -> None:
        for step in steps:
            time.sleep(0.15)
            step()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    return thread


def test_a_job_is_followed_to_its_end_through_dropped_watches(double, api):
    double.job("sft-1", active=2)
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "metadata": {}}}
    later(
        lambda: double.job("sft-1", active=1, succeeded=1),
        double.drop_watches,
        lambda: double.events.append(gone),
        lambda: double.faults.append(("GET", "watch=true", failure(503, "ServiceUnavailable", "restarting"))),
        lambda: double.job("sft-1", **DONE),
    )
    seen: list[state.State] = []
    found = submit.wait(api, "sft-1", seen.append)
    assert (found.phase, found.done) == ("complete", 2)
    assert seen[0].done == 0


def test_a_job_deleted_while_it_is_followed_is_said(double, api):
    double.job("sft-1", active=2)
    later(lambda: api.delete_job("sft-1"))
    with pytest.raises(UserError, match="was deleted"):
        submit.wait(api, "sft-1", lambda _: None)


def test_a_cluster_that_stays_away_ends_the_following(double, api, monkeypatch):
    monkeypatch.setattr(apis, "PATIENCE_S", 0.2)
    double.job("sft-1", active=2)
    later(lambda: double.always.append(("GET", "/jobs", failure(503, "ServiceUnavailable", "down"))))
    with pytest.raises(Unreachable, match="down"):
        submit.wait(api, "sft-1", lambda _: None)


# Logs


def lines(api: Api, **options: Any) -> tuple[list[tuple[str, str]], list[str]]:
    said: list[str] = []
    settings = {"follow": True, "index": None, "tail": None, "say": said.append, **options}
    return list(follow.job_lines(api, "sft-1", **settings)), said


def finish(double: Double, pod: str = "sft-1-0") -> None:
    double.pod(pod, "sft-1", phase="Succeeded")
    double.job("sft-1", **DONE)


def test_a_dropped_log_stream_goes_on_without_a_line_lost_or_twice(double, api):
    double.job("sft-1", active=1)
    double.pod("sft-1-0", "sft-1", phase="Running")
    first, second, third = (STAMP.format(second, f"line {second}") for second in range(3))
    double.logs["sft-1-0"] = [[first, second[:20], ConnectionError()], [first, second, lambda: finish(double), third]]
    found, _ = lines(api)
    assert found == [("0", "line 0"), ("0", "line 1"), ("0", "line 2")]


def test_two_lines_of_one_instant_both_come(double, api):
    double.job("sft-1", **DONE)
    double.pod("sft-1-0", "sft-1", phase="Succeeded")
    same = STAMP.format(1, "a") + STAMP.format(1, "b")
    double.logs["sft-1-0"] = [[same]]
    assert [line for _, line in lines(api)[0]] == ["a", "b"]


def test_slow_and_interleaved_streams_of_two_pods(double, api):
    double.job("sft-1", active=2)
    for index in range(2):
        double.pod(f"sft-1-{index}", "sft-1", index, phase="Running")
    double.logs["sft-1-0"] = [[STAMP.format(0, "slow")[:30], 0.3, STAMP.format(0, "slow")[30:]]]
    double.logs["sft-1-1"] = [
        [STAMP.format(0, "quick"), 0.4, lambda: finish(double), lambda: finish(double, "sft-1-1")]
    ]
    double.objects["pods"]["sft-1-1"]["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = "1"
    found, _ = lines(api)
    assert sorted(line for _, line in found) == ["quick", "slow"]


def test_a_replaced_pod_is_followed_as_its_successor(double, api):
    double.job("sft-1", active=1)
    double.pod("sft-1-0-aaa", "sft-1", phase="Failed")

    def replaced() -> None:
        double.pod("sft-1-0-bbb", "sft-1", phase="Running")

    double.logs["sft-1-0-aaa"] = [[STAMP.format(0, "preempted"), replaced]]
    double.logs["sft-1-0-bbb"] = [[STAMP.format(5, "resumed"), lambda: finish(double, "sft-1-0-bbb")]]
    assert [line for _, line in lines(api)[0]] == ["preempted", "resumed"]


def test_a_container_that_has_not_started_is_waited_for_with_its_reason(double, api):
    double.job("sft-1", active=1)
    double.pod("sft-1-0", "sft-1", phase="Pending")

    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        double.logs["sft-1-0"] = [[STAMP.format(0, "hello"), lambda: finish(double)]]

    found, _ = lines(api, say=say)
    assert found == [("0", "hello")]
    assert "ContainerCreating" in said[0]


def test_logs_that_may_not_be_read_say_why(double, api):
    double.job("sft-1", active=1)
    double.pod("sft-1-0", "sft-1", phase="Running")
    double.always.append(("GET", "/log", failure(403, "Forbidden", 'cannot get resource "pods/log"')))
    with pytest.raises(UserError, match=r"(?s)not allowed.*pods/log"):
        lines(api)


def test_a_pod_that_goes_away_ends_its_log(double, api):
    double.job("sft-1", active=1)
    double.pod("sft-1-0", "sft-1", phase="Running")

    def vanish() -> None:
        double.objects["pods"].clear()
        double.logs.clear()
        double.job("sft-1", **DONE)

    double.logs["sft-1-0"] = [[STAMP.format(0, "last words"), vanish]]
    found, said = lines(api)
    assert found == [("0", "last words")]
    assert "Pod sft-1-0 is gone." in said


def test_without_follow_the_latest_pod_of_each_index_is_read(double, api):
    double.job("sft-1", **DONE)
    for name in ("old", "new"):
        double.pod(name, "sft-1", phase="Succeeded")
        double.logs[name] = [[STAMP.format(0, name)]]
    assert lines(api, follow=False)[0] == [("0", "new")]
    with pytest.raises(UserError, match="no log of index 7 yet"):
        lines(api, follow=False, index="7")


# States


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"image": "ai:nope", "state": {"waiting": {"reason": reason, "message": message}}}]}


def a_job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "sft-1"}, "spec": {"completions": 2}, "status": status}


def a_pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "sft-1-0"}, "status": status}


def ended_with(code: int) -> dict[str, Any]:
    return a_pod(phase="Failed", containerStatuses=[{"state": {"terminated": {"exitCode": code}}}])


@pytest.mark.parametrize(
    ("job_status", "pods", "warnings", "line"),
    [
        (
            {"active": 1},
            [a_pod(phase="Pending", **waiting("ImagePullBackOff", "Back-off pulling\nimage"))],
            [],
            r"sft-1: waiting, 0 of 2 done; Pod sft-1-0 cannot pull its image ai:nope \(ImagePullBackOff\): Back",
        ),
        (
            {"active": 1},
            [a_pod(phase="Pending", **waiting("CreateContainerConfigError", 'configmap "x" not found'))],
            [],
            r'cannot start \(CreateContainerConfigError\): configmap "x" not found',
        ),
        (
            {"active": 1},
            [
                a_pod(
                    phase="Pending",
                    conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no gpu"}],
                )
            ],
            [],
            "has no node: 0/3 nodes: no gpu",
        ),
        ({}, [], ["Error creating: pods is forbidden: exceeded quota"], "no Pod yet: Error creating.*exceeded quota"),
        (
            {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit 2"}]},
            [ended_with(2)],
            [],
            r"failed, 0 of 2 done; PodFailurePolicy: exit 2; 1 × exit 2 \(the command line or the config is wrong\)",
        ),
        (
            {"active": 2},
            [ended_with(75), a_pod(phase="Running")],
            [],
            r"1 of 2 Pods running; 1 × exit 75 \(stopped with",
        ),
        (
            {**DONE, "startTime": "2024-01-01T00:00:00Z", "completionTime": "2024-01-01T01:30:00Z"},
            [],
            [],
            "complete, 2 of 2 done; took 1:30:00",
        ),
    ],
)
def test_one_line_says_how_a_job_stands(job_status, pods, warnings, line):
    import re

    found = state.read(a_job(**job_status), pods, warnings).line
    assert "\n" not in found
    assert re.search(line, found), found


def test_exit_codes_of_the_launcher_are_the_projects():
    assert set(state.CODES) >= {int(ExitCode.USAGE), int(ExitCode.DATA), int(ExitCode.PREEMPTED)}


def test_a_kubeconfig_never_shows_its_token(double, api, capsys):
    double.faults.append(("GET", "/jobs", failure(401, "Unauthorized", "Unauthorized")))
    with pytest.raises(UserError) as caught:
        api.jobs()
    assert "a-token" not in str(caught.value)


def test_the_double_is_on_loopback(double: Double, tmp_path: Path):
    assert double.url.startswith("http://127.0.0.1:")
