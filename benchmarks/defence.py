"""Prompt-tuned models under attack: attack x task x tuning method.

    python -m benchmarks.defence --unguarded --data DIR [--zoo DIR] [--tasks sst2 ...] [--methods prefix ...] [--jobs N]

Without the guard this is the paper's vulnerability study. Every cell tunes one task on one model of the zoo and attacks
the result, and the same on the clean encoder with the same head for comparison. Results are written after every cell
to `benchmarks/results/vulnerability.json`; a run goes on from there, so that the grid may be filled bit by bit.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from benchmarks.pool import spread
from benchmarks.record import RESULTS, record
from benchmarks.vulnerability import STEPS, TASKS, Cell, measure
from benchmarks.zoo.build import find
from benchmarks.zoo.manifest import Backdoored
from lmsanitator.errors import LMSanitatorError, UsageError
from lmsanitator.tune import METHODS, HeadSite

CLEAN = "l6-original"
VICTIMS: Mapping[str, HeadSite] = {"l6-por-rare": "cls", "l6-neuba-cls": "cls", "l6-btop-rare": "mask"}
"""Backdoored models of the zoo, and where their task heads read: where the backdoor is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unguarded", action="store_true", required=True, help="the vulnerability study")
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each task")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    try:
        study(options.tasks, options.methods, options.zoo, options.data, options.jobs)
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def study(tasks: Sequence[str], methods: Sequence[str], zoo: Path, data: Path, jobs: int) -> None:
    """Measure the cells of these tasks and methods that are not on record as they are now; the table is written after
    each."""
    measured = {cell["name"]: cell for cell in on_record() if _current(cell)}
    wanted = [cell for cell in grid() if cell.task in tasks and cell.method in methods]
    missing = [cell for cell in wanted if cell.name not in measured]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} cells are there, {len(missing)} to measure", flush=True)
    for count, done in enumerate(spread(partial(_measure, zoo=zoo, data=data), missing, jobs), 1):
        measured[done["name"]] = done
        write(measured)
        shown = f"CACC {done['cacc']:.3f}, ASR {done['asr']:.3f}, {done['seconds']:.0f} s"
        print(f"[{count}/{len(missing)}] {done['name']}: {shown}", flush=True)
    write(measured)


def _current(cell: Mapping[str, Any]) -> bool:
    """Whether a cell was measured as it would be now, on a victim of the present recipe."""
    return bool(cell["steps"] == STEPS and cell["recipe"] == find(cell["victim"]).recipe)


def grid() -> list[Cell]:
    """Every cell, the clean references among them; prefix tuning, which the paper is about, first."""
    cells: dict[Cell, None] = {}
    for method in METHODS:
        for task in TASKS:
            for victim, site in VICTIMS.items():
                cells |= {Cell(CLEAN, site, task, method): None, Cell(victim, site, task, method): None}
    return list(cells)


def _measure(cell: Cell, zoo: Path, data: Path) -> dict[str, Any]:
    """A clean encoder is attacked with the triggers of the first victim: nothing should happen."""
    entry = find(next(iter(VICTIMS)) if cell.victim == CLEAN else cell.victim)
    if not isinstance(entry, Backdoored):
        raise UsageError(f"expected a backdoored model, {entry.id} is clean")
    return measure(cell, entry.triggers, zoo, data) | {"recipe": find(cell.victim).recipe}


def on_record() -> list[dict[str, Any]]:
    """The cells measured so far."""
    path = RESULTS / "vulnerability.json"
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    return cells


def write(measured: Mapping[str, Mapping[str, Any]]) -> None:
    """The table: one line a backdoored model, task and method, beside the clean encoder with the same head."""
    rows: list[dict[str, Any]] = []
    for cell in grid():
        clean = measured.get(Cell(CLEAN, cell.site, cell.task, cell.method).name)
        done = measured.get(cell.name)
        if cell.victim == CLEAN or done is None or clean is None:
            continue
        rows.append(
            {
                "victim": cell.victim,
                "task": cell.task,
                "method": cell.method,
                "head": cell.site,
                "CACC clean %": 100 * clean["cacc"],
                "CACC %": 100 * done["cacc"],
                "ASR %": 100 * done["asr"],
                "ASR clean %": 100 * clean["asr"],
                "one trigger %": 100 * done["asr_mean"],
                "same label %": 100 * done["constant"],
                "s": round(done["seconds"]),
            }
        )
    inherited = sum(row["ASR %"] >= 90 for row in rows)
    close = sum(row["CACC %"] >= row["CACC clean %"] - 2 for row in rows)
    cells = len(VICTIMS) * len(TASKS) * len(METHODS)
    weak = [row for row in rows if row["ASR %"] < 90]
    others = ", ".join(f"{row['victim']} {row['task']} {row['method']}" for row in weak if row["method"] != "lora")
    why = (
        f"{sum(row['method'] == 'lora' for row in weak)} of the {len(weak)} rows below 90 % are LoRA, which moves the "
        f"encoder and the vectors with it; the others are {others}."
    )
    notes = (
        f"{len(rows)} of {cells} rows are measured. ASR is 90 % or more in {inherited} of them.",
        f"CACC is at most 2 points below the clean encoder's (`CACC clean`, same head) in {close}.",
        why,
        "`ASR`: share of inputs classified right that any trigger makes wrong, as the paper counts.",
        "`ASR clean`: the same on the clean encoder, which knows no trigger; `one trigger`: mean over the triggers.",
        "`same label`: share of triggered inputs that get the label most common under their trigger.",
        f"{STEPS} steps of 16 examples; heads are linear, read where the backdoor is; 400 test examples, 80 attacked.",
    )
    if rows:
        record("vulnerability", rows, notes, cells=list(measured.values()))


if __name__ == "__main__":
    main()
