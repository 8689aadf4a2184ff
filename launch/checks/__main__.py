"""``python -m launch.checks``: overlays × checks, without a cluster."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from runs.cli import make_app, run_app
from runs.console import Reporter
from runs.errors import ExitCode

app = make_app("Check overlays without a cluster: rendering, strict schemas, the client's models, Go types, rules.")


@app.command()
def check(
    overlays: Annotated[list[str] | None, typer.Argument(help="Names or folders; default: all that ship.")] = None,
    posture: Annotated[bool, typer.Option("--posture", help="Ask checkov too (about 20 s).")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The findings as one JSON object on stdout.")] = False,
) -> int:
    """Print a table of findings; exit with 1 when there is one."""
    from launch.checks.posture import check_posture
    from launch.checks.render import check_render
    from launch.checks.rules import apply
    from launch.checks.schemas import check_all
    from launch.checks.tree import Tree
    from launch.render import overlay_names, render, render_text

    reporter = Reporter(json_output=json_output)
    names = overlays or overlay_names()
    seen = check_posture({overlay: render_text(overlay) for overlay in names}) if posture else {}
    rows, findings, columns, counts = [], [], [], []
    for overlay in names:
        begun = time.monotonic()
        tree = Tree(render(overlay))
        found = {"render": check_render(overlay), **check_all(tree), "rules": apply(tree)}
        found |= {"checkov": seen[overlay]} if posture else {}
        columns = ["overlay", "objects", *found, "s"]
        seconds = f"{time.monotonic() - begun:.1f}"
        rows.append([overlay, str(len(tree.documents)), *(str(len(faults)) for faults in found.values()), seconds])
        numbers = {check: len(faults) for check, faults in found.items()}
        counts.append({"overlay": overlay, "objects": len(tree.documents), "findings": numbers})
        findings += [(overlay, finding) for faults in found.values() for finding in faults]
    reporter.table("Findings", columns, rows)
    value = [{"overlay": o, "rule": f.rule, "where": f.where, "what": f.what} for o, f in findings]
    reporter.result({"overlays": counts, "findings": value}, [f"{overlay}: {finding}" for overlay, finding in findings])
    return int(ExitCode.ERROR if findings else ExitCode.DONE)


if __name__ == "__main__":
    run_app(app, bare=())
