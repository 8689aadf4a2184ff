"""The command line: `launch {render,submit,status,logs,list,delete,run}`. Manifests are the kustomize tree's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from runs.cli import make_app, run_app
from runs.console import Reporter, plain
from runs.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from launch.api import Api
    from launch.state import State

app = make_app("Run the chain on Kubernetes: render the kustomize tree, submit its Jobs, and follow them.")
NAMESPACE = "constitutional-ai"

OverlayArgument = Annotated[str, typer.Argument(help="A name under k8s/overlays, or a folder with a kustomization.")]
NameArgument = Annotated[str, typer.Argument(metavar="JOB", help="The Job's name in the cluster (launch list).")]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help=f"Default: {NAMESPACE}.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="A context of the kubeconfig.")]
KubeconfigOption = Annotated[Path | None, typer.Option("--kubeconfig", help="Default: what kubectl would read.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]


@app.command()
def render(
    overlay: OverlayArgument,
    job: Annotated[str | None, typer.Option("--job", help="Only this Job and what it needs.")] = None,
) -> None:
    """Print an overlay's manifests: what `kubectl apply -k` would send."""
    from launch.render import render as rendered
    from launch.render import render_text
    from launch.submit import choose, needed

    if job is None:
        sys.stdout.write(render_text(overlay))
        return
    documents = rendered(overlay)
    chosen = choose(documents, job)
    _print_yaml([*needed(documents, chosen), chosen])


