"""A stand-in for an API server: real HTTP on loopback, with the paths that the launcher uses, and faults on demand.

It stores what is created, streams watches and logs in chunks, and answers as a cluster does when things go wrong. It
decides nothing: Jobs and Pods change when a test says so.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import defaultdict
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces/(?P<ns>[^/]+)/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?$"
)


def failure(code: int, reason: str, message: str, **details: str) -> tuple[int, dict[str, Any]]:
    """An answer as the API server words it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return code, {**body, "message": message, "details": details}


class Double:
    """The cluster: its objects by kind and name, and the faults that are to come."""

    def __init__(self, namespace: str = "constitutional-ai") -> None:
        self.namespace = namespace
        self.objects: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.faults: list[tuple[str, str, tuple[int, dict[str, Any]]]] = []
        """Method, part of the path, and the answer: each is used once, in order."""
        self.always: list[tuple[str, str, tuple[int, dict[str, Any]]]] = []
        self.logs: dict[str, list[list[Any]]] = {}
        """Pod → one list of chunks a stream; a number waits so many seconds, an Exception cuts the connection."""
        self.requests: list[tuple[str, str]] = []
        self.events: list[dict[str, Any]] = []
        self.version = 100
        self.cut_watches = 0
        self.changed = threading.Condition()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def kubeconfig(self, path: Any) -> str:
        """A kubeconfig that names this server."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "double",
                    "clusters": [{"name": "double", "cluster": {"server": self.url}}],
                    "users": [{"name": "double", "user": {"token": "a-token"}}],
                    "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
                }
            )
        )
        return str(path)

    def put(self, kind: str, document: dict[str, Any], event: str = "MODIFIED") -> None:
        """Store an object and tell the watchers."""
        with self.changed:
            self.version += 1
            document.setdefault("metadata", {})["resourceVersion"] = str(self.version)
            self.objects[kind][document["metadata"]["name"]] = document
            if kind == "jobs":
                self.events.append({"type": event, "object": json.loads(json.dumps(document))})
            self.changed.notify_all()

    def job(self, name: str, *, labels: dict[str, str] | None = None, **status: Any) -> None:
        """A Job with this status."""
        old = self.objects["jobs"].get(name, {"spec": {"completions": 2}, "metadata": {"name": name}})
        labels = {"app.kubernetes.io/part-of": "constitutional-ai", **(labels or {})}
        metadata = {**old["metadata"], "labels": labels, "creationTimestamp": "2024-01-01T00:00:00Z"}
        self.put("jobs", {**old, "kind": "Job", "metadata": metadata, "status": status})

    def pod(self, name: str, job: str, index: int = 0, **status: Any) -> None:
        """A Pod of a Job with this status."""
        metadata = {
            "name": name,
            "labels": {"batch.kubernetes.io/job-name": job},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "creationTimestamp": f"2024-01-01T00:00:{len(self.objects['pods']):02}Z",
        }
        self.put("pods", {"kind": "Pod", "metadata": metadata, "spec": {}, "status": status})

    def drop_watches(self) -> None:
        """Cut every open watch in the middle of a line."""
        with self.changed:
            self.cut_watches += 1
            self.changed.notify_all()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _handler(double: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            double.requests.append((method, self.path))
            with suppress(BrokenPipeError, ConnectionResetError):
                self._answer(method, body)

        def _answer(self, method: str, body: Any) -> None:
            for faults, once in ((double.faults, True), (double.always, False)):
                for fault in faults:
                    if fault[0] == method and fault[1] in self.path:
                        if once:
                            faults.remove(fault)
                        return self._json(*fault[2])
            parts = urlsplit(self.path)
            match = PATH.match(parts.path)
            assert match is not None, self.path
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            kind, name = match["kind"], match["name"]
            if match["ns"] != double.namespace:
                if method == "POST":
                    missing = f'namespaces "{match["ns"]}" not found'
                    return self._json(*failure(404, "NotFound", missing, name=match["ns"], kind="namespaces"))
                return self._json(200, {"items": []}) if not name else self._missing(kind, name)
            if match["log"]:
                return self._log(name, query)
            if method == "POST":
                return self._create(kind, body)
            if method == "DELETE":
                return self._delete(kind, name)
            if name:
                found = double.objects[kind].get(name)
                return self._json(200, found) if found else self._missing(kind, name)
            if query.get("watch") == "true":
                return self._watch(query)
            return self._json(200, {"items": self._selected(kind, query), "metadata": {"resourceVersion": "1"}})

        def _selected(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
            found = list(double.objects[kind].values())
            for term in filter(None, query.get("labelSelector", "").split(",")):
                key, _, value = term.partition("=")
                found = [o for o in found if (o["metadata"].get("labels") or {}).get(key) == value]
            return found

        def _create(self, kind: str, body: dict[str, Any]) -> None:
            name = body["metadata"]["name"]
            if name in double.objects[kind]:
                return self._json(*failure(409, "AlreadyExists", f'{kind} "{name}" already exists'))
            double.put(kind, body, "ADDED")
            return self._json(201, body)

        def _delete(self, kind: str, name: str) -> None:
            found = double.objects[kind].pop(name, None)
            if found is None:
                return self._missing(kind, name)
            with double.changed:
                double.version += 1
                found["metadata"]["resourceVersion"] = str(double.version)
                double.events.append({"type": "DELETED", "object": found})
                double.changed.notify_all()
            return self._json(200, {"kind": "Status", "status": "Success"})

        def _watch(self, query: dict[str, str]) -> None:
            since, cuts = int(query.get("resourceVersion", "0")), double.cut_watches
            name = query.get("fieldSelector", "").partition("=")[2]
            self._start_chunks()
            end, sent = time.monotonic() + min(float(query.get("timeoutSeconds", "10")), 1.0), 0
            while time.monotonic() < end:
                with double.changed:
                    events = list(double.events[sent:])
                    sent += len(events)
                    if double.cut_watches > cuts:
                        self._chunk(b'{"type": "MODI')
                        return self._cut()
                    if not events:
                        double.changed.wait(0.05)
                        continue
                for event in events:
                    found = event["object"]["metadata"]
                    if event["type"] == "ERROR" or (found["name"] == name and int(found["resourceVersion"]) > since):
                        self._chunk(json.dumps(event).encode() + b"\n")
                        if event["type"] == "ERROR":
                            double.events.remove(event)
                            sent -= 1
            return self._end_chunks()

        def _log(self, pod: str, query: dict[str, str]) -> None:
            if pod not in double.logs and pod not in double.objects["pods"]:
                return self._missing("pods", pod)
            streams = double.logs.get(pod) or []
            if not streams:
                waiting = f'container "main" in pod "{pod}" is waiting to start: ContainerCreating'
                return self._json(*failure(400, "BadRequest", waiting))
            stream = streams.pop(0) if len(streams) > 1 else streams[0]
            self._start_chunks()
            for chunk in stream:
                if isinstance(chunk, int | float):
                    time.sleep(chunk)
                elif isinstance(chunk, Exception):
                    return self._cut()
                elif callable(chunk):
                    chunk()
                else:
                    self._chunk(chunk.encode())
            return self._end_chunks()

        def _missing(self, kind: str, name: str) -> None:
            self._json(*failure(404, "NotFound", f'{kind} "{name}" not found', name=name, kind=kind))

        def _json(self, code: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _start_chunks(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def _end_chunks(self) -> None:
            self.wfile.write(b"0\r\n\r\n")

        def _cut(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
