"""Rendered Jobs as processes: environment and volumes as Kubernetes gives them, failures as the Job controller counts.

The first half runs small commands of its own; the second (slow) runs the local overlay's real ones.
"""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.pods import Ground, Pod, expand
from launch.render import TREE, parse, render_text
from launch.runner import JobRunner
from runs.errors import UserError
from runs.paths import CONFIGS
from safety_classifier.api import Classifier
from tests.launch.overlays import write_overlay

POLICY = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"containerName": "main", "operator": "In", "values": [75]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 64]}},
    ]
}
SETTINGS = {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"FAMILY": "tiny", "CACHE": "/data/cache"}}
FILES = {"kind": "ConfigMap", "metadata": {"name": "files"}, "data": {"a.yaml": "text: from the config map\n"}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small stand-in for the image's files."""
    folder = tmp_path / "project"
    (folder / "configs" / "models").mkdir(parents=True)
    (folder / "configs" / "models" / "image.yaml").write_text("text: from the image\n")
    (folder / "other").mkdir()
    (folder / "other" / "kept.txt").write_text("kept")
    return folder


def a_job(script: str, *, init: str = "", **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "x",
        "workingDir": "/app",
        "command": ["python", "-c", script],
        "args": ["--out=/app/results/$(FAMILY)/$(JOB_COMPLETION_INDEX)", "--cost=$$5", "--cache=/data/cache"],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [
            {
                "name": "JOB_NAME",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}},
            },
            {
                "name": "RANK",
                "valueFrom": {
                    "fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
                },
            },
            {"name": "COORDINATOR", "value": "$(JOB_NAME)-0.workers:8476"},
            {"name": "PORT", "value": "8476"},
            {"name": "METRICS", "value": "0.0.0.0:9090"},
            {"name": "LATER", "value": "$(NOT_THERE)"},
        ],
        "ports": [{"name": "coordinator", "containerPort": 8476}, {"name": "metrics", "containerPort": 9090}],
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "work", "mountPath": "/data", "subPath": "data"},
            {"name": "work", "mountPath": "/app/results", "subPath": "results"},
            {"name": "files", "mountPath": "/app/configs/models"},
            {"name": "secret", "mountPath": "/secrets/x"},
        ],
    }
    pod: dict[str, Any] = {
        "subdomain": "workers",
        "terminationGracePeriodSeconds": 20,
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "work", "persistentVolumeClaim": {"claimName": "work"}},
            {"name": "files", "configMap": {"name": "files"}},
            {"name": "secret", "secret": {"secretName": "x", "optional": True}},
        ],
    }
    if init:
        pod["initContainers"] = [{**copy.deepcopy(container), "name": "first", "command": ["python", "-c", init]}]
    whole = {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimit": 2,
        "podFailurePolicy": POLICY,
    }
    return {"kind": "Job", "metadata": {"name": "work"}, "spec": {**whole, **spec, "template": {"spec": pod}}}


def runner(tmp_path: Path, project: Path, script: str, **spec: Any) -> JobRunner:
    return JobRunner([SETTINGS, FILES, a_job(script, **spec)], "work", tmp_path / "root", project=project)


SHOW = """
import json, os, sys, pathlib
names = "FAMILY CACHE JOB_NAME RANK JOB_COMPLETION_INDEX COORDINATOR PORT METRICS LATER TMPDIR".split()
pathlib.Path(os.environ["TMPDIR"], "own").write_text("x")
out = pathlib.Path("results", os.environ["RANK"] + ".json")
seen = {
    "env": {name: os.environ[name] for name in names},
    "arguments": sys.argv[1:],
    "cwd": os.getcwd(),
    "models": sorted(os.listdir("configs/models")),
    "model": pathlib.Path("configs/models/a.yaml").read_text(),
    "kept": pathlib.Path("other/kept.txt").read_text(),
}
out.write_text(json.dumps(seen))
"""


