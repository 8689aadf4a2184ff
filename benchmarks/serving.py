"""The highest load that a running server answers with p99 under a bound.

    uv run safety-classifier serve &                     # or: python -m tests.safety_classifier.stand_in 8080
    uv run python benchmarks/serving.py [--url http://127.0.0.1:8080] [--texts FILE.jsonl] [--p99-ms 100]

Requests arrive as a Poisson process at a stated rate, whether or not earlier ones have been answered (an open loop:
clients that wait for their answer would slow down with the server and hide its queue). A latency counts from the moment
at which the request was due. The rate doubles until a trial fails, then bisects; a trial fails when p99 exceeds the
bound, or when more than 0.1 % of the requests are refused. The best rate is then measured again. The generator runs on
the same machine and takes its share of the cores: its CPU time is printed.

Texts: the file's column ``text``, else sentences with the lengths of short forum posts (log-normal, median 19 words).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

REFUSED = 0.001
LOWEST = 1.0
"""Requests a second below which no load is looked for."""
WORDS = """
    the of and to in is you that it for was on are as with they be at one have this from or had by not but some what
    there we can out other were all your when up use how said an each she which do their time if will way about many
    then them would write like so these her long make thing see him two has look more day could go come did my sound
    people river friend angry stupid hurt weather kitchen terrible wonderful question answer medicine weapon neighbour
"""


@dataclass(frozen=True)
class Trial:
    """What one rate gave."""

    rate: float
    """Requests a second that were sent."""
    milliseconds: list[float]
    """Sorted latencies of the requests that were answered."""
    refused: int
    cpu: float
    """Share of one core that the generator used."""

    def percentile(self, share: float) -> float:
        """A latency; infinite when nothing was answered."""
        if not self.milliseconds:
            return math.inf
        return self.milliseconds[min(len(self.milliseconds) - 1, math.ceil(share * len(self.milliseconds)) - 1)]

    def holds(self, bound: float) -> bool:
        """Whether the bound was kept and (nearly) nothing refused."""
        total = len(self.milliseconds) + self.refused
        return self.percentile(0.99) <= bound and self.refused <= REFUSED * total


def texts_of(path: Path | None, count: int, seed: int) -> list[str]:
    """The texts to send."""
    chance = random.Random(seed)
    if path is not None:
        texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return chance.choices(texts, k=count)
    words = WORDS.split()
    lengths = (max(1, min(250, round(math.exp(chance.gauss(math.log(19), 0.8))))) for _ in range(count))
    return [" ".join(chance.choices(words, k=length)) for length in lengths]


async def trial(
    client: httpx.AsyncClient, rate: float, seconds: float, texts: list[str], rows: int, seed: int
) -> Trial:
    """Send at ``rate`` for ``seconds``."""
    chance = random.Random(seed)
    found: list[float] = []
    refused = 0

    async def one(due: float, batch: list[str]) -> None:
        nonlocal refused
        body = {"inputs": [{"text": text} for text in batch]}
        try:
            response = await client.post("/v1/classify", json=body)
        except httpx.TransportError:
            refused += 1
            return
        if response.status_code == 200:
            found.append(1000 * (time.perf_counter() - due))
        else:
            refused += 1

    started, used = time.perf_counter(), time.process_time()
    due, number, tasks = started, 0, []
    while due < started + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        batch = [texts[(number * rows + offset) % len(texts)] for offset in range(rows)]
        tasks.append(asyncio.create_task(one(due, batch)))
        number += 1
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    elapsed = time.perf_counter() - started
    return Trial(number / seconds, sorted(found), refused, (time.process_time() - used) / elapsed)


def show(one: Trial, rows: int, bound: float) -> None:
    """One line of the table."""
    milliseconds = "  ".join(f"{one.percentile(share):8.1f}" for share in (0.5, 0.95, 0.99))
    verdict = "kept" if one.holds(bound) else "missed"
    print(f"{one.rate:8.1f}  {one.rate * rows:8.1f}  {milliseconds}  {one.refused:7d}  {one.cpu:6.0%}  {verdict}")


async def search(options: argparse.Namespace) -> None:
    """Find the highest rate and print every trial."""
    headers = {"Authorization": f"Bearer {os.environ[options.key_env]}"} if options.key_env in os.environ else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    texts = texts_of(options.texts, 5_000, options.seed)
    async with httpx.AsyncClient(base_url=options.url, headers=headers, limits=limits, timeout=30) as client:
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.5)
        mean = sum(len(text.split()) for text in texts) / len(texts)
        print(
            f"{options.url}: {options.rows} texts a request, {mean:.0f} words a text, p99 bound {options.p99_ms:g} ms"
        )
        load = os.getloadavg()[0]
        print(f"load average before the first request: {load:.1f} on {os.cpu_count()} cores")
        print("   req/s   texts/s    p50 ms    p95 ms    p99 ms  refused  client")

        async def measure(rate: float) -> Trial:
            seconds = max(options.seconds, options.requests / rate)  # a p99 of a handful of requests is noise
            found = await trial(client, rate, seconds, texts, options.rows, options.seed)
            show(found, options.rows, options.p99_ms)
            await asyncio.sleep(1)  # the queue of a missed trial empties
            return found

        await trial(client, 5, 2, texts, options.rows, options.seed)
        low, high = 0.0, options.start
        while (await measure(high)).holds(options.p99_ms):
            low, high = high, 2 * high
        while high - low > options.precision * high and high > LOWEST:
            middle = (low + high) / 2
            low, high = (middle, high) if (await measure(middle)).holds(options.p99_ms) else (low, middle)
        if not low:
            print("no load kept the bound")
            return
        print("the highest load, again:")
        await measure(low)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--texts", type=Path, help="JSON lines with a column 'text'")
    parser.add_argument("--rows", type=int, default=1, help="texts a request")
    parser.add_argument("--p99-ms", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one trial")
    parser.add_argument("--requests", type=int, default=300, help="of one trial, at least")
    parser.add_argument("--start", type=float, default=20.0, help="first rate, requests a second")
    parser.add_argument("--precision", type=float, default=0.1, help="bisect until the rate is known to this share")
    parser.add_argument("--key-env", default="SAFETY_CLASSIFIER_KEY", help="environment variable with a key, if needed")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(search(parser.parse_args()))


if __name__ == "__main__":
    main()
