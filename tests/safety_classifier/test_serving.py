"""The server around a judge: answers, refusals, batching, metrics, shutdown."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runs.errors import UsageError
from safety_classifier.serving.app import Service, create_app
from safety_classifier.serving.batcher import estimated_tokens
from safety_classifier.serving.keys import KeyRing
from safety_classifier.serving.settings import AuthSection, BatchSection, LimitSection, ServeSettings, key_ring
from tests.board import asked, exported
from tests.safety_classifier.stand_in import StandIn

KEY = "a-key-of-sixteen-or-more"
SMALL = ServeSettings(
    batching=BatchSection(window_ms=1, max_queue_rows=64),
    limits=LimitSection(max_body_bytes=20_000, max_rows=8, max_characters=2_000, body_s=60, deadline_s=120),
)


@asynccontextmanager
async def running(judge=None, settings=SMALL, keys=(), wait=True):
    """An application with its lifespan, and a client of it."""
    service = Service(judge or StandIn(), settings)
    app = create_app(service, KeyRing(keys))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=120) as client,
    ):
        while wait and not service.ready:
            assert service.failure is None
            await asyncio.sleep(0.002)
        yield client, service


def ask(path, body=None, *, method=None, headers=None, settings=SMALL, keys=(), judge=None, content=None):
    async def once():
        async with running(judge, settings, keys) as (client, _):
            if body is None and content is None and method is None:
                return await client.get(path, headers=headers)
            return await client.request(method or "POST", path, json=body, content=content, headers=headers)

    return asyncio.run(once())


def refusal(response):
    """Status and type of an answer in the error schema."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["message"]
    return response.status_code, body["error"]["type"]


def test_one_text_is_answered_with_what_the_judge_says():
    response = ask("/v1/classify", {"text": "You idiot, I will stab you."})
    expected = StandIn().one("You idiot, I will stab you.")
    assert response.status_code == 200
    assert response.json() == {"model": StandIn().identity, "results": [expected.model_dump()]}


def test_a_batch_is_answered_in_order_with_its_contexts():
    texts = ["hate " * n + "x" * (n * 90) for n in (9, 0, 5, 1)]
    inputs = [{"text": text, "context": "Tell me." if n % 2 else ""} for n, text in enumerate(texts)]
    inputs[3]["text"] = "Sorry, no."
    results = ask("/v1/classify", {"inputs": inputs}).json()["results"]
    assert [one["probabilities"] for one in results] == [
        StandIn().one(one["text"], one["context"]).probabilities for one in inputs
    ]
    assert results[3]["flagged"]["refusal"]


def test_moderations_speak_the_format_of_openai():
    body = ask("/v1/moderations", {"input": ["poison and a bomb", "hello"], "model": "omni-moderation-latest"}).json()
    assert body["id"].startswith("modr-")
    first, second = body["results"]
    assert (first["flagged"], second["flagged"]) == (True, False)
    assert set(first["categories"]) == {"hate", "self-harm", "illicit", "harassment", "violence", "sexual"}
    assert first["categories"]["illicit"]
    assert first["category_scores"]["illicit"] == StandIn().one("poison and a bomb").probabilities["dangerous_advice"]
    assert first["category_applied_input_types"]["illicit"] == ["text"]


@pytest.mark.parametrize("given", ["bomb", ["bomb"], [{"type": "text", "text": "a"}, {"type": "text", "text": "bomb"}]])
def test_moderations_take_a_text_a_list_and_parts(given):
    results = ask("/v1/moderations", {"input": given}).json()["results"]
    assert len(results) == 1
    assert results[0]["category_scores"]["illicit"] > 0.5


def test_an_empty_text_and_odd_characters_are_texts_like_others():
    odd = ["", "\x00", "😀😀", "مرحبا", "a\u200db\u200d", "\ufeff", "\u202eevil"]
    response = ask("/v1/classify", {"inputs": [{"text": text} for text in odd]})
    assert response.status_code == 200
    assert len(response.json()["results"]) == len(odd)