def test_a_pod_sees_what_kubernetes_would_show_it(tmp_path, project):
    outcome = runner(tmp_path, project, SHOW).run(timeout=120)
    assert outcome.complete, outcome
    root = tmp_path / "root"
    seen = [json.loads((root / "volumes" / "work" / "results" / f"{index}.json").read_text()) for index in range(2)]
    first, second = (one["env"] for one in seen)
    assert (first["FAMILY"], first["JOB_NAME"], first["RANK"], second["RANK"]) == ("tiny", "work", "0", "1")
    assert second["JOB_COMPLETION_INDEX"] == "1"
    assert first["LATER"] == "$(NOT_THERE)"
    host, port = first["COORDINATOR"].split(":")
    assert (host, port) == ("127.0.0.1", first["PORT"])
    assert second["COORDINATOR"] == first["COORDINATOR"]
    assert port != "8476"
    assert first["METRICS"].startswith("127.0.0.1:")
    assert first["METRICS"] != second["METRICS"]
    assert first["TMPDIR"] != second["TMPDIR"]
    assert Path(first["CACHE"]) == root / "volumes" / "work" / "data" / "cache"
    assert seen[1]["arguments"] == ["--out=/app/results/tiny/1", "--cost=$5", f"--cache={first['CACHE']}"]
    assert (seen[0]["models"], seen[0]["model"]) == (["a.yaml"], "text: from the config map\n")
    assert seen[0]["kept"] == "kept"
    assert (project / "configs" / "models" / "image.yaml").read_text() == "text: from the image\n"


def test_names_expand_as_kubernetes_expands_them():
    values = {"A": "1", "B": "$(A)"}
    assert expand("$(A)-$(B)-$(C)-$$(A)-$", values) == "1-$(A)-$(C)-$(A)-$"


def test_an_absent_config_map_and_an_unknown_job_are_named(tmp_path, project):
    with pytest.raises(UserError, match="ConfigMap 'files', which is not rendered"):
        JobRunner([SETTINGS, a_job("pass")], "work", tmp_path / "root", project=project).run(timeout=60)
    with pytest.raises(UserError, match="Did you mean 'work'"):
        JobRunner([a_job("pass")], "wrk", tmp_path / "root", project=project)


def test_a_command_that_is_not_there_is_named(tmp_path, project):
    job = a_job("pass")
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["no-such-program"]
    with pytest.raises(UserError, match="no-such-program"):
        JobRunner([SETTINGS, FILES, job], "work", tmp_path / "root", project=project).run(timeout=60)


ONCE = """
import os, sys, pathlib
mark = pathlib.Path("results", "tried-" + os.environ["RANK"])
if not mark.exists():
    mark.write_text("x")
    sys.exit({code})
"""


@pytest.mark.parametrize(("code", "ending"), [(1, "failed"), (75, "ignored")])
def test_a_failed_pod_is_made_again_and_75_does_not_count(tmp_path, project, code, ending):
    outcome = runner(tmp_path, project, ONCE.format(code=code)).run(timeout=120)
    assert outcome.complete
    assert outcome.failures == (2 if ending == "failed" else 0)
    assert sorted(attempt.ending for attempt in outcome.attempts) == sorted([ending] * 2 + ["succeeded"] * 2)


@pytest.mark.parametrize("code", [2, 64])
def test_a_wrong_config_fails_the_job_at_once(tmp_path, project, code):
    outcome = runner(tmp_path, project, f"import sys; sys.exit({code})", parallelism=1).run(timeout=120)
    assert not outcome.complete
    assert f"exit code {code}" in outcome.why
    assert len(outcome.attempts) == 1


def test_the_backoff_limit_ends_the_job_and_per_index_it_is_each_ones_own(tmp_path, project):
    outcome = runner(tmp_path, project, "import sys; sys.exit(1)", parallelism=1, backoffLimit=1).run(timeout=120)
    assert (outcome.complete, outcome.failures) == (False, 2)
    assert "BackoffLimitExceeded" in outcome.why
    outcome = runner(
        tmp_path / "b", project, ONCE.format(code=1), parallelism=1, backoffLimitPerIndex=1, backoffLimit=None
    ).run(timeout=120)
    assert outcome.complete


