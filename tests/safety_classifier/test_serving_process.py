"""The server as a process of its own: bad clients beside good ones, SIGTERM, a taken port."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.safety_classifier.stand_in import StandIn


class Server:
    """The stand-in behind uvicorn in a process of its own."""

    def __init__(self, *words):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "tests.safety_classifier.stand_in", str(self.port), *words]
        environment = {name: value for name, value in os.environ.items() if name != "SAFETY_CLASSIFIER_KEYS"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self):
        deadline = time.monotonic() + 900  # importing JAX takes long on a busy machine
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=30).status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        self.process.kill()
        output, _ = self.process.communicate()
        raise AssertionError(output.decode())

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit code and what was printed."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=300)
        return self.process.returncode, output.decode()


def raw_request(port, data):
    """Send bytes, return the status of the answer; 0 when the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=180) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := sock.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def http_post(body, *headers):
    lines = [b"POST /v1/classify HTTP/1.1", b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def garbage(number):
    """Bytes of a bad client: what is refused by the protocol, and what is refused by us."""
    chance = random.Random(number)
    json_type = b"Content-Type: application/json"
    noise = chance.randbytes(200)
    return [
        noise.replace(b"\n", b" ") + b"\r\n\r\n",
        b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (b"a" * 5000),
        http_post(noise, json_type),
        http_post(b"\x00" * 1000, json_type),
        http_post(b'{"text": "', json_type),
        http_post(b'{"text": [%d]}' % number, json_type),
        http_post(b'{"text": "' + b"x" * 300_000 + b'"}', json_type),
        http_post(b'{"text": "a"}'),
        http_post(b'{"inputs": [' + b",".join([b'{"text": "a"}'] * 100) + b"]}", json_type),
        b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        + json_type
        + b"\r\n\r\nZZ\r\nnot a chunk\r\n",
    ][number % 10]


def test_a_hundred_clients_of_which_half_send_garbage():
    words = ["hate", "bomb", "idiot", "stab", "flower", "suicide"]
    wrong, statuses, errors = [], [], []

    def good(number, url):
        chance = random.Random(number)
        with httpx.Client(base_url=url, timeout=180) as client:
            for _ in range(10):
                texts = [" ".join(chance.choices(words, k=chance.randint(0, 40))) for _ in range(chance.randint(1, 6))]
                response = client.post("/v1/classify", json={"inputs": [{"text": text} for text in texts]})
                expected = [StandIn().one(text).model_dump() for text in texts]
                if response.status_code != 200 or response.json()["results"] != expected:
                    wrong.append(response.text[:200])

    def bad(number, port):
        for turn in range(10):
            try:
                statuses.append(raw_request(port, garbage(number + turn)))
            except OSError as error:
                errors.append(repr(error))

    with Server() as server:
        clients = [threading.Thread(target=good, args=(n, server.url)) for n in range(50)]
        clients += [threading.Thread(target=bad, args=(n, server.port)) for n in range(50)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200
        code, output = server.stop()
    assert wrong == []
    assert errors == []
    assert {status // 100 for status in statuses} == {4}
    assert len(statuses) == 500
    assert code == 0
    assert "Traceback" not in output


def test_sigterm_finishes_what_is_queued_and_exits_with_0(tmp_path):
    hold = tmp_path / "hold"
    with Server(str(hold)) as server:
        hold.touch()
        answers = []

        def client(number):
            with httpx.Client(base_url=server.url, timeout=180) as one:
                answers.append(one.post("/v1/classify", json={"inputs": [{"text": f"bomb {number}"}] * 4}))

        threads = [threading.Thread(target=client, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        while "safety_classifier_requests_in_flight 13.0" not in httpx.get(f"{server.url}/metrics", timeout=60).text:
            assert all(thread.is_alive() for thread in threads)
            time.sleep(0.05)
        threading.Timer(1.0, hold.unlink).start()  # the model goes on after the signal
        code, output = server.stop()
        for thread in threads:
            thread.join()
    assert code == 0, output
    assert [answer.status_code for answer in answers] == [200] * 12
    assert all(one["flagged"]["dangerous_advice"] for answer in answers for one in answer.json()["results"])
    assert "Stopped" in output
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/healthz")


def test_a_taken_port_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        command = [sys.executable, "-m", "tests.safety_classifier.stand_in", str(sock.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.dumps(done.stdout) == '""'
