"""How fast the dashboard is: its start, opening a run, and going from row to row.

    uv run python benchmarks/dashboard.py [--prompts 5000] [--source RUN] [--keep DIR] [--no-browser]

A run is written first: numbered copies of the samples of a made-up run, or of ``--source``; its making is not timed.
``start``: from the beginning of a process to the first page served, best of three. ``open``: reading the run and
making the view Flips from it, as for the first reader. ``row``: from one row to the next, in the handler. With a
Chromium on the machine also in the browser: from the page's address to a row on the screen, at the first visit (a new
browser compiles Gradio's scripts) and again, and from a key to the next row on the screen. Times are wall-clock; CPU
seconds stand beside them, because a busy machine stretches the first only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

sys.path[0] = str(Path(__file__).resolve().parents[1])  # `dashboard` is the package there, not this file

from runs.atomic import write_text
from runs.identity import file_digest, text_digest
from runs.manifest import NAME as MANIFEST
from runs.manifest import FileEntry, read_manifest

PORT = 7899
ROWS = 60


def make(folder: Path, prompts: int, source: Path | None) -> None:
    """A finished run of ``prompts`` prompts: numbered copies of the samples of ``source``, or of a made-up run.

    Its statistics stay those of the source: they are read, not made, when a run is opened.
    """
    if source is None:
        from tests.evaluation import made_runs

        source = made_runs.made_run(folder.with_name("source"))
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("figures", "*.html", "*.parquet", ".*"))
    lines = [json.loads(line) for line in (source / "samples.jsonl").read_bytes().splitlines()]
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["prompt_id"], []).append(line)
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as handle:
        for number in range(prompts):
            copy, place = divmod(number, len(groups))
            for line in list(groups.values())[place]:
                messages = [dict(message) for message in line["prompt"]["messages"]]
                messages[-1]["content"] += f" (case {copy})" if copy else ""
                identity = text_digest(f"{line['prompt_id']}:{copy}") if copy else line["prompt_id"]
                prompt = {**line["prompt"], "messages": messages}
                handle.write(json.dumps({**line, "prompt_id": identity, "prompt": prompt}, ensure_ascii=False) + "\n")
    manifest = read_manifest(folder, rebuild="this benchmark")
    samples = folder / "samples.jsonl"
    entry = FileEntry(sha256=file_digest(samples), size=samples.stat().st_size)
    manifest = manifest.model_copy(
        update={"files": {**manifest.files, "samples.jsonl": entry}, "counts": {**manifest.counts, "prompts": prompts}}
    )
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall-clock seconds, CPU seconds, and what ``action`` gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = action()
    return time.perf_counter() - wall, time.process_time() - cpu, value


def start(root: Path) -> tuple[float, float, list[str]]:
    """Seconds until the first page is served, CPU seconds of it, and the heavy libraries that were loaded."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("dashboard"), "--results", root, "--port", str(PORT), "--quiet"],
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{PORT}/", timeout=30).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
            if process.poll() is not None:
                raise SystemExit("The dashboard did not start.")
        wall = time.perf_counter() - began
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        process.terminate()
        process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, used.ru_utime + used.ru_stime, [name for name in ("libtorch", "jaxlib") if name in maps]


def in_process(root: Path, name: str) -> dict[str, float]:
    """Opening and stepping, without the browser and the wire."""
    from dashboard.flips import Query, metrics_of
    from dashboard.scoring import Scoring
    from dashboard.store import Store
    from dashboard.views.flips import Finder, Look, contrast_choices, rendered

    finder = Finder(Store(root), Scoring())

    def opened() -> tuple[Look, list[Any]]:
        run = finder.store.load(name)
        look = Look(name, contrast_choices(run)[0][1], metrics_of(run)[0], Query())
        return look, rendered(finder, look)

    wall, cpu, (look, _) = timed(opened)
    steps = []
    for position in range(1, ROWS + 1):
        seconds, _, _ = timed(lambda position=position: rendered(finder, look, lambda _: position))
        steps.append(seconds)
    return {
        "open_seconds": wall,
        "open_cpu_seconds": cpu,
        "row_median_seconds": statistics.median(steps),
        "row_p95_seconds": statistics.quantiles(steps, n=20)[-1],
    }


def in_browser(root: Path, chromium: str) -> dict[str, float]:
    """The same on the screen."""
    from playwright.sync_api import sync_playwright

    from dashboard.app import build_app
    from dashboard.server import serve
    from dashboard.store import Store

    store = Store(root)
    with serve(build_app(store)) as address, sync_playwright() as playwright:
        store.warm()  # as the command does when it has started
        page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        page.set_default_timeout(120_000)

        def visit() -> None:
            page.goto(f"{address}?tab=flips&cell=all")
            page.wait_for_selector("#flips-row .answers")

        first, again = timed(visit)[0], timed(visit)[0]
        page.wait_for_timeout(2000)
        steps = []
        for number in range(2, 2 + ROWS // 3):
            said = f"document.querySelector('#flips-row .counted')?.innerText.startsWith('{number} of')"
            seconds, _, _ = timed(lambda said=said: (page.keyboard.press("j"), page.wait_for_function(said)))
            steps.append(seconds)
    return {
        "browser_first_visit_seconds": first,
        "browser_open_seconds": again,
        "browser_row_median_seconds": statistics.median(steps),
    }


def main() -> None:
    """Make the run, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--keep", type=Path, help="folder of the made run; it is used again where it is there")
    parser.add_argument("--source", type=Path, help="a finished run whose samples are copied; default: a made-up one")
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    from dashboard.gradio_import import prepare_gradio

    prepare_gradio()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        name = f"made-{options.prompts}"
        if not (root / name / "manifest.json").is_file():
            make(root / name, options.prompts, options.source)
        starts = [start(root) for _ in range(3)]
        found: dict[str, Any] = {
            "prompts": options.prompts,
            "models": 3,
            "load_average": round(os.getloadavg()[0], 1),
            "start_seconds": min(wall for wall, _, _ in starts),
            "start_cpu_seconds": starts[0][1],
            "start_loaded": starts[0][2],
            **in_process(root, name),
        }
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium and not options.no_browser:
            found |= in_browser(root, chromium)
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}))


if __name__ == "__main__":
    main()