WAITS = """
import os, pathlib, signal, sys, time
mark = pathlib.Path("results", "stopped")
def leave(*_):
    mark.write_text("saved"); sys.exit(75)
signal.signal(signal.SIGTERM, leave)
if os.environ["RANK"] == "0" or mark.exists() or pathlib.Path("results", "killed").exists():
    sys.exit(0)
pathlib.Path("results", "ready").write_text("x")
time.sleep(120)
"""


@pytest.mark.parametrize(("how", "code"), [("evict", 75), ("kill", 137)])
def test_eviction_is_ignored_and_a_kill_counts(tmp_path, project, how, code):
    done = []

    def strike(running: JobRunner) -> None:
        results = running.ground.folder / "volumes" / "work" / "results"
        if (results / "ready").exists() and not done and 1 in running.running:
            (results / "killed").write_text("x")
            getattr(running, how)(1)
            done.append(how)

    outcome = runner(tmp_path, project, WAITS).run(timeout=120, on_poll=strike)
    assert outcome.complete
    struck = next(attempt for attempt in outcome.attempts if attempt.exit_code)
    assert (struck.index, struck.exit_code) == (1, code)
    assert struck.ending == ("ignored" if how == "evict" else "failed")


@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("import pathlib; pathlib.Path('other/new.txt').write_text('x')", "other/new.txt"),
        ("import pathlib; pathlib.Path('other/kept.txt').write_text('another')", "other/kept.txt"),
        ("import os; os.rename('results', 'old'); os.mkdir('results')", "old, results"),
    ],
)
def test_a_write_that_a_cluster_would_refuse_is_refused(tmp_path, project, script, where):
    with pytest.raises(UserError, match=f"wrote to its image: {where}"):
        runner(tmp_path, project, script, completions=1, parallelism=1).run(timeout=120)


def test_init_containers_run_first_and_one_after_the_other(tmp_path, project):
    job = a_job(
        "import pathlib; print(pathlib.Path('results/first').read_text())",
        init="import pathlib; pathlib.Path('results/first').write_text('made before')",
        completions=1,
        parallelism=1,
    )
    found = JobRunner([SETTINGS, FILES, job], "work", tmp_path / "root", project=project)
    assert found.run(timeout=120).complete
    assert found.log(0) == "made before\n"


def test_a_deadline_kills_what_runs(tmp_path, project):
    began = time.monotonic()
    outcome = runner(tmp_path, project, "import time; time.sleep(300)").run(timeout=3)
    assert (outcome.complete, "DeadlineExceeded" in outcome.why) == (False, True)
    assert time.monotonic() - began < 60


# The local overlay's own commands


def local(family: str = "smollm2-135m", overlay: str = "local") -> list[dict[str, Any]]:
    """The rendered local overlay, with another family."""
    documents = parse(render_text(overlay).replace("artifacts/smollm2-135m", f"artifacts/{family}"))
    for document in documents:
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("settings"):
            document["data"] |= {"FAMILY": family, "PAIRS": family, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return documents


def into(documents: list[dict[str, Any]], prefix: str, name: str, value: dict[str, Any] | str) -> None:
    """Put a file into a ConfigMap of ``configs/``."""
    found = next(
        d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"].startswith(f"configs-{prefix}")
    )
    found["data"][name] = value if isinstance(value, str) else yaml.safe_dump(value)


def command(documents: list[dict[str, Any]], job: str, index: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What a Pod of the overlay would execute."""
    document = next(d for d in documents if d["kind"] == "Job" and d["metadata"]["name"] == job)
    pod = Pod(Ground(folder, documents, document), index, 0)
    arguments, environment, _ = pod.command(document["spec"]["template"]["spec"]["containers"][0])
    return arguments, environment


@pytest.mark.parametrize("job", ["classifier", "sft", "dpo", "evaluate", "critique-revision"])
def test_every_index_of_the_overlay_knows_its_place(tmp_path, job):
    documents = local()
    count = next(d for d in documents if d["metadata"]["name"] == job and d["kind"] == "Job")["spec"]["completions"]
    for index in range(count):
        arguments, environment = command(documents, job, index, tmp_path)
        assert not any("$(" in word for word in arguments), arguments
        assert environment["JOB_COMPLETION_INDEX"] == str(index)
        assert environment["JOB_COMPLETIONS"] == str(count)
        if job in ("sft", "dpo"):
            assert (environment["RANK"], environment["WORLD_SIZE"]) == (str(index), str(count))
            assert environment["MASTER_ADDR"] == "127.0.0.1"
        if job == "classifier":
            assert environment["JAX_NUM_PROCESSES"] == str(count)
            assert environment["JAX_COORDINATOR_ADDRESS"].startswith("127.0.0.1:")


def with_own_classifier(folder: Path) -> str:
    """The local overlay and the component that makes the evaluation judge by the cluster's own classifier."""
    up = os.path.relpath(TREE, folder.resolve())
    made = {"resources": [f"{up}/overlays/local"]}
    component = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **made}
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(component | {"components": [f"{up}/components/own-classifier"]})
    )
    return str(folder)