GARBAGE = [
    (b"", 422),
    (b"{", 400),
    (b"\x00\x00\x00", 400),
    (b"\xff\xfe{}", 400),
    (b'{"text": "\xff\xff"}', 400),
    (b'{"text": "caf\xe9"}', 400),
    (b"[" * 5_000, 400),
    (b'{"text": "a\nb"}', 400),
    (b"null", 422),
    (b"[]", 422),
    (b"3", 422),
    (b"{}", 422),
    (b'{"text": 3}', 422),
    (b'{"text": null}', 422),
    (b'{"text": "a", "contxt": "b"}', 422),
    (b'{"inputs": []}', 422),
    (b'{"inputs": "abc"}', 422),
    (b'{"inputs": [{"text": "a"}, {"txt": "b"}]}', 422),
    (rb'{"text": "\ud800"}', 422),
    (b'{"text": NaN}', 422),
    (b'{"text": ' + b"9" * 6_000 + b"}", 400),
    (b'{"text": "' + b"a" * 2_001 + b'"}', 413),
    (b'{"inputs": [' + b",".join([b'{"text": "a"}'] * 9) + b"]}", 413),
    (b'{"text": "' + b"a" * 30_000 + b'"}', 413),
]


@pytest.mark.parametrize(("content", "status"), GARBAGE, ids=lambda value: str(value)[:24])
def test_garbage_is_refused_in_the_one_schema(content, status):
    response = ask("/v1/classify", content=content, headers={"Content-Type": "application/json"})
    assert refusal(response)[0] == status


def test_a_refused_field_is_named_and_its_value_is_not_repeated():
    response = ask("/v1/classify", {"inputs": [{"text": "fine"}, {"text": ["a secret"]}]})
    message = response.json()["error"]["message"]
    assert message.startswith("inputs.1.text: ")
    assert "secret" not in message
    assert "contxt: Extra" in ask("/v1/classify", {"text": "a", "contxt": "b"}).json()["error"]["message"]
    assert "input.0.type" in ask("/v1/moderations", {"input": [{"type": "image_url"}]}).json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/nowhere", "GET", (404, "not_found")),
        ("/v1/classify", "GET", (405, "method_not_allowed")),
        ("/v1/classify", "PUT", (405, "method_not_allowed")),
    ],
)
def test_wrong_paths_and_methods_have_the_schema_as_well(path, method, expected):
    assert refusal(ask(path, method=method, headers={"Content-Type": "application/json"})) == expected


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_must_be_declared_as_json(media):
    # Browsers send these across sites without asking; they must not reach a server on loopback.
    headers = {"Content-Type": media}
    assert refusal(ask("/v1/classify", content=b'{"text": "a"}', headers=headers)) == (415, "unsupported_media_type")


def test_a_body_without_declared_length_is_cut_at_the_limit():
    async def stream():
        for _ in range(30):
            yield b" " * 1000

    response = ask("/v1/classify", content=stream(), headers={"Content-Type": "application/json"})
    assert refusal(response) == (413, "too_large")


def test_a_body_that_does_not_come_is_given_up():
    async def stream():
        yield b'{"text": '
        await asyncio.sleep(2)
        yield b'"late"}'

    hasty = SMALL.model_copy(update={"limits": SMALL.limits.model_copy(update={"body_s": 0.5})})
    response = ask("/v1/classify", content=stream(), headers={"Content-Type": "application/json"}, settings=hasty)
    assert refusal(response) == (408, "timeout")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong-key-of-some-length", f"Basic {KEY}", KEY, f"Bearer {KEY}x"]
)
def test_who_has_no_key_is_refused(header):
    headers = {} if header is None else {"Authorization": header}
    response = ask("/v1/classify", {"text": "a"}, keys=[KEY, "another-key-of-length"], headers=headers)
    assert refusal(response) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [KEY, "another-key-of-length"])
def test_who_has_a_key_is_answered(key):
    headers = {"Authorization": f"Bearer {key}"}
    assert ask("/v1/classify", {"text": "a"}, keys=[KEY, "another-key-of-length"], headers=headers).status_code == 200


def test_health_needs_no_key_and_the_model_does():
    assert ask("/healthz", keys=[KEY]).status_code == 200
    assert ask("/metrics", keys=[KEY]).status_code == 200
    protected = SMALL.model_copy(update={"auth": AuthSection(protect_metrics=True)})
    assert ask("/metrics", keys=[KEY], settings=protected).status_code == 401
    assert ask("/v1/model", keys=[KEY]).status_code == 401
    assert ask("/nowhere", keys=[KEY]).status_code == 401


