"""The images, without an engine to build them: hadolint, and the same uv commands in a fresh folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.checks.tree import Tree
from runs.paths import PROJECT_ROOT
from tests.launch.overlays import SHIPPED, documents

FOLDER = PROJECT_ROOT / "docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
UV = shutil.which("uv")


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile as (instruction, arguments), continued lines joined."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def context() -> list[Path]:
    """The tracked and new files that .dockerignore lets through to the builder, relative to the project."""
    allowed = [line[1:] for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *allowed],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines() if (PROJECT_ROOT / line).is_file()]


def test_three_images():
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile", "tpu.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--failure-threshold", "style", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_is_staged_labelled_and_not_root(path):
    found = instructions(path)
    assert sum(name == "FROM" for name, _ in found) == 2
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    final = dict(found[last:])
    assert final["USER"] == "10001:10001"
    assert "pip" not in str(found[last:])
    assert all(
        f"org.opencontainers.image.{key}=" in final["LABEL"] for key in ("title", "licenses", "version", "revision")
    )
    assert json.loads(final["CMD"])[-1] == "--help"
    assert any("UV_NO_CACHE=1" in text for name, text in found if name == "ENV")
    syncs = [text for name, text in found if name == "RUN" and "uv sync" in text]
    assert len(syncs) == 2
    assert all("--locked" in text and "--no-dev" in text for text in syncs)


def test_the_user_is_the_one_of_the_manifests():
    for overlay in SHIPPED:
        for workload in Tree(documents(overlay)).workloads:
            assert workload.pod["securityContext"]["runAsUser"] == 10001


def test_the_context_holds_what_the_image_runs_and_nothing_else():
    top = {path.parts[0] for path in context()}
    assert {"pyproject.toml", "uv.lock", "launch", "runs", "configs", "artifacts"} <= top
    assert not top & {"tests", "docs", "results", ".git", "k8s", "docker"}
    packages = re.search(r"wheel\]\npackages = (\[.*\])", (PROJECT_ROOT / "pyproject.toml").read_text())
    assert packages is not None
    assert set(json.loads(packages[1])) <= top


@pytest.mark.skipif(UV is None, reason="uv is not on the PATH")
@pytest.mark.parametrize(("name", "library"), [("cuda", "jax-cuda13-plugin"), ("tpu", "libtpu")])
def test_the_lock_has_the_accelerators_libraries(name, library, tmp_path):
    for file in ("pyproject.toml", "uv.lock"):
        shutil.copy(PROJECT_ROOT / file, tmp_path)
    sync = next(text for _, text in instructions(FOLDER / f"{name}.Dockerfile") if "--no-install-project" in text)
    flags = [word for word in shlex.split(sync)[2:] if word != "--no-install-project"]
    done = subprocess.run(
        [UV, "export", "--offline", "--quiet", "--no-emit-project", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"\n{library}==" in done.stdout
    assert "\npytest==" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(UV is None, reason="uv is not on the PATH")
def test_the_builds_commands_in_a_fresh_folder_give_every_command_that_the_pods_run(tmp_path):
    """What `docker build docker/cpu.Dockerfile` would do, from uv's cache, without a network."""
    app = tmp_path / "app"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "UV_PROJECT", "PYTHON"))}
    environment |= {"UV_OFFLINE": "1", "UV_PYTHON": sys.executable, "UV_LINK_MODE": "hardlink"}
    app.mkdir()
    copied = False
    for name, text in instructions(FOLDER / "cpu.Dockerfile"):
        if (name, text) == ("COPY", "pyproject.toml uv.lock ./"):
            for file in text.split()[:-1]:
                shutil.copy(PROJECT_ROOT / file, app)
        elif (name, text) == ("COPY", ". ."):
            for path in context():
                (app / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT_ROOT / path, app / path)
            copied = True
        elif name == "RUN" and text.startswith("uv sync"):
            words = [UV, *shlex.split(text)[1:]]
            done = subprocess.run(words, cwd=app, env=environment, capture_output=True, text=True)
            if done.returncode and not copied and "offline" in done.stderr.lower():
                pytest.skip("uv's cache does not hold every wheel of the lock")
            assert done.returncode == 0, done.stderr
        elif name == "CMD":
            command = json.loads(text)
    path = f"{app}/.venv/bin:/usr/bin:/bin"
    plain = {"PATH": path, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [f"{app}/.venv/bin/{command[0]}", *command[1:]], cwd=app, env=plain, capture_output=True, text=True
    )
    assert (done.returncode, "Usage" in done.stdout) == (0, True), done.stderr
    wanted = {tuple(c["command"]) for w in Tree(documents("local")).workloads for c in w.all_containers}
    for words in sorted(wanted):
        executable = app / ".venv" / "bin" / words[0]
        assert executable.is_file(), words
        done = subprocess.run([executable, *words[1:], "--help"], cwd=app, env=plain, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
    where = subprocess.run(
        [app / ".venv/bin/python", "-c", "import runs.paths as p; print(p.PROJECT_ROOT)"],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(app)
