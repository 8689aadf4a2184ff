"""Prometheus metrics of a running command: an HTTP endpoint or a text file for node-exporter, where asked for.

``CAI_METRICS=9400`` serves ``/metrics`` on the loopback interface, ``CAI_METRICS=0.0.0.0:9400`` on all of them (what a
Pod needs), and ``CAI_METRICS=/run/metrics/train.prom`` keeps a text file. Not set: nothing is loaded or served.
Processes that torchrun starts side by side share the variable: the one with ``LOCAL_RANK`` n serves on the n-th port
after the one that is given, or writes ``train-n.prom``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs.errors import UsageError

VARIABLE = "CAI_METRICS"


class Meter:
    """Gauges of one command, named ``cai_<part>_<name>``.

    Args:
        part: what runs: ``sft``, ``dpo``, ``classifier``, ``evaluate``, ``critique_revision``.
        process: the process's number within its run; the label ``process`` of every gauge.

    Raises:
        UsageError: ``CAI_METRICS`` is none of its forms, or the port is taken.
    """

    def __init__(self, part: str, process: int = 0) -> None:
        self.part, self.process = part, str(process)
        self._gauges: dict[str, Any] = {}
        self._registry: Any = None
        self._file: Path | None = None
        target = os.environ.get(VARIABLE, "")
        if target:
            self._open(target)

    def _open(self, target: str) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        self._registry = CollectorRegistry()
        beside = int(os.environ.get("LOCAL_RANK") or 0)
        address = re.fullmatch(r"(?:(?P<host>[^/]+):)?(?P<port>\d+)", target)
        if address is None:
            if not target.endswith(".prom"):
                raise UsageError(
                    f"{VARIABLE} is {target!r}.", mend="Give a port, HOST:PORT, or a file that ends in .prom."
                )
            self._file = Path(target) if not beside else Path(target).with_name(f"{Path(target).stem}-{beside}.prom")
        else:
            host, port = address["host"] or "127.0.0.1", int(address["port"]) + beside
            try:
                start_http_server(port, addr=host, registry=self._registry)
            except OSError as error:
                raise UsageError(
                    f"Metrics cannot be served on {host}:{port}.",
                    why=f"{error.strerror}.",
                    mend=f"Set {VARIABLE} to a free port, or unset it.",
                ) from error
        self.set({"start_time_seconds": time.time()})

    def set(self, values: Mapping[str, float]) -> None:
        """Set gauges; names are made fit for Prometheus (``rewards/margins`` becomes ``rewards_margins``)."""
        if self._registry is None:
            return
        from prometheus_client import Gauge, write_to_textfile

        for name, value in values.items():
            full = f"cai_{self.part}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}"
            if full not in self._gauges:
                self._gauges[full] = Gauge(full, f"{name} of {self.part}", ["process"], registry=self._registry)
            self._gauges[full].labels(process=self.process).set(value)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_to_textfile(str(self._file), self._registry)
