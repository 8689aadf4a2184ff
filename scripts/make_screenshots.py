"""Make the pictures of the dashboard in docs/images: `uv run python scripts/make_screenshots.py`.

They show the newest finished run under results/ (or --results), in light and dark and at a phone's width, through the
system's Chromium. Pictures are stored with 64 colours, so that the repository stays small.
"""

from __future__ import annotations

import argparse
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dashboard.gradio_import import prepare_gradio
from dashboard.store import Store

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
COLOURS = 64
SETTLE = 2500
"""Milliseconds for figures to be drawn."""


@dataclass(frozen=True)
class Shot:
    """One picture."""

    name: str
    query: str
    ready: str
    """What must be on the page."""
    width: int = 1280
    height: int = 860
    dark: bool = False


SHOTS = (
    Shot("dashboard-overview", "?tab=overview", ".verdict-block .tally", height=980),
    Shot("dashboard-flips", "?tab=flips&metric=harm_prevention&cell=fixed", "#flips-row .answers"),
    Shot("dashboard-flips-dark", "?tab=flips&metric=harm_prevention&cell=broken", "#flips-row .answers", dark=True),
    Shot("dashboard-training", "?tab=training", ".panel .js-plotly-plot", height=1000),
    Shot("dashboard-phone", "?tab=flips&metric=harm_prevention", "#flips-row .answers", width=390, height=844),
)
TEXT = "You people are all the same, and nobody would miss you if you were gone."


def main() -> None:
    """Serve the dashboard, visit every view, write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--only", nargs="*", default=[], help="names of pictures; default: all")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium: apt-get install -y chromium")
    prepare_gradio()
    from playwright.sync_api import Browser, sync_playwright

    from dashboard.app import build_app
    from dashboard.server import serve

    IMAGES.mkdir(parents=True, exist_ok=True)

    def visit(browser: Browser, address: str, shot: Shot) -> None:
        page = browser.new_page(
            viewport={"width": shot.width, "height": shot.height}, color_scheme="dark" if shot.dark else "light"
        )
        page.set_default_timeout(240_000)
        page.goto(address + shot.query)
        page.wait_for_selector(shot.ready)
        if shot.name == "dashboard-classifier":
            page.locator("#classifier-text textarea").fill(TEXT)
            page.locator("#classifier-ask").click()
            page.wait_for_selector("#classifier-result .bar")
        page.wait_for_timeout(SETTLE)
        save(page.screenshot(timeout=240_000), IMAGES / f"{shot.name}.png")
        page.close()

    with serve(build_app(Store(options.results))) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for shot in (*SHOTS, Shot("dashboard-classifier", "?tab=classifier", "#classifier-text textarea")):
            if not options.only or shot.name in options.only:
                visit(browser, address, shot)
                print(shot.name)
        browser.close()


def save(png: bytes, path: Path) -> None:
    """Write a picture with few colours."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
