"""A Pod of a rendered Job as processes on this machine: its files, its environment, its commands.

A folder stands for the image's ``/app`` (the project's own files), with the volumes put where the manifest mounts
them: claims are folders that all Pods share, config maps are written out, an ``emptyDir`` is the Pod's own. Paths
outside ``/app`` are rewritten in environment and arguments. The names of Pods become the loopback address, their ports
free ones. Nothing is isolated: users, read-only file systems, limits and the network policy are the cluster's.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from runs.errors import UserError
from runs.paths import PROJECT_ROOT

Document = dict[str, Any]

APP = PurePosixPath("/app")
LEFT_OUT = {".git", ".venv", "tests", "results", "node_modules", "__pycache__", "work", "shared"}
REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced as Kubernetes does: ``$$`` is a dollar, an unknown name stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return REFERENCE.sub(value, text)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Ground:
    """What all Pods of a Job share: the folder, the rendered objects, the ports of the Job's own names."""

    folder: Path
    documents: Sequence[Document]
    job: Document
    project: Path = PROJECT_ROOT
    ports: dict[int, int] = field(default_factory=dict)
    """Port in the manifest → port here, for those that Pods reach each other by."""
    image: dict[str, object] = field(default_factory=dict)
    """What stood under ``/app`` before the first Pod began."""

    @property
    def name(self) -> str:
        """The Job's name."""
        return str(self.job["metadata"]["name"])

    @property
    def template(self) -> Document:
        """The Pods' template."""
        template: Document = self.job["spec"]["template"]
        return template

    @property
    def app(self) -> Path:
        """What stands for ``/app`` in every Pod of the Job."""
        return self.folder / "jobs" / self.name / "app"

    def named(self, kind: str, name: str) -> Document | None:
        """A rendered object, or None."""
        found = (d for d in self.documents if d["kind"] == kind and d["metadata"]["name"] == name)
        return next(found, None)

    def prepare(self) -> None:
        """Link the project's files and put the volumes in place.

        Raises:
            UserError: the manifests name a config map that they do not hold.
        """
        shutil.rmtree(self.app, ignore_errors=True)
        self.app.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            self.project,
            self.app,
            copy_function=_link,
            ignore=lambda _, names: {name for name in names if name in LEFT_OUT or name.startswith(".")},
            symlinks=True,
        )
        for container in _containers(self.template):
            for mount in container.get("volumeMounts") or []:
                path = PurePosixPath(mount["mountPath"])
                if path.is_relative_to(APP):
                    self._mount(self.app / path.relative_to(APP), mount)
        self.image = _marks(self.app)

    def changed(self) -> list[str]:
        """Paths under ``/app`` that Pods made, changed or took away outside their volumes, a mount point among them.

        Nothing here keeps them from it; in a cluster the root file system is read-only and a mount point is busy.
        """
        now = _marks(self.app)
        return sorted(path for path in {*now, *self.image} if now.get(path) != self.image.get(path))

    def _mount(self, place: Path, mount: Document) -> None:
        source = self.source(mount, self.folder)
        if source is None or place.is_symlink():
            return
        if place.is_dir():
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)

    def source(self, mount: Document, own: Path) -> Path | None:
        """The folder behind a mount, made; ``own`` is where the Pod's own volumes are. None: an absent Secret.

        Raises:
            UserError: it names a config map or claim that is not among the rendered objects.
        """
        volume = next(v for v in self.template["spec"].get("volumes") or [] if v["name"] == mount["name"])
        folder: Path
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            folder = self.folder / "volumes" / claim / mount.get("subPath", "")
        elif "configMap" in volume:
            folder = self._config_map(volume["configMap"])
        elif "secret" in volume:
            return None
        else:
            folder = own / "volumes" / volume["name"] / mount.get("subPath", "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _config_map(self, volume: Document) -> Path:
        document = self.named("ConfigMap", volume["name"])
        if document is None:
            raise UserError(f"Job '{self.name}' mounts the ConfigMap '{volume['name']}', which is not rendered.")
        folder = self.folder / "configmaps" / str(volume["name"])
        folder.mkdir(parents=True, exist_ok=True)
        for key, text in (document.get("data") or {}).items():
            (folder / key).write_text(text, encoding="utf-8")
        return folder


@dataclass
class Pod:
    """One Pod: its index, its attempt, and its own folder."""

    ground: Ground
    index: int
    attempt: int

    @property
    def name(self) -> str:
        """As the Job controller names it, but for the random letters."""
        return f"{self.ground.name}-{self.index}-{self.attempt}"

    @property
    def folder(self) -> Path:
        """Its emptyDirs and logs."""
        return self.ground.folder / "pods" / self.name

    def command(self, container: Document) -> tuple[list[str], dict[str, str], Path]:
        """What to execute: arguments, environment, working directory."""
        values = self._environment(container)
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        arguments = [self._here(expand(word, values), container) for word in words]
        environment = {key: self._here(value, container) for key, value in values.items()}
        tools = Path(sys.executable).parent
        environment |= {
            "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(self.ground.app),
            "PYTHONDONTWRITEBYTECODE": "1",  # the image's own
            "TMPDIR": self._here("/tmp", container),  # noqa: S108 (the Pod's)
        }
        environment |= {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        directory = PurePosixPath(container.get("workingDir") or APP)
        return arguments, environment, self.ground.app / directory.relative_to(APP)

    def _environment(self, container: Document) -> dict[str, str]:
        """The container's variables, in Kubernetes' order: config maps, then the list, each knowing those before it."""
        values: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            document = self.ground.named("ConfigMap", (source.get("configMapRef") or {}).get("name", ""))
            values |= {key: str(value) for key, value in ((document or {}).get("data") or {}).items()}
        for entry in container.get("env") or []:
            if "valueFrom" in entry:
                found = self._field((entry["valueFrom"].get("fieldRef") or {}).get("fieldPath", ""))
                if found is not None:
                    values[entry["name"]] = found
            else:
                values[entry["name"]] = expand(str(entry.get("value", "")), values)
        if self.ground.job["spec"].get("completionMode") == "Indexed":
            values["JOB_COMPLETION_INDEX"] = str(self.index)
        return values

    def _field(self, path: str) -> str | None:
        """The downward API: what the Job controller and the kubelet would write."""
        metadata = self.ground.template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), "batch.kubernetes.io/job-name": self.ground.name}
        annotations = {**(metadata.get("annotations") or {}), INDEX_ANNOTATION: str(self.index)}
        known = {
            "metadata.name": self.name,
            "metadata.namespace": str(self.ground.job["metadata"].get("namespace", "default")),
            "status.podIP": "127.0.0.1",
            **{f"metadata.labels['{key}']": value for key, value in labels.items()},
            **{f"metadata.annotations['{key}']": value for key, value in annotations.items()},
        }
        return known.get(path)

    def _here(self, text: str, container: Document) -> str:
        """``text`` with the Pod's names, ports and paths as they are on this machine."""
        service = self.ground.template["spec"].get("subdomain")
        if service:
            text = re.sub(rf"{re.escape(self.ground.name)}-\d+\.{re.escape(service)}[.\w-]*", "127.0.0.1", text)
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (the Pod's)
        for port, here in self._ports(container).items():
            text = re.sub(rf"(?:(?<=[:=])|^){port}$", str(here), text)
        places = {}
        for mount in container.get("volumeMounts") or []:
            path = PurePosixPath(mount["mountPath"])
            if not path.is_relative_to(APP):
                places[str(path)] = self.ground.source(mount, self.folder) or self.folder / "absent"
        if not places:
            return text
        # In one pass: a folder of this machine may begin like one of the Pod's.
        paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        return re.sub(rf"(^|=)({paths})(?=/|$)", lambda found: f"{found[1]}{places[found[2]]}", text)

    def _ports(self, container: Document) -> dict[int, int]:
        own = self.__dict__.setdefault("_own_ports", {})
        for entry in container.get("ports") or []:
            port = int(entry["containerPort"])
            if entry.get("name") == "coordinator":
                self.ground.ports.setdefault(port, free_port())
            elif port not in own:
                own[port] = free_port()
        return {**own, **self.ground.ports}


PASSED_ON = ("LANG", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "CAI_DATA", "CUDA_VISIBLE_DEVICES")
"""Variables of this machine that processes keep: they say nothing about the run."""


def _containers(template: Document) -> list[Document]:
    spec = template["spec"]
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def _marks(folder: Path) -> dict[str, object]:
    """Relative path → what changes when somebody writes there; links, which volumes are, are not entered."""
    found: dict[str, object] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            mark: object = "folder"
            if path.is_symlink():
                mark = path.readlink()
            elif name in files:
                mark = (status.st_mtime_ns, status.st_size)
            found[str(path.relative_to(folder))] = mark
    return found


LINKED_BYTES = 2**20
"""Files from this size on (weights) are linked: they are replaced, never written in place."""


def _link(source: str, target: str) -> str:
    """A copy of a small file, a hard link to a large one."""
    if os.path.getsize(source) >= LINKED_BYTES:  # noqa: PTH202 (shutil gives strings)
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # another file system
            shutil.copy2(source, target, follow_symlinks=False)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
