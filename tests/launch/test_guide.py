"""The README's commands, the guide's numbers and the Grafana dashboard fit the tree."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from launch.checks.tree import Tree
from launch.render import TREE
from runs.paths import PROJECT_ROOT
from scripts import kubernetes_costs, update_guides
from tests.board import BOARD, PARTS, asked, queries
from tests.launch.overlays import SHIPPED, documents

README = (TREE / "README.md").read_text()
GUIDE = (PROJECT_ROOT / "docs" / "kubernetes.md").read_text()


def test_the_readme_says_how_to_make_every_secret_that_a_pod_mounts():
    for overlay in SHIPPED:
        for workload in Tree(documents(overlay)).workloads:
            for volume in workload.pod["volumes"]:
                name = volume.get("secret", {}).get("secretName")
                assert name is None or f"kubectl create secret generic {name} -n constitutional-ai" in README


def test_the_readmes_secrets_have_the_files_that_the_programs_read():
    for overlay in SHIPPED:
        for workload in Tree(documents(overlay)).workloads:
            for text in re.findall(r"/secrets/(\w+)/([\w.]+)", json.dumps(workload.pod)):
                assert f"secret generic {text[0]} -n constitutional-ai --from-file={text[1]}=" in README
    settings = yaml.safe_load((TREE / "base" / "kustomization.yaml").read_text())["configMapGenerator"][0]["literals"]
    assert "HF_TOKEN_PATH=/secrets/huggingface/token" in settings
    assert "secret generic huggingface -n constitutional-ai --from-file=token=" in README


def test_the_readme_names_every_overlay_and_component():
    names = [path.name for parent in ("overlays", "components") for path in (TREE / parent).iterdir()]
    assert [name for name in names if f"`{name}`" not in README and name not in ("job-defaults", "one-source")] == []


@pytest.mark.parametrize("text", [README, GUIDE], ids=["README", "guide"])
def test_paths_in_the_guides_are_there(text):
    for path in re.findall(r"(?:k8s|docker|scripts|configs|docs|tests)/[\w./*$-]*\w", text):
        if path.startswith("docker/$kind") or path.endswith("NAME") or "/settings" in path:
            continue
        assert list(PROJECT_ROOT.glob(path.rstrip("/"))), path


def test_the_cost_table_is_what_the_script_computes():
    assert kubernetes_costs.updated(GUIDE) == GUIDE
    assert kubernetes_costs.table() in GUIDE


def test_the_measured_tables_are_those_of_the_results():
    for path, text in update_guides.pages().items():
        assert path.read_text() == text, f"uv run python scripts/update_guides.py writes {path.name}"


def test_the_results_of_the_checks_are_of_this_tree():
    found = json.loads(update_guides.CHECKS.read_text())["overlays"]
    assert {entry["overlay"]: entry["objects"] for entry in found} == {name: len(documents(name)) for name in SHIPPED}
    assert all(set(entry["findings"]) == set(update_guides.SEEN) for entry in found)


def test_a_page_without_the_block_is_an_error():
    with pytest.raises(ValueError, match="no block 'checks'"):
        update_guides.updated("nothing", "checks", "table")


def test_costs_follow_from_prices_and_hours():
    machine = kubernetes_costs.Machine("m", 2.0, "", 1e12, 1e11)
    hours = kubernetes_costs.training_hours(1e9, 1e6, machine, 2, per_token=6)
    assert hours == pytest.approx(6e15 / (2e12 * kubernetes_costs.TRAINING_SHARE) / 3600)
    assert kubernetes_costs.training_hours(1e9, 1e6, machine, 1, per_token=6) == pytest.approx(2 * hours)
    decoding = kubernetes_costs.decoding_hours(1e9, 1e6, machine, 1, batch=10)
    assert decoding == pytest.approx(1e5 * 2e9 / (1e11 * kubernetes_costs.DECODING_SHARE) / 3600)


def test_the_board_asks_for_gauges_that_the_parts_have():
    """That each is really exported is tested beside each program, with what it exported in a run."""
    assert asked() == {name for part in PARTS for name in asked(part)}
    assert all(asked(part) for part in PARTS)
    assert all("$namespace" in query for query in queries())
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert all(panel["datasource"]["uid"] == "${source}" for panel in BOARD["panels"])


def test_no_panel_covers_another():
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
