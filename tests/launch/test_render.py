"""Overlays render: offline, twice to the same bytes, with every number from one place."""

from __future__ import annotations

import pytest

from launch.checks import schemas
from launch.checks.render import check_render
from launch.checks.rules import apply
from launch.checks.tree import Tree
from launch.render import TREE, overlay_folder, overlay_names, render
from runs.errors import UsageError, UserError
from runs.paths import CONFIGS
from tests.launch.overlays import JOBS, SHIPPED, documents, text_of, write_overlay

ALL = [*SHIPPED, "everything"]


def test_the_overlays_that_ship():
    assert overlay_names() == sorted(SHIPPED)


@pytest.mark.parametrize("overlay", SHIPPED)
def test_two_renderings_are_alike_and_nothing_is_left_to_replace(overlay):
    assert check_render(overlay) == []


@pytest.mark.parametrize("overlay", ALL)
def test_numbers_of_pods_come_from_one_place(overlay):
    tree = Tree(documents(overlay))
    scale = tree.named("ConfigMap", "scale")["data"]
    jobs = {job.name.removesuffix("-workers"): job for job in tree.jobs}
    seen = {name: jobs[name].spec["completions"] for name in scale if name in jobs}
    assert seen == {name: int(value) for name, value in scale.items() if name in jobs}
    if "evaluate" in jobs:
        assert jobs["evaluate"].spec["parallelism"] == int(scale["evaluate-at-a-time"])


def test_another_number_reaches_every_field(tmp_path):
    local = tmp_path / "more"
    local.mkdir()
    (local / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "configMapGenerator:\n  - {name: scale, behavior: merge, literals: [sft=5]}\n"
        "  - {name: settings, behavior: merge, literals: [FAMILY=qwen2.5-32b]}\n"
    )
    write_overlay(tmp_path, jobs=("sft",), components=())
    text = (tmp_path / "kustomization.yaml").read_text()
    one_source = next(line for line in text.splitlines() if line.endswith("/base")).replace(
        "/base", "/components/one-source"
    )
    (tmp_path / "kustomization.yaml").write_text(text.replace("components: []", f"components:\n- more\n{one_source}"))
    job = next(document for document in render(str(tmp_path)) if document["kind"] == "Job")
    main = job["spec"]["template"]["spec"]["containers"][0]
    values = {entry["name"]: entry.get("value") for entry in main["env"]}
    assert (job["spec"]["completions"], job["spec"]["parallelism"], values["JOB_COMPLETIONS"]) == (5, 5, "5")
    assert {"mountPath": "/app/artifacts/qwen2.5-32b", "name": "work", "subPath": "artifacts/qwen2.5-32b"} in main[
        "volumeMounts"
    ]


def test_the_evaluation_can_judge_by_the_clusters_own_classifier(tmp_path):
    write_overlay(tmp_path, jobs=JOBS, components=("own-classifier", "one-source"))
    tree = Tree(render(str(tmp_path)))
    assert apply(tree) == []
    assert schemas.check_models(tree) == []
    jobs = {job.name: job for job in tree.jobs}
    written = next(word for word in jobs["classifier"].containers[0]["args"] if "artifact=" in word)
    for name, container in (("evaluate", "main"), ("verdict", "score")):
        found = next(c for c in jobs[name].all_containers if c["name"] == container)
        mount = next(m for m in found["volumeMounts"] if m["mountPath"] == "/app/artifacts/safety_classifier")
        assert written == f"--set=artifact={mount['subPath']}"
    assert jobs["evaluate"].metadata["annotations"]["constitutional-ai/after"] == "dpo,classifier"


@pytest.mark.parametrize(
    "folder", ["constitutions", "critique_revision", "evaluation", "finetune", "models", "safety_classifier"]
)
def test_config_maps_hold_every_config(folder):
    name = f"configs-{folder.replace('_', '-')}-"
    found = [d for d in documents("local") if d["kind"] == "ConfigMap" and d["metadata"]["name"].startswith(name)]
    files = {path.name: path.read_text() for path in (CONFIGS / folder).iterdir() if path.is_file()}
    assert [document["data"] for document in found] == [files]
    assert found[0]["immutable"] is True


def test_the_accelerators_and_spot_nodes_are_asked_for():
    for overlay, resource in (("gke-gpu", "nvidia.com/gpu"), ("gke-tpu", "google.com/tpu")):
        jobs = [job for job in Tree(documents(overlay)).jobs if job.resource(resource)]
        assert jobs
        assert all(job.pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true" for job in jobs)
        assert all(job.pod["terminationGracePeriodSeconds"] == 25 for job in jobs)


def test_no_registry_but_the_placeholder():
    for overlay in SHIPPED:
        images = {c["image"] for w in Tree(documents(overlay)).workloads for c in w.all_containers}
        assert all(image.startswith(("registry.example/", "constitutional-ai/")) for image in images), images
    assert "kind: Secret" not in "".join(map(text_of, ALL))


def test_the_claim_can_be_made_before_the_jobs():
    for overlay in SHIPPED:
        first = [d["kind"] for d in documents(overlay) if "constitutional-ai/first" in d["metadata"].get("labels", {})]
        assert first == ["Namespace", "PersistentVolumeClaim"]


def test_an_unknown_overlay_names_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'gke-gpu'"):
        overlay_folder("gke-gpus")


def test_what_kubectl_refuses_is_told_in_its_words(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        render(str(tmp_path))


def test_a_missing_kubectl_is_named(monkeypatch):
    monkeypatch.setattr("launch.render.sys.executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="kubectl was not found"):
        render("local")


def test_every_folder_of_the_tree_is_a_kustomization():
    for parent in ("jobs", "services", "components", "overlays"):
        folders = [path for path in (TREE / parent).iterdir() if path.is_dir()]
        assert folders
        assert all((path / "kustomization.yaml").is_file() for path in folders)
