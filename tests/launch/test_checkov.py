"""checkov, from its own locked environment: no finding but the three that its config explains."""

from __future__ import annotations

import pytest
import yaml

from launch.checks import posture
from launch.render import TREE
from runs.errors import UserError
from tests.launch.overlays import SHIPPED, text_of


@pytest.mark.slow
@pytest.mark.skipif(
    not posture.CHECKOV.is_file(), reason="uv sync --project k8s/checkov installs it, apart from the project"
)
def test_checkov_finds_nothing_but_a_fault(tmp_path):
    faulty = text_of("local").replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", 1)
    found = posture.check_posture({**{overlay: text_of(overlay) for overlay in SHIPPED}, "faulty": faulty})
    assert {overlay: [str(finding) for finding in found[overlay]] for overlay in SHIPPED} == {o: [] for o in SHIPPED}
    assert [finding.rule for finding in found["faulty"]] == ["CKV_K8S_22"]


def test_an_absent_checkov_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(posture, "CHECKOV", tmp_path / "absent")
    with pytest.raises(UserError, match="uv sync --project k8s/checkov"):
        posture.check_posture({"local": "a: 1"})


def test_every_exception_has_its_reason():
    text = posture.CONFIG.read_text()
    assert yaml.safe_load(text)["skip-check"] == ["CKV_K8S_11", "CKV_K8S_15", "CKV_K8S_43"]
    lines = [line for line in text.splitlines() if "- CKV_" in line]
    assert all(len(line.partition("#")[2]) > 40 for line in lines)
    assert not any("checkov:skip" in path.read_text() for path in TREE.rglob("*.yaml") if ".venv" not in path.parts)
