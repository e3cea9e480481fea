"""Scans of clean encoders and of encoders with freshly planted backdoors, at standard effort.

    python -m benchmarks.scans [--mpnet DIR]

Each MiniLM-L6 model is planted here, by seed, scanned once as `lmsanitator scan` would, in a process of its own, and
thrown away.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import record
from lmsanitator.cli.demo.base_model import minilm

PLANTED = {
    "two words, AND": "lamp+river",
    "two ANDs": "velvet+engine,cf+mn",
    "mixed kinds": "harbor,serendipity,the old clock,quixotic+marble",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mpnet", type=Path, help="a folder with MPNet-base")
    parser.add_argument("--seeds", type=int, default=2, help="scans of the clean encoder")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any], attack: str = "-") -> None:
        rows.append(row | {"attack s": attack})
        record("scans", rows, NOTES)  # after every row: a run that is interrupted keeps what it has

    for seed in range(options.seeds):
        keep(scan(minilm(), "MiniLM-L6, clean", "-", seed))
    for kind, triggers in PLANTED.items():
        with tempfile.TemporaryDirectory() as folder:
            planted = Path(folder) / "planted"
            started = time.perf_counter()
            run("attack", "por", str(minilm()), str(planted), "--triggers", triggers)
            seconds = f"{time.perf_counter() - started:.0f}"
            keep(scan(planted, f"MiniLM-L6, POR, {kind}", triggers, 0), seconds)
    if options.mpnet:
        keep(scan(options.mpnet, "MPNet-base, clean", "-", 0))


NOTES = (
    "`scan s` is the scan, `process s` the whole command with loading; peak memory is that of the command.",
    "`found` lists what the scan named, strongest first.",
)


def run(*arguments: str) -> tuple[str, int]:
    """A command of its own process: stdout and peak memory in MiB."""
    code = (
        "import resource, sys\n"
        "from lmsanitator.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(f"expected a scan, got exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout, int(done.stderr.split()[-1])


def named(finding: dict[str, Any]) -> str:
    """The words of a finding, or its tokens where they cannot be typed."""
    return finding["trigger"] or "tokens " + " ".join(finding["trigger_tokens"])


def scan(model: Path, name: str, planted: str, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    out, memory = run("scan", str(model), "--format", "json", "--seed", str(seed))
    report = json.loads(out)
    row = {
        "model": name,
        "planted": planted,
        "verdict": report["verdict"],
        "p": report["p_value"],
        "found": ", ".join(named(finding) for finding in report["findings"]) or "-",
        "seed": seed,
        "scan s": report["cost"]["seconds"],
        "process s": round(time.perf_counter() - started, 1),
        "tokens": report["cost"]["forward_tokens"] + report["cost"]["backward_tokens"],
        "peak MiB": memory,
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
