"""The served page without a browser: its endpoints, its limits, its users side by side."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from dashboard.cli import check_host, read_accounts
from dashboard.flips import Heads, Key, Query, key_of, metrics_of
from dashboard.scoring import Scoring
from dashboard.server import serve
from dashboard.store import Store
from dashboard.views.flips import Finder, Look, rendered
from dashboard.views.overview import shown
from evaluation.report.data import RunData
from runs.errors import UsageError, UserError
from tests.dashboard.conftest import RUN


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_named_endpoints_answer(client: Client) -> None:
    (run,) = client.predict(api_name="/runs")
    assert (run["name"], run["state"]) == (RUN, "finished")
    verdicts = client.predict(RUN, api_name="/verdicts")
    assert {"outcome", "sentence", "contrast"} <= set(verdicts[0])
    flips = client.predict(RUN, api_name="/flips")
    assert sum(flips["counts"].values()) == flips["found"]
    one = client.predict(RUN, flips["rows"][0]["row"], api_name="/flip")
    assert set(one["answers"]) == {"base", "stage2", "stage3"}


def test_only_the_endpoints_are_public(client: Client) -> None:
    named = set(client.view_api(return_format="dict")["named_endpoints"])
    assert {"/runs", "/verdicts", "/flips", "/flip", "/classify"} <= named
    assert all(not name.startswith(("/arrive", "/show", "/pick")) for name in named)


@pytest.mark.parametrize(
    ("arguments", "endpoint", "said"),
    [
        (("../outside",), "/verdicts", "no run"),
        ((RUN, "base>nobody"), "/flips", "nobody"),
        ((RUN, "zzz"), "/flip", "no row"),
    ],
)
def test_errors_arrive_with_their_mend(client: Client, arguments: tuple[str, ...], endpoint: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        client.predict(*arguments, api_name=endpoint)


def test_no_file_beyond_the_page_is_served(address: str, store: Store) -> None:
    for path in (store.root / RUN / "samples.jsonl", Path("/etc/passwd"), Path("pyproject.toml").resolve()):
        for route in ("gradio_api/file=", "file="):
            assert httpx.get(f"{address}{route}{path}").status_code in {403, 404}


def test_a_page_elsewhere_cannot_reach_the_dashboard_under_its_own_name(address: str) -> None:
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"Host": "attacker.example"}).status_code == 400


def test_a_port_that_is_taken_is_an_error_with_a_mend(address: str, store: Store) -> None:
    taken = int(address.rstrip("/").rpartition(":")[2])
    from dashboard.app import build_app

    with pytest.raises(UserError, match="--port"), serve(build_app(store), port=taken):
        pass


def test_twenty_users_at_once(client: Client, address: str) -> None:
    def use(number: int) -> int:
        found = client.predict(RUN, "", "", "all", "all", "", "order", number, api_name="/flips")
        return len(found["rows"]) - min(number, found["found"])

    with ThreadPoolExecutor(20) as users:
        assert set(users.map(use, range(1, 21))) == {0}


def test_every_output_of_the_overview_has_a_value(store: Store) -> None:
    assert len(shown(store, RUN, 16)) == 16
    for name in (None, "missing"):
        told, body, *rest = shown(store, name, 16)
        assert "notice" in told
        assert body["visible"] is False
        assert len(rest) == 14


def test_a_link_names_the_row_that_it_restores(store: Store) -> None:
    run, finder = store.load(RUN), Finder(store, Scoring())
    look = Look(RUN, "base>stage3", metrics_of(run)[0], Query())
    *_, address, key = rendered(finder, look, lambda _: 7)
    assert f"row={key}" in address
    again = rendered(finder, Look(RUN, look.contrast, look.metric, Query(), key))
    assert again[-1] == key
    assert rendered(finder, look, lambda _: -5)[-1] == rendered(finder, look, lambda _: 0)[-1]
    assert rendered(finder, look, lambda _: 10**6)[-1] != ""


def test_the_order_stays_until_the_classifier_has_read_every_answer(store: Store) -> None:
    run = store.load(RUN)
    scores = {key_of(sample): {"refusal": 0.5} for sample in run.samples}

    class Partly(Scoring):
        """What the classifier said so far."""

        def __init__(self) -> None:
            super().__init__()
            self.told: Mapping[Key, Heads] = {}

        def known(self, run: RunData) -> Mapping[Key, Heads]:
            return self.told

    scoring = Partly()
    finder, metric = Finder(store, scoring), metrics_of(run)[0]
    before = finder.find(run, "base>stage3", metric)
    scoring.told = dict(list(scores.items())[:-1])
    assert finder.find(run, "base>stage3", metric) is before
    scoring.told = scores
    assert {flip.surprise for flip in finder.find(run, "base>stage3", metric).flips} == {0.5}


def test_other_machines_need_a_password(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_host(host, protected=False)
    for host in ("0.0.0.0", "192.168.1.4", "example.org"):
        with pytest.raises(UsageError, match="--auth"):
            check_host(host, protected=False)
        check_host(host, protected=True)


def test_accounts_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "auth"
    path.write_text("# who may enter\n\nann:se:cret\n")
    assert read_accounts(path) == [("ann", "se:cret")]
    for text, said in (("ann", "line 1"), ("", "nobody"), (":x", "line 1")):
        path.write_text(text)
        with pytest.raises(UsageError, match=said) as caught:
            read_accounts(path)
        assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_accounts(tmp_path / "missing")