def tiny_chain(tmp_path: Path, overlay: str = "local") -> tuple[list[dict[str, Any]], Path]:
    """The local overlay with a tiny Llama as its family."""
    from tests.finetune.distributed_driver import prepare

    place = tmp_path / "tiny"
    prepare(place)
    documents = local("tiny-llama", overlay)
    family = yaml.safe_load((place / "tiny-llama.yaml").read_text())
    into(documents, "models", "tiny-llama.yaml", family)
    for stage, adapter in (("sft", "stage2"), ("dpo", "stage3")):
        run = yaml.safe_load((place / f"{stage}.yaml").read_text())
        run |= {"family": "tiny-llama", "output_dir": f"artifacts/tiny-llama/{adapter}"}
        into(documents, "finetune", f"tiny-llama-{stage}.yaml", run)
    return documents, tmp_path / "root"


def train_log(root: Path, stage: str) -> bytes:
    return (root / "volumes" / "work" / "artifacts" / "tiny-llama" / stage / "train_log.jsonl").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    """The log of the overlay's SFT by two Pods with a rank each."""
    documents, root = tiny_chain(tmp_path_factory.mktemp("undisturbed"))
    ranks = JobRunner(documents, "sft", root)
    assert ranks.run(timeout=1500).complete, ranks.log(0)
    return train_log(root, "stage2")


@pytest.mark.slow
def test_torch_ranks_of_the_overlay_come_back_after_a_kill_and_an_eviction(undisturbed, tmp_path):
    documents, root = tiny_chain(tmp_path)
    disturbed = JobRunner(documents, "sft", root)
    struck: list[str] = []

    def strike(running: JobRunner) -> None:
        checkpoints = list((root / "volumes").glob("**/.work/checkpoint-*/complete.json"))
        if len(struck) == 0 and checkpoints and len(running.running) == 2:
            running.kill(1)
            struck.append("kill")
        elif len(struck) == 1 and len(checkpoints) > 1 and len(running.running) == 2:
            running.evict(0)
            struck.append("evict")

    outcome = disturbed.run(timeout=3000, on_poll=strike)
    assert outcome.complete, disturbed.log(0)
    assert struck
    assert train_log(root, "stage2") == undisturbed


@pytest.mark.slow
def test_a_pod_with_two_ranks_by_torchrun_takes_the_steps_of_two_pods_with_one(undisturbed, tmp_path):
    write_overlay(tmp_path, jobs=("sft",), components=("gpu-a100", "one-source"))
    documents, root = tiny_chain(tmp_path, overlay=str(tmp_path))
    job = next(d for d in documents if d["kind"] == "Job")
    job["spec"] |= {"completions": 1, "parallelism": 1}
    environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
    next(entry for entry in environment if entry["name"] == "JOB_COMPLETIONS")["value"] = "1"
    pod = JobRunner(documents, "sft", root)
    assert pod.run(timeout=1500).complete, pod.log(0)
    assert train_log(root, "stage2") == undisturbed