def test_other_machines_need_keys(monkeypatch, tmp_path):
    monkeypatch.delenv("SAFETY_CLASSIFIER_KEYS", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(UsageError, match="other machines"):
            key_ring(ServeSettings(host=host))
    for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost"):
        assert not key_ring(ServeSettings(host=host))
    monkeypatch.setenv("SAFETY_CLASSIFIER_KEYS", f"{KEY}, second-key-of-length")
    assert key_ring(ServeSettings(host="0.0.0.0")).admits("Bearer second-key-of-length")
    monkeypatch.setenv("SAFETY_CLASSIFIER_KEYS", "short")
    with pytest.raises(UsageError, match="16 or more") as caught:
        key_ring(ServeSettings())
    assert "short" not in str(caught.value)
    monkeypatch.delenv("SAFETY_CLASSIFIER_KEYS")
    path = tmp_path / "keys"
    path.write_text(f"# made by hand\n\n{KEY}\n")
    assert key_ring(ServeSettings(auth=AuthSection(keys_file=path))).admits(f"Bearer {KEY}")
    path.write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no key"):
        key_ring(ServeSettings(auth=AuthSection(keys_file=path)))


def test_keys_leave_no_trace_in_the_ring():
    assert KEY not in repr(vars(KeyRing([KEY])))


def test_before_it_is_warm_the_server_is_up_and_not_ready():
    judge = StandIn()
    judge.gate.clear()

    async def states():
        async with running(judge, wait=False) as (client, service):
            early = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
            refused = await client.post("/v1/classify", json={"text": "a"})
            judge.gate.set()
            while not service.ready:
                await asyncio.sleep(0.002)
            return early, refused, (await client.get("/readyz")).status_code

    early, refused, late = asyncio.run(states())
    assert early == [200, 503]
    assert refusal(refused) == (503, "not_ready")
    assert refused.headers["Retry-After"]
    assert (late, judge.warmed) == (200, True)


def test_a_full_queue_answers_429_and_recovers():
    judge = StandIn()

    async def crowd():
        async with running(judge) as (client, service):
            judge.gate.clear()
            judge.entered.clear()
            body = {"inputs": [{"text": f"hate {n}"} for n in range(8)]}
            first = asyncio.create_task(client.post("/v1/classify", json=body))
            while not judge.entered.is_set():
                await asyncio.sleep(0.002)
            waiting = [asyncio.create_task(client.post("/v1/classify", json=body)) for _ in range(8)]
            while service.batcher.queued_rows < 64:
                await asyncio.sleep(0.002)
            refused = await client.post("/v1/classify", json={"text": "one more"})
            gauge = (await client.get("/metrics")).text
            judge.gate.set()
            done = [response.status_code for response in await asyncio.gather(first, *waiting)]
            return refused, gauge, done, (await client.post("/v1/classify", json={"text": "now"})).status_code

    refused, gauge, done, after = asyncio.run(crowd())
    assert refusal(refused) == (429, "queue_full")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert "safety_classifier_queue_rows 64.0" in gauge
    assert done == [200] * 9
    assert after == 200


def test_a_request_past_its_deadline_is_answered_503_and_leaves_the_queue():
    judge = StandIn()
    settings = SMALL.model_copy(update={"limits": SMALL.limits.model_copy(update={"deadline_s": 0.1})})

    async def late():
        async with running(judge, settings) as (client, service):
            judge.gate.clear()
            judge.entered.clear()
            stuck = asyncio.create_task(client.post("/v1/classify", json={"text": "in the model"}))
            while not judge.entered.is_set():
                await asyncio.sleep(0.002)
            queued = await client.post("/v1/classify", json={"inputs": [{"text": "waits"}] * 8})
            left = service.batcher.queued_rows, service.batcher.queued_tokens
            judge.gate.set()
            first = await stuck
            for _ in range(100):  # on a busy machine a tenth of a second can pass without the model
                again = await client.post("/v1/classify", json={"text": "again"})
                if again.status_code == 200:
                    break
            return first, queued, left, again

    stuck, queued, left, again = asyncio.run(late())
    assert refusal(stuck) == refusal(queued) == (503, "deadline")
    assert left == (0, 0)
    assert again.status_code == 200
    assert not any("waits" in call for call in judge.calls)


def test_rows_of_many_requests_share_calls():
    judge = StandIn(seconds=0.002)

    async def crowd():
        async with running(judge) as (client, _):
            judge.calls.clear()
            sent = [client.post("/v1/classify", json={"text": f"text {n}"}) for n in range(40)]
            return [response.status_code for response in await asyncio.gather(*sent)]

    assert asyncio.run(crowd()) == [200] * 40
    assert sum(len(call) for call in judge.calls) == 40
    assert len(judge.calls) < 12


def test_a_text_that_the_model_cannot_take_fails_alone():
    judge = StandIn()

    async def crowd():
        async with running(judge) as (client, _):
            judge.gate.clear()
            texts = ["hate", "\x07crash", "bomb", "idiot"]
            sent = [asyncio.create_task(client.post("/v1/classify", json={"text": text})) for text in texts]
            await asyncio.sleep(0.05)
            judge.gate.set()
            return await asyncio.gather(*sent), (await client.get("/healthz")).status_code

    responses, health = asyncio.run(crowd())
    assert [response.status_code for response in responses] == [200, 500, 200, 200]
    assert refusal(responses[1]) == (500, "internal")
    assert "ArithmeticError" not in responses[1].text
    assert health == 200


def test_a_request_larger_than_the_queue_is_refused_by_the_settings():
    with pytest.raises(ValueError, match="could never be taken"):
        ServeSettings(batching=BatchSection(max_queue_rows=4), limits=LimitSection(max_rows=5))


def test_metrics_are_prometheus_text_with_what_happened():
    async def some():
        async with running() as (client, _):
            for text in ("hate hate", "fine"):
                await client.post("/v1/classify", json={"text": text})
            await client.post("/v1/classify", json={"txt": "a"})
            for n in range(20):
                await client.get(f"/made-up/{n}")
            return await client.get("/metrics")

    response = asyncio.run(some())
    assert response.headers["Content-Type"].startswith("text/plain")
    assert asked("safety_classifier") <= exported(response.text)  # what the Grafana dashboard shows
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }

    def requests(route, method, status):
        labels = (("method", method), ("route", route), ("status", status))
        return samples["safety_classifier_requests_total", *labels]

    assert requests("/v1/classify", "POST", "200") == 2
    assert requests("/v1/classify", "POST", "422") == 1
    assert requests("other", "other", "404") == 20
    assert samples["safety_classifier_request_seconds_count", ("route", "/v1/classify")] == 3
    assert samples["safety_classifier_rows_total",] == 2
    assert samples["safety_classifier_tokens_total",] == estimated_tokens("hate hate", "") + estimated_tokens(
        "fine", ""
    )
    assert samples["safety_classifier_flagged_total", ("head", "hate_speech")] == 1
    assert samples["safety_classifier_ready",] == 1
    assert samples["safety_classifier_info", ("identity", StandIn().identity)] == 1
    assert not any("made-up" in str(key) for key in samples)


