from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from critique_revision import cli
from runs.paths import PROJECT_ROOT
from tests.critique_revision import recipe_driver


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["critique-revision", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, captured.out, " ".join(captured.err.replace("│", " ").split())


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("critique_revision.roles.open_engines", lambda *_, **__: recipe_driver.engines())


@pytest.mark.usefixtures("scripted")
def test_generate_filter_export_stats(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    code, out, _ = call(capsys, monkeypatch, "generate", "--config", recipe, "--limit", 9, "--json")
    assert code == 0
    assert json.loads(out)["counts"]["answers"]["calls"] == 9
    code, out, _ = call(capsys, monkeypatch, "filter", run, "--set", "filters.min_words=3", "--json")
    assert code == 0
    assert json.loads(out)["pairs"] == 9
    assert json.loads(out)["settings"]["min_words"] == 3
    code, out, _ = call(capsys, monkeypatch, "export", "--config", recipe, "--formats", "dpo", "sft", "--json")
    assert code == 0
    assert set(json.loads(out)) == {"dpo", "sft"}
    assert (run / "export" / "dpo" / "manifest.json").is_file()
    code, out, _ = call(capsys, monkeypatch, "stats", run)
    assert code == 0
    assert "Revisions by principle" in out


@pytest.mark.usefixtures("scripted")
def test_another_run_is_refused_and_no_resume_starts_over(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(capsys, monkeypatch, "generate", "--config", recipe, "--quiet")[0] == 0
    code, _, err = call(capsys, monkeypatch, "generate", "--config", recipe, "--seed", 1, "--quiet")
    assert code == 2
    assert "seed (0 there, 1 now)" in err
    code, _, _ = call(capsys, monkeypatch, "generate", "--config", recipe, "--seed", 1, "--no-resume", "--quiet")
    assert code == 0


def test_dry_run_writes_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "generate", "--config", recipe, "--dry-run", "--json")
    assert (code, json.loads(out)["calls"]) == (0, 14 * 5)
    assert not (tmp_path / "run").exists()


def test_faults_of_the_command_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = call(capsys, monkeypatch, "generate")
    assert (code, "No config was named" in err) == (2, True)
    code, _, err = call(capsys, monkeypatch, "generate", "--config", recipe, "--set", "batchsize=3")
    assert (code, "did you mean 'batch_size'" in err) == (2, True)
    code, _, err = call(capsys, monkeypatch, "filter", tmp_path / "nothing")
    assert (code, "holds no critique-revision run" in err) == (1, True)
    recipe_driver.run(recipe, tmp_path / "run")
    code, _, err = call(capsys, monkeypatch, "filter", tmp_path / "run", "--set", "seed=3")
    assert (code, "only filters.*" in err) == (2, True)
    call(capsys, monkeypatch, "filter", tmp_path / "run")
    code, _, err = call(capsys, monkeypatch, "export", tmp_path / "run", "--formats", "dpoo")
    assert (code, "Did you mean 'dpo'" in err) == (2, True)


def test_help_is_quick() -> None:
    heavy = "{'torch', 'transformers', 'pydantic'}"
    program = f"import sys; from critique_revision import cli; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT, check=True)
