"""The page in a real headless Chromium: tabs open, flips are clicked and linked, nothing of a model's text runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlparse

import pytest

from dashboard.rankings import Rankings
from dashboard.store import Store
from tests.dashboard.conftest import ATTACK, RUN

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
WAIT = 240_000
"""Milliseconds: a busy continuous-integration machine is slow, and a hang should still end."""
Open = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Open]:
    """Opens the dashboard in a context of its own; after the test nothing may have run or failed on the page."""
    contexts, faults = [], []

    def go(query: str = "", *, width: int = 1280, dark: bool = False, base: str = address) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 860}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{base}{query}")
        tab = parse_qs(query.removeprefix("?")).get("tab", ["overview"])[0]
        there = ".hero-top, .notice" if tab == "overview" else f"#tab-{tab}-button[aria-selected=true]"
        page.wait_for_selector(there, state="attached")
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def served(store: Store) -> AbstractContextManager[str]:
    from dashboard.app import build_app
    from dashboard.server import serve

    return serve(build_app(store))


def parameters(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


def test_every_tab_opens(visit: Open) -> None:
    page = visit()
    for tab, selector in (
        ("Overview", ".verdict-block .tally"),
        ("Flips", "#flips-matrix .matrix"),
        ("Classifier", "#classifier-text textarea"),
        ("Training", "#trainings input"),
    ):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_selector(selector)
    page.get_by_role("tab", name="Overview", exact=True).click()
    page.wait_for_selector(".js-plotly-plot .plot-container")
    assert page.locator(".js-plotly-plot").count() >= 2


def test_a_cell_a_line_and_the_keys_choose_the_row(visit: Open) -> None:
    page = visit("?tab=flips")
    page.wait_for_selector("#flips-row .answers")
    count = page.locator("#flips-matrix button.kept_bad .count").inner_text()
    page.locator("#flips-matrix button.kept_bad").click()
    page.wait_for_selector("#flips-matrix button.kept_bad[aria-pressed=true]")
    assert page.locator("#flips-row .counted").inner_text() == f"1 of {count}"
    first = page.locator("#flips-row .prompt .turn").inner_text()
    page.locator("body").press("j")
    page.wait_for_function(f"document.querySelector('#flips-row .counted').innerText === '2 of {count}'")
    assert page.locator("#flips-row .prompt .turn").inner_text() != first
    page.locator("body").press("k")
    page.wait_for_function(f"document.querySelector('#flips-row .counted').innerText === '1 of {count}'")
    page.locator("#flips-list button.line").nth(2).click()
    page.wait_for_function(f"document.querySelector('#flips-row .counted').innerText === '3 of {count}'")


def test_a_link_restores_the_view(visit: Open) -> None:
    page = visit("?tab=flips")
    page.wait_for_selector("#flips-row .answers")
    page.locator("#flips-matrix button.kept_bad").click()
    page.wait_for_selector("#flips-matrix button.kept_bad[aria-pressed=true]")
    page.locator("#flips-next").click()
    page.wait_for_function("document.querySelector('#flips-row .counted').innerText.startsWith('2 of')")
    page.wait_for_function("location.search.includes('row=')")
    asked = page.locator("#flips-row .prompt .turn").inner_text()
    assert parameters(page)["cell"] == "kept_bad"
    again = visit(f"?{urlparse(page.url).query}")
    again.wait_for_selector("#flips-row .answers")
    assert again.locator("#flips-row .counted").inner_text().startswith("2 of")
    assert again.locator("#flips-row .prompt .turn").inner_text() == asked
    assert again.locator("#flips-matrix button.kept_bad").get_attribute("aria-pressed") == "true"


def test_two_users_do_not_see_each_others_state(visit: Open) -> None:
    one, other = visit("?tab=flips"), visit("?tab=flips")
    for page in (one, other):
        page.wait_for_selector("#flips-row .answers")
    one.locator("#flips-matrix button.kept_bad").click()
    one.wait_for_selector("#flips-matrix button.kept_bad[aria-pressed=true]")
    other.locator("#flips-next").click()
    other.wait_for_function("document.querySelector('#flips-row .counted').innerText.startsWith('2 of')")
    assert other.locator("#flips-matrix button.kept_bad").get_attribute("aria-pressed") == "false"


def test_a_search_narrows_the_list(visit: Open) -> None:
    page = visit("?tab=flips&cell=all")
    page.wait_for_selector("#flips-row .answers")
    page.get_by_label("Search").first.click()
    page.keyboard.insert_text("no such words anywhere")  # as pasted: no key is pressed
    page.wait_for_selector("#flips-list .none")


def test_a_models_text_is_shown_and_never_runs(visit: Open) -> None:
    page = visit("?tab=flips&cell=all")
    page.wait_for_selector("#flips-row .answers")
    assert ATTACK in page.locator("#flips-row .answer").nth(1).inner_text()
    page.locator("#flips-row details.raw summary").click()
    assert page.locator("#flips-row img").count() == 0
    assert "owned" not in page.title()


def test_a_hostile_link_does_no_harm(visit: Open) -> None:
    markup = "%3Cimg%20src=x%20onerror=alert(1)%3E"
    page = visit(f"?tab=flips&run=../../etc&metric={markup}&cell=x&q={markup}&sort=1&row=%27")
    page.wait_for_selector("#flips-matrix .matrix")
    assert page.locator("#flips-row img").count() == 0


def test_a_vote_on_a_pair_is_counted_and_appended(visit: Open, store: Store) -> None:
    page = visit("?tab=training")
    page.get_by_role("tab", name="Rank pairs").click()
    page.wait_for_selector("#rank-row .answers")
    assert page.locator("#rank-row").get_by_text("hosen").count() == 0
    before = len(Rankings(store.annotations).read())
    page.locator("#rank-a").click()
    page.wait_for_selector("#rank-told :text('Counted')")
    assert len(Rankings(store.annotations).read()) == before + 1


def test_pairs_show_critique_and_reason(visit: Open) -> None:
    page = visit("?tab=training")
    page.get_by_role("tab", name="Pairs", exact=True).click()
    page.wait_for_selector("#pairs-row .critique")
    assert "burglary" in page.locator("#pairs-row .critique").inner_text()
    page.locator("#pairs-next").click()
    page.wait_for_function("document.querySelector('#pairs-row .counted').innerText === '2 of 3'")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("tab", ["overview", "flips", "classifier", "training"])
def test_axe_finds_nothing_serious(visit: Open, tab: str, dark: bool) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(f"?tab={tab}", dark=dark)
    page.wait_for_timeout(2500)
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert [(one["id"], one["nodes"][0]["html"][:160], len(one["nodes"])) for one in serious] == []


@pytest.mark.parametrize("tab", ["overview", "flips", "classifier", "training"])
def test_a_phone_scrolls_in_one_direction_only(visit: Open, tab: str) -> None:
    page = visit(f"?tab={tab}", width=390)
    page.wait_for_timeout(2500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 392


def test_no_runs_say_what_to_run(visit: Open, tmp_path: Path) -> None:
    with served(Store(tmp_path / "results", artifacts=tmp_path)) as address:
        page = visit(base=address)
        assert "uv run evaluate" in page.locator(".notice").first.inner_text()


def test_a_run_in_writing_and_a_broken_one_are_told_apart(visit: Open, tmp_path: Path, results: Path) -> None:
    shutil.copytree(results / RUN, tmp_path / "results" / "half")
    (tmp_path / "results" / "half" / "manifest.json").unlink()
    shutil.copytree(results / RUN, tmp_path / "results" / "bad")
    (tmp_path / "results" / "bad" / "samples.jsonl").write_text("{")
    with served(Store(tmp_path / "results", artifacts=tmp_path)) as address:
        page = visit("?run=half", base=address)
        assert re.search("not finished", page.locator(".notice").first.inner_text())
        page = visit("?run=bad", base=address)
        assert "does not match" in page.locator(".notice").first.inner_text()