@app.command()
def submit(
    overlay: OverlayArgument,
    job: Annotated[str, typer.Argument(help="One of the overlay's Jobs: classifier, sft, dpo, evaluate …")],
    name: Annotated[str | None, typer.Option("--name", help="The Job's name; default: a new one each time.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Delete a Job of that --name first.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the YAML that would be sent, and stop.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Create a Job under a name of its own, with the config maps that it needs, and follow it.

    Ctrl-C stops the following; the Job goes on.
    """
    from launch.render import render as rendered
    from launch.submit import choose, create, needed, prepare, provide

    if replace and name is None:
        raise UsageError("--replace needs --name: without one, every Job gets a new name.")
    documents = rendered(overlay)
    chosen = choose(documents, job)
    made = prepare(chosen, name=name)
    supplies = needed(documents, chosen)
    if dry_run:
        _print_yaml([*supplies, made])
        return int(ExitCode.DONE)
    reporter = Reporter(json_output=json_output, quiet=quiet)
    where = namespace or chosen["metadata"].get("namespace") or NAMESPACE
    api = _connect(where, context, kubeconfig)
    called = str(made["metadata"]["name"])
    provided = provide(api, supplies, reporter.warn)
    if provided:
        reporter.say(f"[dim]Made {plain(', '.join(provided))}.[/]")
    create(api, made, replace=replace, say=reporter.say)
    reporter.say(f"[green]Submitted[/] {plain(called)} in {plain(where)}.")
    if not wait:
        reporter.result({"job": called, "namespace": where}, [f"Follow it: uv run launch logs -f {plain(called)}"])
        return int(ExitCode.DONE)
    state = _watched(api, called, reporter)
    reporter.result({"job": called, "namespace": where, **_fields(state)}, [plain(state.line)])
    return int(ExitCode.DONE if state.phase == "complete" else ExitCode.ERROR)


@app.command()
def status(
    name: NameArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """How a Job stands, in one line (an image that cannot be pulled, a quota, a wrong config), and its Pods."""
    from launch.state import pod_row, read

    reporter = Reporter(json_output=json_output, quiet=quiet)
    api = _connect(namespace or NAMESPACE, context, kubeconfig)
    if wait:
        _watched(api, name, reporter)
    job, pods = api.job(name), api.pods(name)
    state = read(job, pods, api.warnings(name))
    rows = [pod_row(pod) for pod in pods]
    if rows and not quiet:
        reporter.table("Pods", ["Pod", "index", "phase", "node", ""], rows)
    reporter.result({**_fields(state), "pods": rows}, [plain(state.line)])
    return int(ExitCode.ERROR if state.phase == "failed" else ExitCode.DONE)


@app.command()
def logs(
    name: NameArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the Job has ended.")] = False,
    index: Annotated[str | None, typer.Option("--index", help="Only the Pods of this completion index.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", min=1, help="Only the last N lines of each Pod.")] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> int:
    """The logs of a Job's Pods, each line with its completion index. Ctrl-C stops reading; the Job goes on."""
    from launch.follow import job_lines

    reporter = Reporter(json_output=True)  # the log is the result; all else goes to stderr
    api = _connect(namespace or NAMESPACE, context, kubeconfig)
    said = lambda text: reporter.say(f"[dim]{plain(text)}[/]")  # noqa: E731
    try:
        for number, line in job_lines(api, name, follow=follow, index=index, tail=tail, say=said):
            sys.stdout.write(f"[{number}] {line}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _left_running(name, reporter)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    return int(ExitCode.DONE)


@app.command()
def run(
    overlay: OverlayArgument,
    job: Annotated[str, typer.Argument(help="One of the overlay's Jobs.")],
    root: Annotated[Path, typer.Option("--root", help="Folder of volumes and logs; Jobs that share it go on there.")],
    timeout: Annotated[float, typer.Option("--timeout", min=1.0, help="Seconds until everything is killed.")] = 86400.0,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Run a Job's real commands here, without a cluster: each Pod as a process on the loopback interface."""
    from launch.render import render as rendered
    from launch.runner import JobRunner

    reporter = Reporter(json_output=json_output, quiet=quiet)
    runner = JobRunner(rendered(overlay), job, root)
    logs = root / "pods"
    reporter.say(f"[dim]{runner.completions} Pod(s), {runner.parallelism} at a time; logs in {plain(logs)}[/]")
    seen = 0
    with reporter.progress(job, runner.completions) as advance:

        def show(running: JobRunner) -> None:
            nonlocal seen
            for attempt in running.attempts[seen:]:
                line = f"index {attempt.index}: {attempt.ending}, exit {attempt.exit_code}, {attempt.seconds:.0f} s"
                reporter.say(f"[dim]{line}[/]")
                advance(int(attempt.ending == "succeeded"))
            seen = len(running.attempts)

        outcome = runner.run(timeout=timeout, on_poll=show)
    ended = [vars(attempt) for attempt in outcome.attempts]
    reporter.result({"job": job, "complete": outcome.complete, "why": outcome.why, "pods": ended}, [plain(outcome.why)])
    return int(ExitCode.DONE if outcome.complete else ExitCode.ERROR)


@app.command("list")
def list_command(
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """The project's Jobs in the namespace, the latest first."""
    from launch.state import read

    reporter = Reporter(json_output=json_output)
    api = _connect(namespace or NAMESPACE, context, kubeconfig)
    found = sorted(api.jobs(), key=lambda job: str(job["metadata"].get("creationTimestamp", "")), reverse=True)
    states = [read(job, api.pods(str(job["metadata"]["name"]))) for job in found]
    rows = [[state.name, state.phase, f"{state.done}/{state.total}", state.detail] for state in states]
    if rows:
        reporter.table("Jobs", ["Job", "phase", "done", ""], rows)
    lines = (
        [] if rows else [f"No Jobs in {plain(namespace or NAMESPACE)}. Submit one: uv run launch submit OVERLAY JOB"]
    )
    reporter.result({"jobs": [_fields(state) for state in states]}, lines)


@app.command()
def delete(
    name: NameArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when its Pods are gone.")] = True,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete a Job and its Pods. They get SIGTERM and save first; results and checkpoints stay on the volume."""
    from launch.submit import remove

    reporter = Reporter(json_output=json_output, quiet=quiet)
    api = _connect(namespace or NAMESPACE, context, kubeconfig)
    api.job(name)
    if wait:
        remove(api, name, reporter.say)
    else:
        api.delete_job(name)
    reporter.result({"deleted": name}, [f"Deleted {plain(name)}. Its results and checkpoints stay on the volume."])


def _connect(namespace: str, context: str | None, kubeconfig: Path | None) -> Api:
    from launch.api import Api

    if kubeconfig is not None and not kubeconfig.is_file():
        raise UsageError(f"--kubeconfig {kubeconfig}: there is no such file.")
    return Api.connect(namespace, context=context, kubeconfig=str(kubeconfig) if kubeconfig else None)


def _watched(api: Api, name: str, reporter: Reporter) -> State:
    """Follow a Job to its end with a bar and a line for every change of state; Ctrl-C leaves it running."""
    from launch.submit import wait

    seen: list[str] = []
    try:
        total = int(api.job(name).get("spec", {}).get("completions") or 1)
        with reporter.progress(name, total) as advance:

            def show(state: State) -> None:
                advance(state.done - sum(map(int, seen[-1:])), note=state.detail)
                seen.append(str(state.done))
                reporter.say(f"[dim]{plain(state.line)}[/]")

            return wait(api, name, show)
    except KeyboardInterrupt:
        sys.exit(_left_running(name, reporter))


def _left_running(name: str, reporter: Reporter) -> int:
    reporter.warn(
        f"Stopped following; the Job '{plain(name)}' goes on in the cluster. "
        f"Look: uv run launch status {plain(name)}. End it: uv run launch delete {plain(name)}"
    )
    return int(ExitCode.INTERRUPTED)


def _fields(state: State) -> dict[str, Any]:
    return {
        "name": state.name,
        "phase": state.phase,
        "done": state.done,
        "total": state.total,
        "detail": state.detail,
        "resumed": state.resumed,
    }


def _print_yaml(documents: list[dict[str, Any]]) -> None:
    sys.stdout.write(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True))


def main() -> None:
    """Entry point of `launch`."""
    run_app(app)


if __name__ == "__main__":
    main()