def test_the_openapi_document_is_typed_and_its_examples_are_real():
    async def document():
        async with running(keys=[KEY]) as (client, _):
            found = (await client.get("/openapi.json")).json()
            post = found["paths"]["/v1/classify"]["post"]
            answers = {}
            for name, example in post["requestBody"]["content"]["application/json"]["examples"].items():
                headers = {"Authorization": f"Bearer {KEY}"}
                answers[name] = (await client.post("/v1/classify", json=example["value"], headers=headers)).json()
            return found, answers

    found, answers = asyncio.run(document())
    assert found["openapi"].startswith("3.")
    assert set(found["paths"]) == {
        "/healthz", "/readyz", "/metrics", "/v1/classify", "/v1/moderations", "/v1/model",
    }  # fmt: skip
    post = found["paths"]["/v1/classify"]["post"]
    assert set(post["responses"]) >= {"200", "400", "401", "413", "415", "422", "429", "503"}
    assert post["security"]
    references = [value["$ref"] for value in nested(found) if "$ref" in value]
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= set(
        found["components"]["schemas"]
    )
    assert "HTTPValidationError" not in found["components"]["schemas"]
    shown = post["responses"]["200"]["content"]["application/json"]["examples"]
    assert {name: example["value"] for name, example in shown.items()} == answers


def nested(value):
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nested(child)
    elif isinstance(value, list):
        for child in value:
            yield from nested(child)


def test_the_model_route_lists_heads_thresholds_and_limits():
    body = ask("/v1/model").json()
    heads = {head["name"]: head for head in body["heads"]}
    assert heads["hate_speech"]["threshold"] == 0.5
    assert heads["harmlessness"]["threshold"] is None
    assert heads["refusal"]["definition"]
    assert body["max_characters"] == 2_000


def test_the_end_of_the_lifespan_finishes_what_is_queued():
    judge = StandIn(seconds=0.01)

    async def drain():
        async with running(judge) as (_, service):
            waiting = [asyncio.create_task(service.batcher.submit([f"bomb {n}"], [""])) for n in range(30)]
            await asyncio.sleep(0.005)
        return await asyncio.gather(*waiting)

    found = asyncio.run(drain())
    assert [one[0].flagged["dangerous_advice"] for one in found] == [True] * 30
