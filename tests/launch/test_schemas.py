"""Strict schemas of three versions, the official client's models, and Kubernetes' Go types."""

from __future__ import annotations

import pytest

from launch.checks import schemas
from launch.checks.tree import Tree
from launch.render import TREE, parse, render_text
from runs.errors import UserError
from tests.launch.mutants import MAIN, SFT, put
from tests.launch.overlays import SHIPPED, documents

ALL = [*SHIPPED, "everything"]


@pytest.mark.parametrize("minor", schemas.MINORS)
@pytest.mark.parametrize("overlay", ALL)
def test_every_object_fits_the_strict_schema(overlay, minor):
    assert [str(finding) for finding in schemas.check_schemas(Tree(documents(overlay)), minor)] == []


@pytest.mark.parametrize("overlay", ALL)
def test_every_object_fits_the_clients_model(overlay):
    assert [str(finding) for finding in schemas.check_models(Tree(documents(overlay)))] == []


@pytest.mark.parametrize("overlay", ALL)
def test_kubectl_decodes_every_workload(overlay):
    assert [str(finding) for finding in schemas.check_types(Tree(documents(overlay)))] == []


def test_the_loader_fits_and_is_as_restricted_as_a_job():
    tree = Tree(parse(render_text(str(TREE / "cluster" / "loader"))))
    assert [finding for minor in schemas.MINORS for finding in schemas.check_schemas(tree, minor)] == []
    assert schemas.check_models(tree) == []
    loader, job = tree.documents[0]["spec"], Tree(documents("local")).jobs[0]
    assert loader["securityContext"] == job.pod["securityContext"]
    assert loader["containers"][0]["securityContext"] == job.containers[0]["securityContext"]


FAULTS = {
    "unknown field": put(SFT, "spec", "completionsMode", to="Indexed"),
    "unknown field of a container": put(SFT, *MAIN, "comand", to=["x"]),
    "wrong type": put(SFT, "spec", "completions", to="two"),
    "a list for a map": put(SFT, *MAIN, "resources", to=[]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_by_schema_and_model(fault):
    broken = documents("local")
    FAULTS[fault](broken)
    tree = Tree([document for document in broken if document["kind"] == "Job"])
    assert schemas.check_models(tree)
    for minor in schemas.MINORS:
        assert schemas.check_schemas(tree, minor), minor


def test_a_kind_without_a_schema_is_a_fault_and_no_warning():
    for api, kind in (("batch/v2", "Job"), ("batch.example/v1", "Job"), ("v1", "Pot")):
        tree = Tree([{"apiVersion": api, "kind": kind, "metadata": {"name": "a"}, "spec": {}}])
        assert "no schema" in str(schemas.check_schemas(tree, schemas.MINORS[0])[0])
        assert "no model" in str(schemas.check_models(tree)[0])


def test_kubectl_sees_a_bad_quantity():
    broken = documents("local")
    put(SFT, *MAIN, "resources", "limits", "memory", to="6GiB")(broken)
    tree = Tree([document for document in broken if document["metadata"]["name"] == "sft"])
    assert len(schemas.check_types(tree)) == 1


def test_a_job_inside_a_jobset_is_checked_as_a_job():
    broken = documents("everything")
    jobset = next(document for document in broken if document["kind"] == "JobSet")
    jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["completionsMode"] = "Indexed"
    assert [f.where for f in schemas.check_schemas(Tree(broken), schemas.MINORS[-1])] == ["Job/classifier-workers"]


def test_a_version_without_schemas_is_an_error():
    with pytest.raises(UserError, match=r"1\.12"):
        schemas.check_schemas(Tree(documents("local")), "1.12")