OUTPUTS = ("samples.jsonl", "results.json", "statistics.json", "comparison.csv", "config.yaml", "run.json")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, list[str]]:
    """The claim after classifier, evaluate and verdict, with `own-classifier`; and how the classifier's Pods ended."""
    place = tmp_path_factory.mktemp("evaluated")
    documents, root = tiny_chain(place, overlay=with_own_classifier(place))
    small = yaml.safe_load((CONFIGS / "safety_classifier" / "tiny.yaml").read_text())
    small["train"] |= {"buckets": [64], "tokens_per_batch": 2048, "max_steps": 24}
    into(documents, "safety-classifier", "tiny.yaml", small | {"checkpoints": {"every": 4, "validation_rows": 100}})
    names = ["harm_prevention", "truthfulness", "helpfulness", "fairness", "safety_classifier"]
    settings = {"models": ["base"], "batch_size": 4, "limit": 40, "evaluators": names}
    into(documents, "evaluation", "default.yaml", settings | {"sampling": {"max_new_tokens": 8}})
    struck: list[int] = []

    def strike(running: JobRunner) -> None:
        checkpoints = list(root.glob("volumes/work/results/safety_classifier/tiny/checkpoints/[0-9]*"))
        if not struck and checkpoints and len(running.running) == 2:
            running.evict(1)
            struck.append(1)

    trainer = JobRunner(documents, "classifier", root)
    outcome = trainer.run(timeout=900, on_poll=strike)
    assert outcome.complete, (outcome.why, trainer.log(0))
    whole = copy.deepcopy(documents)
    machine = next(d for d in whole if d["kind"] == "Job" and d["metadata"]["name"] == "evaluate")
    machine["spec"] |= {"completions": 1, "parallelism": 1}
    main = machine["spec"]["template"]["spec"]["containers"][0]
    main["args"] = [word for word in main["args"] if not word.startswith(("--shard", "--output-dir"))]
    main["args"].append("--output-dir=results/evaluation/one-machine")
    for found, job in ((documents, "evaluate"), (documents, "verdict"), (whole, "evaluate")):
        runner = JobRunner(found, job, root)
        assert runner.run(timeout=1500).complete, runner.log(0, "score") + runner.log(0)
    return root / "volumes" / "work" / "results", [attempt.ending for attempt in outcome.attempts]


@pytest.mark.slow
def test_eight_evaluation_shards_of_the_overlay_merge_into_the_bytes_of_one_machine(evaluated):
    results = evaluated[0] / "evaluation"
    assert len(list(results.glob("tiny-llama-shards/*/manifest.json"))) == 8
    samples = (results / "tiny-llama" / "samples.jsonl").read_text().splitlines()
    assert len({json.loads(line)["prompt_id"] for line in samples}) == 40
    for name in OUTPUTS:
        assert (results / "tiny-llama" / name).read_bytes() == (results / "one-machine" / name).read_bytes(), name
    assert not (results / "tiny-llama" / "shard.json").exists()


@pytest.mark.slow
def test_the_classifier_of_the_overlay_survives_an_eviction_and_judges(evaluated):
    results, endings = evaluated
    assert endings == ["ignored", "ignored", "succeeded", "succeeded"]
    log = (results / "safety_classifier" / "tiny" / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in log if "train/loss" in line]
    assert steps == sorted(set(steps))  # none is lost, none is logged twice
    trained = Classifier.load(results / "safety_classifier" / "artifact", precision="float32").identity
    judged = json.loads((results / "evaluation" / "tiny-llama" / "run.json").read_text())["identity"]["evaluators"]
    assert judged["safety_classifier"].endswith(trained[:12])
    assert Classifier.load(precision="float32").identity != trained


JAX = """
import jax
from safety_classifier.training.distributed import join_cluster
join_cluster()
from jax.experimental.multihost_utils import process_allgather
found = process_allgather(jax.numpy.array([jax.process_index() + 1]))
print("processes", jax.process_count(), "gathered", found.ravel().tolist(), flush=True)
"""


@pytest.mark.slow
def test_two_jax_processes_of_the_overlay_agree_on_how_many_they_are(tmp_path):
    documents = local()
    job = next(d for d in documents if d["kind"] == "Job" and d["metadata"]["name"] == "classifier")
    container = job["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["python", "-c", JAX], "args": []}  # the environment is the overlay's
    found = JobRunner(documents, "classifier", tmp_path / "root")
    assert found.run(timeout=900).complete, found.log(0) + found.log(1)
    for index in range(2):
        assert "processes 2 gathered [1, 2]" in found.log(index)
