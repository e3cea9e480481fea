"""A guarded service under load: throughput, latency, backpressure and memory, with many clients on loopback.

    python -m benchmarks.serving demo/tuned --report demo/scan.json

Starts `lmsanitator serve` as a process of its own and lets every client post one text after the other over a
connection that it keeps: the packaged topics' test texts, every tenth with a trigger that the scan named. A client that
is told to come back later (503) waits as long as Retry-After says. Memory is the resident memory of the service.
"""

import argparse
import http.client
import json
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.record import record
from lmsanitator.detect import ScanReport
from lmsanitator.text import insert, spans
from lmsanitator.tune import packaged_topics

_HOST = "127.0.0.1"
_START = "from lmsanitator.cli import main; main()"


@dataclass
class Seen:
    """What the clients saw."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    flagged: int = 0
    errors: int = 0
    undeclared: int = 0
    """503 without Retry-After."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    texts = inputs(ScanReport.load(options.report))
    command = [
        sys.executable,
        "-c",
        _START,
        "serve",
        str(options.tuned),
        "--report",
        str(options.report),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:  # noqa: S603
        assert service.stderr is not None  # noqa: S101 - for the type checker
        port = listening(service)
        log: list[dict[str, Any]] = []
        reading = threading.Thread(target=lambda lines: log.extend(parsed(lines)), args=(service.stderr,))
        reading.start()  # a full pipe would hold the service up
        load(port, texts, options.clients, min(2.0, options.seconds / 4))  # not measured: the first passes are slower
        before = memory(service.pid)
        seen, seconds = load(port, texts, options.clients, options.seconds)
        after = memory(service.pid)
        service.send_signal(signal.SIGTERM)
        stopped = service.wait()
        reading.join()
    end = next((entry for entry in log if entry["event"] == "stopped"), {"accepted": None, "answered": None})
    row = {
        "clients": options.clients,
        "seconds": seconds,
        "texts/s": seen.statuses[200] / seconds,
        "p50 ms": quantile(seen.milliseconds, 0.5),
        "p99 ms": quantile(seen.milliseconds, 0.99),
        "answered": seen.statuses[200],
        "flagged": seen.flagged,
        "503 with Retry-After": seen.statuses[503] - seen.undeclared,
        "other statuses": seen.statuses.total() - seen.statuses[200] - seen.statuses[503] + seen.undeclared,
        "broken connections": seen.errors,
        "MiB at start": before,
        "MiB at end": after,
    }
    notes = [
        "Latency is that of answered requests, as a client sees it; every client has one request open at a time.",
        f"Of {end['accepted']} accepted requests {end['answered']} were answered; exit code {stopped}.",
        "Clients and service share the machine.",
    ]
    record("serving", [row], notes)


def inputs(report: ScanReport) -> list[str]:
    """The texts that are sent, in the order in which clients take them."""
    rng = random.Random(0)
    named = [finding.trigger for finding in report.findings if finding.trigger]
    texts = [example.text for example in packaged_topics(0).test]
    if named:
        texts[::10] = [insert(text, rng.choice(named), rng.randint(0, len(spans(text)))) for text in texts[::10]]
    return texts


def listening(service: "subprocess.Popen[str]") -> int:
    """The port, as soon as the service says so."""
    for line in service.stderr or ():
        for entry in parsed([line]):
            if entry["event"] == "listening":
                return int(entry["port"])
    raise RuntimeError(f"expected a service that listens, it ended with exit code {service.wait()}")


def parsed(lines: Any) -> list[dict[str, Any]]:
    """Log lines; what was written before the log began is no JSON."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def load(port: int, texts: list[str], clients: int, seconds: float) -> tuple[Seen, float]:
    """Let clients post until the time is over; what they saw, and how long it took until the last had its answer."""
    seen, lock = Seen(), threading.Lock()
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        jobs = [
            pool.submit(post_until, started + seconds, port, texts[number:] + texts[:number], seen, lock)
            for number in range(clients)
        ]
        for job in jobs:
            job.result()
    return seen, time.perf_counter() - started


def post_until(deadline: float, port: int, texts: list[str], seen: Seen, lock: threading.Lock) -> None:
    """One client."""
    number = 0
    with closing(http.client.HTTPConnection(_HOST, port, timeout=120)) as connection:
        while time.perf_counter() < deadline:
            body = json.dumps({"text": texts[number % len(texts)]}).encode()
            number += 1
            started = time.perf_counter()
            try:
                connection.request("POST", "/classify", body)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                with lock:
                    seen.errors += 1
                continue
            taken = 1000 * (time.perf_counter() - started)
            later = response.headers.get("Retry-After")
            with lock:
                seen.statuses[response.status] += 1
                seen.undeclared += response.status == 503 and later is None
                if response.status == 200:
                    seen.milliseconds.append(taken)
                    seen.flagged += json.loads(content)["flagged"]
            if response.status == 503:
                time.sleep(float(later or 1))


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def memory(process: int) -> float:
    """Resident memory in MiB, NaN where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), math.nan)


if __name__ == "__main__":
    main()
