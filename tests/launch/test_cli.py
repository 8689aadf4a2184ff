"""The command `launch`, as typed: what it prints, what it sends, and its exit codes."""

from __future__ import annotations

import _thread
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import api as apis
from launch import cli, follow
from tests.launch.cluster_double import Double, failure
from tests.launch.test_client import DONE, STAMP

JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "sft", "labels": {"app.kubernetes.io/part-of": "constitutional-ai"}},
    "spec": {
        "suspend": True,
        "completions": 2,
        "completionMode": "Indexed",
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {"name": "main", "image": "ai:1", "envFrom": [{"configMapRef": {"name": "settings"}}]},
                ],
            }
        },
    },
}
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"FAMILY": "tiny"}}


@pytest.fixture
def double():
    server = Double()
    yield server
    server.close()


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    """A small overlay of the test's own."""
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all([JOB, SETTINGS]))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["all.yaml"]}))
    return str(folder)


@pytest.fixture
def launch(double, tmp_path, monkeypatch, capsys):
    """Runs the command: exit code, stdout, stderr as one line without the panel's frame."""
    monkeypatch.setattr(apis, "WATCH_S", 1)
    monkeypatch.setattr(follow, "PAUSE_S", 0.02)
    monkeypatch.setattr(follow, "POLL_S", 0.05)
    kubeconfig = double.kubeconfig(tmp_path / "kubeconfig")

    def run(*words: str, cluster: bool = True) -> tuple[int, str, str]:
        options = ["--kubeconfig", kubeconfig] if cluster else []
        monkeypatch.setattr(sys, "argv", ["launch", *words, *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, " ".join(said.err.replace("│", " ").split())

    return run


def complete_when_created(double: Double, **status: Any) -> threading.Thread:
    def play() -> None:
        while not double.objects["jobs"]:
            threading.Event().wait(0.05)
        name = next(iter(double.objects["jobs"]))
        double.job(name, **(status or DONE))

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    return thread


def test_an_unknown_overlay_or_job_names_the_nearest(launch, overlay):
    code, _, said = launch("render", "gke-gpi", cluster=False)
    assert (code, "Did you mean 'gke-gpu'" in said) == (2, True)
    code, _, said = launch("submit", overlay, "sftt")
    assert (code, "Did you mean 'sft'" in said) == (2, True)
    code, _, said = launch("statsu", cluster=False)
    assert code == 2


def test_render_prints_the_tree_or_one_job_and_what_it_needs(launch, overlay):
    code, out, _ = launch("render", overlay, cluster=False)
    assert code == 0
    assert {document["kind"] for document in yaml.safe_load_all(out)} == {"Job", "ConfigMap"}
    _, out, _ = launch("render", overlay, "--job", "sft", cluster=False)
    assert [document["metadata"]["name"] for document in yaml.safe_load_all(out)] == ["settings", "sft"]


def test_a_dry_run_prints_what_would_be_sent_and_sends_nothing(launch, overlay, double):
    code, out, _ = launch("submit", overlay, "sft", "--dry-run")
    documents = list(yaml.safe_load_all(out))
    assert code == 0
    assert documents[-1]["metadata"]["name"].startswith("sft-")
    assert documents[-1]["spec"]["suspend"] is False
    assert not double.requests


def test_a_job_is_submitted_with_its_settings_and_followed(launch, overlay, double):
    complete_when_created(double)
    code, out, _ = launch("submit", overlay, "sft", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["phase"], result["done"]) == ("complete", 2)
    assert list(double.objects["configmaps"]) == ["settings"]
    assert list(double.objects["jobs"]) == [result["job"]]
    assert any("fieldValidation=Strict" in path for method, path in double.requests if method == "POST")


def test_a_failed_job_has_exit_code_1_and_its_reason(launch, overlay, double):
    reason = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 2"}
    complete_when_created(double, conditions=[reason])
    code, out, _ = launch("submit", overlay, "sft", "--json")
    assert code == 1
    assert "PodFailurePolicy: exit code 2" in json.loads(out)["detail"]


def test_ctrl_c_leaves_the_job_running_and_says_so(launch, overlay, double):
    def interrupt() -> None:
        while not double.objects["jobs"]:
            threading.Event().wait(0.05)
        threading.Event().wait(0.5)
        _thread.interrupt_main()

    # A shell ignores SIGINT for what it starts in the background; so may the tests be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    code, _, said = launch("submit", overlay, "sft")
    signal.signal(signal.SIGINT, before)
    (name,) = double.objects["jobs"]
    assert code == 130
    assert f"the Job '{name}' goes on in the cluster" in said
    assert f"launch delete {name}" in said


def test_an_old_name_needs_replace_and_replace_needs_a_name(launch, overlay, double):
    double.job("mine")
    code, _, said = launch("submit", overlay, "sft", "--name", "mine", "--no-wait")
    assert code == 1
    assert "is there already" in said
    assert "--replace" in said
    code, _, said = launch("submit", overlay, "sft", "--replace")
    assert (code, "--replace needs --name" in said) == (2, True)
    code, _, _ = launch("submit", overlay, "sft", "--name", "mine", "--replace", "--no-wait")
    assert code == 0
    assert double.objects["jobs"]["mine"]["spec"]["completionMode"] == "Indexed"


def test_status_says_in_one_line_that_an_image_cannot_be_pulled(launch, double):
    double.job("sft-1", active=1)
    waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
    double.pod(
        "sft-1-0", "sft-1", phase="Pending", containerStatuses=[{"image": "ai:nope", "state": {"waiting": waiting}}]
    )
    code, out, _ = launch("status", "sft-1", "--json")
    assert code == 0
    assert json.loads(out)["detail"] == "Pod sft-1-0 cannot pull its image ai:nope (ErrImagePull): manifest unknown"
    code, _, said = launch("status", "sft-2")
    assert (code, "Did you mean 'sft-1'" in said) == (2, True)


def test_logs_are_lines_on_stdout_with_their_index(launch, double):
    double.job("sft-1", **DONE)
    double.pod("sft-1-0", "sft-1", phase="Succeeded")
    double.logs["sft-1-0"] = [[STAMP.format(0, "hello [bold]world[/]")]]
    for flags in ([], ["-f"]):
        code, out, _ = launch("logs", *flags, "sft-1")
        assert (code, out) == (0, "[0] hello [bold]world[/]\n")


def test_list_and_delete(launch, double):
    code, out, _ = launch("list")
    assert (code, "No Jobs in constitutional-ai" in out) == (0, True)
    double.job("sft-1", active=1)
    _, out, _ = launch("list", "--json")
    assert [job["name"] for job in json.loads(out)["jobs"]] == ["sft-1"]
    code, out, _ = launch("delete", "sft-1")
    assert (code, "stay on the volume" in out, double.objects["jobs"]) == (0, True, {})
    code, _, said = launch("delete", "sft-1")
    assert (code, "Unknown Job" in said) == (2, True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failure(401, "Unauthorized", "Unauthorized"), "credentials are not valid"),
        (failure(403, "Forbidden", "jobs is forbidden: exceeded quota: gpus"), "quota refuses"),
    ],
)
def test_refusals_of_the_cluster_are_panels_not_tracebacks(launch, overlay, double, answer, message):
    double.always.append(("POST", "/jobs", answer))
    code, _, said = launch("submit", overlay, "sft")
    assert (code, message in said, "Traceback" in said) == (1, True, False)


def test_a_missing_namespace_or_kubeconfig_is_usage(launch, overlay, tmp_path, double):
    code, _, said = launch("submit", overlay, "sft", "--namespace", "elsewhere")
    assert (code, "no namespace 'elsewhere'" in said) == (2, True)
    code, _, said = launch("list", "--kubeconfig", str(tmp_path / "absent"), cluster=False)
    assert (code, "there is no such file" in said) == (2, True)


def test_a_cluster_that_is_away_is_said(launch, double):
    double.server.shutdown()
    double.server.server_close()
    code, _, said = launch("list")
    assert (code, "cannot be reached" in said) == (1, True)
