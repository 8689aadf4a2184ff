"""The highest load that a running server answers with p99 under a bound.

    uv run safety-classifier serve &                     # or: python -m tests.safety_classifier.stand_in 8080
    uv run python benchmarks/serving.py [--url http://127.0.0.1:8080] [--texts FILE.jsonl] [--p99-ms 100] [--json FILE]

Requests arrive as a Poisson process at a stated rate, whether or not earlier ones have been answered (an open loop:
clients that wait for their answer would slow down with the server and hide its queue). A latency counts from the moment
at which the request was due. The rate doubles until a trial fails, then bisects; a trial fails when p99 exceeds the
bound, or when more than 0.1 % of the requests are refused. The best rate is then measured again, and lowered until it
holds. The generator runs on the same machine and takes its share of the cores: its CPU time is printed.
``--json`` keeps the result; `scripts/update_benchmarks.py` puts it into docs/benchmarks.md.

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
from pathlib import Path
from typing import Any

import httpx

from benchmarks.classifier_report import table
from benchmarks.machine import processor
from runs.config import StrictModel
from runs.environment import hardware

REFUSED = 0.001
LOWEST = 1.0
"""Requests a second below which no load is looked for."""
WORDS = """
    the of and to in is you that it for was on are as with they be at one have this from or had by not but some what
    there we can out other were all your when up use how said an each she which do their time if will way about many
    then them would write like so these her long make thing see him two has look more day could go come did my sound
    people river friend angry stupid hurt weather kitchen terrible wonderful question answer medicine weapon neighbour
"""


class Trial(StrictModel):
    """What one rate gave."""

    rate: float
    """Requests a second that were sent."""
    p50: float | None
    """Milliseconds; None when nothing was answered."""
    p95: float | None
    p99: float | None
    answered: int
    refused: int
    client: float
    """Share of one core that the generator used."""

    def holds(self, bound: float) -> bool:
        """Whether the bound was kept and (nearly) nothing refused."""
        few = self.refused <= REFUSED * (self.answered + self.refused)
        return few and self.p99 is not None and self.p99 <= bound


class Serving(StrictModel):
    """One search."""

    date: str
    hardware: dict[str, Any]
    load_average: float
    """Over the minute before the first request."""
    rows: int
    """Texts a request."""
    words: float
    """The mean of a text."""
    bound: float
    """On p99, in milliseconds."""
    seconds: float
    """Of one trial, at least."""
    trials: list[Trial]
    highest: Trial | None
    """The best rate of the search, measured again, and lowered until it held."""


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
    found.sort()
    p50, p95, p99 = (found[math.ceil(share * len(found)) - 1] if found else None for share in (0.5, 0.95, 0.99))
    return Trial(
        rate=number / seconds,
        p50=p50,
        p95=p95,
        p99=p99,
        answered=len(found),
        refused=refused,
        client=(time.process_time() - used) / elapsed,
    )


def show(one: Trial, rows: int, bound: float) -> None:
    """One line of the table."""
    milliseconds = "  ".join(f"{math.inf if value is None else value:8.1f}" for value in (one.p50, one.p95, one.p99))
    verdict = "kept" if one.holds(bound) else "missed"
    print(f"{one.rate:8.1f}  {one.rate * rows:8.1f}  {milliseconds}  {one.refused:7d}  {one.client:6.0%}  {verdict}")


async def search(options: argparse.Namespace) -> Serving:
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

        trials: list[Trial] = []

        async def measure(rate: float) -> Trial:
            seconds = max(options.seconds, options.requests / rate)  # a p99 of a handful of requests is noise
            found = await trial(client, rate, seconds, texts, options.rows, options.seed)
            show(found, options.rows, options.p99_ms)
            trials.append(found)
            await asyncio.sleep(1)  # the queue of a missed trial empties
            return found

        await trial(client, 5, 2, texts, options.rows, options.seed)
        low, high = 0.0, options.start
        while (await measure(high)).holds(options.p99_ms):
            low, high = high, 2 * high
        while high - low > options.precision * high and high > LOWEST:
            middle = (low + high) / 2
            low, high = (middle, high) if (await measure(middle)).holds(options.p99_ms) else (low, middle)
        print("the highest load, again:" if low else "no load kept the bound")
        highest = None
        while low > LOWEST and highest is None:
            again = await measure(low)
            highest = again if again.holds(options.p99_ms) else None
            low *= 1 - options.precision
    return Serving(
        date=time.strftime("%Y-%m-%d"),
        hardware={**hardware(), "processor": processor()},
        load_average=load,
        rows=options.rows,
        words=mean,
        bound=options.p99_ms,
        seconds=options.seconds,
        trials=trials,
        highest=highest,
    )


def report(serving: Serving) -> str:
    """The result in Markdown."""
    machine = f"{serving.hardware['processor']}, {serving.hardware['cores']} cores"
    head = (
        f"{serving.date}, {machine}, load average before: {serving.load_average:.1f}; {serving.rows} text(s) a request,"
        f" {serving.words:.0f} words a text, trials of at least {serving.seconds:g} s.\n"
    )
    if serving.highest is None:
        return f"{head}\nNo load kept p99 under {serving.bound:g} ms.\n"
    rows = [
        [
            f"{one.rate:.0f}",
            *("-" if value is None else f"{value:.0f}" for value in (one.p50, one.p95, one.p99)),
            str(one.refused),
            f"{one.client:.0%}",
            "kept" if one.holds(serving.bound) else "missed",
        ]
        for one in serving.trials
    ]
    found = f"Highest load with p99 under {serving.bound:g} ms: **{serving.highest.rate:.0f} requests a second**"
    columns = ["requests a second", "p50, ms", "p95", "p99", "refused", "client's share of a core", "bound"]
    again = "The best rate of the search is measured again at the end, and lowered until it holds."
    return f"{head}\n{found} (p99 {serving.highest.p99:.0f} ms). {again}\n\n{table(columns, rows)}"


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
    parser.add_argument("--json", type=Path, help="keep the result here")
    options = parser.parse_args()
    found = asyncio.run(search(options))
    if options.json is not None:
        options.json.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
