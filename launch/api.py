"""The cluster, through the official client: what is written is checked by its strict models, what is read is not.

A server may be newer than the client and add fields; a status that cannot be read for that reason helps nobody. So
answers are taken as JSON. Every way in which a call fails becomes an error that says what to do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.watch.watch import iter_resp_lines
from pydantic import ValidationError

from runs.errors import UsageError, UserError, unknown_name

Document = dict[str, Any]
PART_OF = "app.kubernetes.io/part-of=constitutional-ai"
CONNECT_S, READ_S = 5.0, 30.0
WATCH_S = 10
"""How long one watch lasts; after it, the Job's Pods are looked at again."""
STREAM_SILENCE_S = 300.0
"""A log stream that is silent for so long is opened again where it was: a dead connection is silent too."""
PATIENCE_S = 120.0
"""How long a cluster that cannot be reached is tried again while something is followed."""


class Gone(UserError):
    """The object is not there (any more)."""


class NotYet(UserError):
    """The container has not started; why, in the cluster's words."""


class Exists(UserError):
    """An object of this name is there already."""


class Unreachable(UserError):
    """The cluster does not answer, or is too busy to; it may do so later."""


class Refused(UserError):
    """The cluster refuses: permissions, quota, an invalid object."""


class Api:
    """One namespace of a cluster."""

    def __init__(self, api_client: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._host = api_client.configuration.host
        self.batch, self.core = client.BatchV1Api(api_client), client.CoreV1Api(api_client)

    @classmethod
    def connect(cls, namespace: str, *, context: str | None = None, kubeconfig: str | None = None) -> Api:
        """The cluster that kubectl would use, or that this Pod runs in.

        Raises:
            UsageError: there is no kubeconfig, it is not valid, or has no such context.
        """
        settings = client.Configuration()
        try:
            config.load_kube_config(kubeconfig, context, client_configuration=settings)
        except config.ConfigException as error:
            if context is not None:
                raise _unknown_context(context, kubeconfig, error) from error
            try:
                config.load_incluster_config(client_configuration=settings)
            except config.ConfigException:
                raise UsageError(
                    "No cluster is configured.",
                    why=str(error),
                    mend="For GKE: gcloud container clusters get-credentials NAME (docs/kubernetes.md).",
                ) from error
        settings.retries = urllib3.Retry(1)
        return cls(client.ApiClient(settings), namespace)

    # Jobs and Pods

    def create(self, document: Document) -> Document:
        """Create an object of one of `KINDS`, checked by the client's strict model.

        Raises:
            UserError: the model or the cluster refuses it. `Exists`: one of this name is there.
        """
        kind, name = document["kind"], document["metadata"]["name"]
        model, method = KINDS[kind]
        try:
            body = model.model_validate({**document, "metadata": {**document["metadata"], "namespace": self.namespace}})
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise UsageError(f"The rendered {kind} '{name}' is not valid.", why=f"{where}: {fault['msg']}") from error
        api = self.batch if kind == "Job" else self.core
        return self._call(f"create {kind} '{name}'", getattr(api, method), body=body, field_validation="Strict")

    def jobs(self, selector: str = PART_OF) -> list[Document]:
        """The project's Jobs."""
        items: list[Document] = self._call("list Jobs", self.batch.list_namespaced_job, label_selector=selector)[
            "items"
        ]
        return items

    def job(self, name: str) -> Document:
        """A Job. Raises `UsageError` with the nearest name where there is none."""
        try:
            return self._call(f"read Job '{name}'", self.batch.read_namespaced_job, name=name)
        except Gone:
            known = [job["metadata"]["name"] for job in self.jobs()]
            raise unknown_name(f"Job in namespace {self.namespace}", name, known) from None

    def delete_job(self, name: str) -> None:
        """Delete a Job and its Pods; returns while the cluster does it."""
        call = self.batch.delete_namespaced_job
        self._call(f"delete Job '{name}'", call, name=name, propagation_policy="Foreground")

    def pods(self, job: str) -> list[Document]:
        """A Job's Pods, the oldest first."""
        selector = f"batch.kubernetes.io/job-name={job}"
        found = self._call(f"list Pods of '{job}'", self.core.list_namespaced_pod, label_selector=selector)["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def pod(self, name: str) -> Document:
        """A Pod. Raises `Gone` where it is not there."""
        return self._call(f"read Pod '{name}'", self.core.read_namespaced_pod, name=name)

    def warnings(self, job: str) -> list[str]:
        """The cluster's warnings about a Job (its quota, say), the latest last; none where they may not be read."""
        selector = f"involvedObject.name={job},type=Warning"
        try:
            found = self._call("list events", self.core.list_namespaced_event, field_selector=selector)["items"]
        except Refused:
            return []
        found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return [str(event.get("message", "")) for event in found]

    # Streams

    def follow(self, name: str) -> Iterator[Document | None]:
        """A Job now, after every change, and at least every `WATCH_S` seconds; None once it is deleted.

        A watch that the server drops is opened again at the last version; one whose version is too old (410) begins
        with a new read. A cluster that cannot be reached is tried again for `PATIENCE_S`.

        Raises:
            UserError: no such Job, or the cluster refuses or stays away.
        """
        job, lost = self.job(name), 0.0
        version = job["metadata"].get("resourceVersion")
        while True:
            yield job
            try:
                if version is None:
                    job = self.job(name)
                    version = job["metadata"].get("resourceVersion")
                    continue
                for event in self._watch(name, version):
                    found = event["object"]
                    if event["type"] == "ERROR":
                        version = None  # 410 Gone, or another reason to read anew
                        break
                    version = found["metadata"].get("resourceVersion")
                    if event["type"] == "DELETED":
                        yield None
                        return
                    if event["type"] != "BOOKMARK":
                        job = found
                        yield job
                lost = 0.0
            except (Unreachable, Gone) as error:
                lost = lost or time.monotonic()
                if isinstance(error, Unreachable) and time.monotonic() - lost > PATIENCE_S:
                    raise
                version = None
                time.sleep(min(1.0 + time.monotonic() - lost, 10.0))

    def _watch(self, name: str, version: str) -> Iterator[Document]:
        with self._stream(
            f"watch Job '{name}'",
            self.batch.list_namespaced_job,
            read=WATCH_S + READ_S,
            field_selector=f"metadata.name={name}",
            resource_version=version,
            watch=True,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
        ) as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)

    def log(self, pod: str, container: str, *, follow: bool, tail: int | None, since: int | None) -> Iterator[str]:
        """Lines of a container's log, each with its time in front, as long as the stream lasts.

        Raises:
            NotYet: the container has not started.
            Gone: the Pod is not there.
            UserError: the cluster refuses.
        """
        options: dict[str, Any] = {"tail_lines": tail, "since_seconds": since}
        with self._stream(
            f"read the log of '{pod}'",
            self.core.read_namespaced_pod_log,
            read=STREAM_SILENCE_S,
            name=pod,
            container=container,
            follow=follow,
            timestamps=True,
            **{key: value for key, value in options.items() if value is not None},
        ) as lines:
            yield from lines

    # Calls

    def _call(self, doing: str, method: Callable[..., Any], **named: Any) -> Document:
        with self._explained(doing):
            response = method(
                namespace=self.namespace, _preload_content=False, _request_timeout=(CONNECT_S, READ_S), **named
            )
            _check(response)
            answer: Document = json.loads(response.data)
            return answer

    @contextmanager
    def _stream(self, doing: str, method: Callable[..., Any], *, read: float, **named: Any) -> Iterator[Iterator[str]]:
        with self._explained(doing):
            response = method(
                namespace=self.namespace, _preload_content=False, _request_timeout=(CONNECT_S, read), **named
            )
            _check(response)
            try:
                yield iter_resp_lines(response)
            finally:
                response.close()
                response.release_conn()

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise explain(error, doing, self.namespace) from error
        except config.ConfigException as error:
            raise Refused(f"Cannot {doing}: no credentials.", why=str(error), mend=LOGIN) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(
                f"The cluster at {self._host} cannot be reached.",
                why=f"Tried to {doing}: {_reason(error)}",
                mend="Check the network or VPN, and that the cluster runs: kubectl cluster-info",
            ) from error


LOGIN = "Log in again: gcloud auth login, then gcloud container clusters get-credentials NAME"

KINDS: Mapping[str, tuple[Any, str]] = {
    "Job": (client.V1Job, "create_namespaced_job"),
    "ConfigMap": (client.V1ConfigMap, "create_namespaced_config_map"),
    "PersistentVolumeClaim": (client.V1PersistentVolumeClaim, "create_namespaced_persistent_volume_claim"),
    "ServiceAccount": (client.V1ServiceAccount, "create_namespaced_service_account"),
    "Service": (client.V1Service, "create_namespaced_service"),
}
"""What the launcher creates: the strict model and the method."""


def explain(error: ApiException, doing: str, namespace: str) -> UserError:
    """What the API server's refusal means, and what to do about it."""
    status, why = _status(error), _message(error)
    if error.status == 401:
        return Refused(f"Cannot {doing}: the credentials are not valid (any more).", why=why, mend=LOGIN)
    if error.status == 403 and "exceeded quota" in why:
        mend = "Delete finished Jobs (launch list, launch delete), ask for less, or have the quota raised."
        return Refused(f"Cannot {doing}: the namespace's quota refuses it.", why=why, mend=mend)
    if error.status == 403:
        mend = "Ask for the role 'launcher' of k8s/base/rbac.yaml in this namespace."
        return Refused(f"Cannot {doing}: not allowed.", why=why, mend=mend)
    if error.status == 404 and status.get("details", {}).get("kind") == "namespaces":
        mend = "Make it: kubectl apply -k k8s/overlays/OVERLAY, or choose another with --namespace."
        return UsageError(f"There is no namespace '{namespace}'.", why=why, mend=mend)
    if error.status in (404, 410):
        return Gone(f"Cannot {doing}: it is not there.", why=why)
    if error.status == 409:
        return Exists(f"Cannot {doing}: it exists already.", why=why)
    if error.status == 422:
        return Refused(f"Cannot {doing}: the cluster finds it invalid.", why=why)
    if error.status == 400 and "waiting to start" in why:
        return NotYet("The container has not started.", why=why)
    if error.status == 429 or (error.status or 0) >= 500:
        return Unreachable(f"Cannot {doing}: the cluster is too busy or broken ({error.status}).", why=why)
    return Refused(f"Cannot {doing}: the cluster answers {error.status}.", why=why)


def _check(response: Any) -> None:
    """Raise `ApiException` unless the answer is a success."""
    if not 200 <= response.status <= 299:
        raise ApiException(http_resp=response)


def _status(error: ApiException) -> Document:
    """The ``Status`` object in an error's body; empty where it holds none."""
    try:
        found = json.loads(error.body or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(error: ApiException) -> str:
    return str(_status(error).get("message") or error.body or error.reason or "").strip()


def _reason(error: Exception) -> str:
    """The innermost cause of a transport error, without Python's decorations."""
    cause: Any = getattr(error, "reason", None) or error
    return str(cause).rpartition(": ")[2] or type(error).__name__


def _unknown_context(context: str, kubeconfig: str | None, error: Exception) -> UsageError:
    try:
        contexts, _ = config.list_kube_config_contexts(kubeconfig)
    except config.ConfigException:
        return UsageError("No cluster is configured.", why=str(error), mend="Check --kubeconfig.")
    return unknown_name("context", context, [entry["name"] for entry in contexts])
