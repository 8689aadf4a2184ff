"""The engine for served models against `transformers serve` with the embedded model: another project's server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from inference.engines import open_engine
from inference.engines.openai import OpenAIEngine
from inference.families import load_family
from inference.records import Message, Request, Sampling
from inference.remote.faults import ServerStopped
from inference.remote.journal import Failure, Reply
from inference.remote.server import Server
from inference.sources import base_folder
from runs.records import read_jsonl
from tests.inference.openai_server import free_port

pytestmark = pytest.mark.slow

QUESTIONS = ["What is 2 + 2?", "Name a colour.", "Where is Paris?", "Who wrote Hamlet?"]
SHORT = Sampling(max_new_tokens=6)


def ask(text: str) -> Request:
    return Request(key=text, messages=(Message(role="user", content=text),))


def start(port: int, model: Path, log: Path) -> subprocess.Popen[bytes]:
    words = ["-m", "transformers.cli.transformers", "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *words, "--device", "cpu", "--dtype", "float32"],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )


@contextmanager
def running(port: int, model: Path, log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A server, in a list to which its successors are added; all are ended with the block."""
    servers = [start(port, model, log)]
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200:
                    break
            except httpx.TransportError:
                assert servers[0].poll() is None, log.read_text()
                time.sleep(0.2)
        yield servers
    finally:
        for server in servers:
            if server.poll() is None:
                os.kill(server.pid, signal.SIGKILL)
            server.wait()


def test_a_real_server_killed_and_started_again_in_the_middle_of_a_run(tmp_path: Path) -> None:
    family, port = load_family("smollm2-135m"), free_port()
    model, log = base_folder(family), tmp_path / "serve.log"
    section = Server.model_validate(
        {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": str(model),
            "dialect": "transformers",
            "concurrency": 2,
            "retries": {"attempts": 300, "first_wait_s": 0.5, "longest_wait_s": 1.0},
        }
    )
    requests = [ask(text) for text in QUESTIONS]
    with running(port, model, log) as servers:
        engine = OpenAIEngine(section, "serve", tmp_path)
        generating = engine.generate(requests, SHORT)
        answers = [next(generating)]
        os.kill(servers[0].pid, signal.SIGKILL)
        servers[0].wait()
        threading.Timer(1.0, lambda: servers.append(start(port, model, log))).start()
        answers += generating
        served = {done.key: done for done in answers}
        assert len(answers) == len(served) == len(QUESTIONS)
        failed = read_jsonl(tmp_path / "failures-serve.jsonl", Failure)
        assert {failure.reason for failure in failed} <= {"unreachable", "cut"}
        assert failed
        assert not any(failure.final for failure in failed)
        assert len(read_jsonl(tmp_path / ".replies" / "serve.jsonl", Reply)) == len(QUESTIONS)

        *parts, last = engine.stream(ask("What is the sun?"), SHORT)
        assert last.completion is not None
        assert last.completion.completion_tokens == 6
        assert len(parts) > 1

        # It answers without the log-probabilities that it was asked for: that must not pass for a label.
        with pytest.raises(ServerStopped, match="no log-probabilities"):
            list(engine.label_logprobs(requests[:1], ["A", "B"]))

        # A temperature alone leaves it greedy; the dialect says do_sample.
        warm = Sampling(max_new_tokens=6, temperature=1.5, repetition_penalty=1.1, seed=1)
        (sampled,) = engine.generate([ask(QUESTIONS[1])], warm)
        assert sampled.text != served[QUESTIONS[1]].text

    local = open_engine(family, "base", batch_size=1)
    for done in local.generate(requests, SHORT):
        assert done.model_dump(exclude={"seed"}) == served[done.key].model_dump(exclude={"seed"})
