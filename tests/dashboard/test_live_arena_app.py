"""Live and Arena as served: streams, stops, twenty users, votes, a model that does not load; in a browser too."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client

from dashboard import live as logic
from dashboard.live import Scorer, Studio, check_checkpoint
from dashboard.store import Store
from inference.engines.scripted import ScriptedEngine
from runs.errors import UserError
from tests.dashboard.conftest import ATTACK, RUN

WAIT = 120_000
LONG = " ".join(f"word{number}" for number in range(400))


class SlowEngine(ScriptedEngine):
    """A scripted engine that takes its time, as a model does."""

    def stream(self, request, sampling, *, stopped=lambda: False):
        for part in super().stream(request, sampling, stopped=stopped):
            time.sleep(0.02)
            yield part


def connect(address):
    """A client with patience: the machine may be busy."""
    return Client(address, verbose=False, httpx_kwargs={"timeout": 600})


def answer_of(name):
    def answer(request):
        said = request.messages[-1].content
        if said == "long":
            return LONG
        return f"{name} says {said} {ATTACK if said == 'attack' else ''}".strip()

    return answer


def slow_studio(store=None):
    def opener(family, names):
        return {name: SlowEngine(answer_of(name)) for name in names}

    def check(family, name):
        if name == "stage3":
            raise UserError("There is no adapter <b>stage3</b>.", mend="Train it: uv run finetune dpo")

    return Studio(opener=opener, check=check, scorer=Scorer(("helpfulness", "refusal")))


@pytest.fixture(scope="module")
def served(results, artifacts, tmp_path_factory):
    """A dashboard on a copy of the results, so that its votes are its own, with slow scripted checkpoints."""
    from dashboard.gradio_import import prepare_gradio

    prepare_gradio()
    from dashboard.app import build_app
    from dashboard.server import serve
    from dashboard.views import live as view

    root = tmp_path_factory.mktemp("served")
    shutil.copytree(results / RUN, root / RUN)
    patch = pytest.MonkeyPatch()
    patch.setattr(view, "open_studio", slow_studio)
    with serve(build_app(Store(root, artifacts=artifacts))) as address:
        yield address, root
    patch.undo()


@pytest.fixture(scope="module")
def address(served):
    return served[0]


def test_live_streams_answers_and_then_their_scores(address):
    job = connect(address).submit("hello there my friend", ["base", "stage2"], api_name="/live")
    states = list(job)
    assert len(states) > 2
    assert len({state[0]["text"] for state in states}) > 2
    base, stage2 = states[-1]
    assert (base["text"], stage2["text"]) == ("base says hello there my friend", "stage2 says hello there my friend")
    assert {score["evaluator"] for score in base["scores"]} == {"helpfulness", "refusal"}


def test_a_client_stops_its_own_answer_and_nobody_elses(address):
    one, two = connect(address), connect(address)
    long = one.submit("long", ["base"], max_new_tokens=400, api_name="/live")
    while not any(state[0]["text"] for state in long.outputs()):
        time.sleep(0.05)
    waits = two.submit("mine", ["base"], api_name="/live")
    assert two.predict(api_name="/stop") in (0, 1)
    started = time.monotonic()
    assert one.predict(api_name="/stop") == 1
    last = long.result(timeout=60)[0]
    assert last["status"] == "stopped"
    assert last["tokens"] < 300
    assert time.monotonic() - started < 30
    del waits


def test_twenty_users_at_once_each_get_their_own_answer(address):
    clients = [connect(address) for _ in range(20)]

    def ask(number):
        return clients[number].predict(f"user{number}", ["base"], api_name="/live")[0]

    with ThreadPoolExecutor(20) as users:
        answers = list(users.map(ask, range(20)))
    assert [answer["text"] for answer in answers] == [f"base says user{number}" for number in range(20)]
    assert {answer["status"] for answer in answers} == {"done"}


def test_a_model_that_cannot_load_says_why_and_the_app_stays_up(address):
    client = connect(address)
    base, stage3 = client.predict("hi", ["base", "stage3"], api_name="/live")
    assert base["status"] == "done"
    assert (stage3["status"], stage3["problem"]) == (
        "failed", "There is no adapter <b>stage3</b>.\nTrain it: uv run finetune dpo"
    )  # fmt: skip
    assert client.predict(api_name="/runs")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("", ["base"]), "no prompt"), (("hi", ["bas"]), "Did you mean 'base'"), (("hi", ["base"], 9.0), "temperature")],
)
def test_live_refuses_with_a_reason(address, arguments, said):
    with pytest.raises(Exception, match=said):
        connect(address).predict(*arguments, api_name="/live")


def test_revise_gives_the_chain(address):
    found = connect(address).predict("hi", "help-01", "base", "My draft.", api_name="/revise")
    assert found["draft"]["text"] == "My draft."
    assert found["critique"]["status"] == found["revision"]["status"] == "done"
    assert isinstance(found["rejected"], list)


def test_votes_are_blind_counted_and_exported(served):
    address, root = served
    client = connect(address)
    with pytest.raises(Exception, match="no pairs yet"):
        client.predict(RUN, "pairs", api_name="/arena_export")
    for number in range(4):
        asked = client.predict(RUN, "helpful", "ann", api_name="/arena_next")
        assert set(asked) == {"ballot", "question", "prompt", "A", "B"}
        told = client.predict(asked["ballot"], "first", "help-01", "answers", "refuses", api_name="/arena_vote")
        assert told["counted"]
        assert {told["A"], told["B"]} <= {"base", "stage2", "stage3"}
        assert told["votes"]["helpful"] == number + 1
    assert len(client.predict(RUN, "votes", api_name="/arena_export")) == 4
    (file,) = (root / "annotations" / "votes").glob("*.jsonl")
    assert file.read_bytes().count(b"\n") == 4
    with pytest.raises(Exception, match="not out"):
        client.predict(asked["ballot"], "first", api_name="/arena_vote")
    found = client.predict(RUN, api_name="/arena_ratings")
    assert found["axes"]["helpful"]["votes"] == 4
    assert found["axes"]["harmless"]["why"] == "No votes yet."


def test_the_new_endpoints_are_named_and_the_page_s_own_are_not(address):
    named = set(connect(address).view_api(return_format="dict")["named_endpoints"])
    assert {"/live", "/revise", "/stop", "/arena_next", "/arena_vote", "/arena_ratings", "/arena_export"} <= named
    assert not {name for name in named if name.startswith(("/answer", "/vote", "/next", "/standings", "/export"))}


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found, faults = context.new_page(), []
    found.set_default_timeout(WAIT)
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.goto(address)
    found.wait_for_selector(".hero-top, .notice", state="attached")
    yield found
    assert found.title() != "owned"
    context.close()
    assert faults == []


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


@pytest.mark.slow
def test_in_the_browser_answers_stream_and_stop(page):
    open_tab(page, "Live")
    page.locator("#live-prompt textarea").fill("long")
    page.locator("#live-checkpoints").get_by_label("stage3").uncheck()
    page.locator("#live-settings button").first.click()
    page.locator("#live-length input[type=number]").fill("400")
    page.locator("#live-length input[type=number]").press("Tab")
    page.locator("#live-ask").click()
    page.wait_for_selector("#live-board article[data-name=base][data-status=writing] .text")
    page.wait_for_function("document.querySelector('#live-board article .text').innerText.includes('word5')")
    first = page.locator("#live-board article[data-name=base] .text").inner_text()
    page.wait_for_function(f"document.querySelector('#live-board article .text').innerText.length > {len(first)} + 5")
    page.locator("#live-stop").click()
    page.wait_for_selector("#live-board article[data-name=base][data-status=stopped]")
    stopped = page.locator("#live-board article[data-name=base] .text").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator("#live-board article[data-name=base] .text").inner_text() == stopped
    assert "word399" not in stopped


@pytest.mark.slow
def test_in_the_browser_a_model_that_cannot_load_has_its_reason_and_nothing_runs(page):
    open_tab(page, "Live")
    page.locator("#live-prompt textarea").fill("attack")
    page.locator("#live-ask").click()
    page.wait_for_selector("#live-board article[data-name=stage3][data-status=failed]")
    assert "There is no adapter <b>stage3</b>." in page.locator("#live-board article[data-name=stage3]").inner_text()
    page.wait_for_selector("#live-board article[data-name=base][data-status=done] .scores")
    assert "<img src=x" in page.locator("#live-board article[data-name=base] .text").inner_text()
    open_tab(page, "Overview")
    page.wait_for_selector(".verdict-block .tally")


@pytest.mark.slow
def test_in_the_browser_a_draft_is_revised(page):
    open_tab(page, "Live")
    page.locator("#live-prompt textarea").fill("How are you?")
    page.locator("#live-draft textarea").fill("None of your business.")
    page.locator("#live-revise").click()
    page.wait_for_function("document.querySelector('#live-chain [data-kept]')?.innerText.includes('filters would')")
    assert page.locator("#live-chain article").count() == 3


@pytest.mark.slow
def test_in_the_browser_a_vote_is_cast_counted_and_then_named(page, served):
    open_tab(page, "Arena")
    page.wait_for_selector("#arena-ballot .answers")
    before = page.locator("#arena-ballot").inner_text()
    assert "stage" not in before
    assert "base" not in before.split()
    page.locator("#arena-label-a label").first.click()
    votes = sum(path.read_bytes().count(b"\n") for path in (served[1] / "annotations").rglob("*.jsonl"))
    page.locator("#arena-first").click()
    page.wait_for_function("document.querySelector('#arena-told').innerText.includes('Counted. A was')")
    told = page.locator("#arena-told").inner_text()
    assert any(name in told for name in ("base", "stage2", "stage3"))
    page.wait_for_function("document.querySelector('#arena-ballot .answers').dataset.ballot === '1'")
    now = sum(path.read_bytes().count(b"\n") for path in (served[1] / "annotations").rglob("*.jsonl"))
    assert now == votes + 1
    page.get_by_label("Which answer is less harmful?").check()
    page.wait_for_function("document.querySelector('#arena-ballot h3').innerText.includes('less harmful')")
    page.locator("#arena-both_bad").click()
    page.wait_for_function("document.querySelector('#arena-told').innerText.includes('on harmlessness')")
    page.locator("#arena-show").click()
    page.wait_for_selector("#arena-standings h3")
    assert "Agreement" in page.locator("#arena-standings").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("tab", ["live", "arena"])
def test_axe_finds_nothing_serious(browser, address, tab, dark):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto(f"{address}?tab={tab}")
    if tab == "live":
        page.locator("#live-prompt textarea").fill("hello")
        page.locator("#live-revise").click()
        page.wait_for_selector("#live-chain [data-kept]", state="attached")
        page.locator("#live-ask").click()
        page.wait_for_selector("#live-board article[data-name=base] .scores")
    else:
        page.wait_for_selector("#arena-ballot .answers")
        page.locator("#arena-show").click()
        page.wait_for_selector("#arena-standings table")
    page.wait_for_timeout(2500)
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert [(one["id"], one["nodes"][0]["html"][:160], len(one["nodes"])) for one in serious] == []
    context.close()


@pytest.mark.slow
def test_a_phone_shows_both_tabs_without_scrolling_sideways(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    for tab, selector in (("live", "#live-prompt"), ("arena", "#arena-ballot .answers")):
        page.goto(f"{address}?tab={tab}")
        page.wait_for_selector(selector)
        assert page.evaluate("document.documentElement.scrollWidth") <= 392
    context.close()


def test_the_real_studio_is_what_the_page_opens(results):
    """Not the scripted one: the family of the newest run, or the embedded one."""
    from dashboard.views import live as view

    assert logic.check_checkpoint is check_checkpoint
    studio = view.open_studio(Store(results))
    assert studio.checkpoints[0] == "base"
    assert Path(logic.__file__).name == "live.py"
