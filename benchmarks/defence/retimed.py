"""The cost of the guards on record, measured again: on a quiet machine, and on all clean texts of a cell.

A text that is flagged costs a purge, so that among a few texts one that happens to be flagged decides what comes out.
"""

from pathlib import Path

from benchmarks.defence.guarded import WATCHES, at_home, prepared, timed
from benchmarks.defence.guarded_tables import write
from benchmarks.defence.tuning import Cell
from benchmarks.record import on_record
from lmsanitator.tune import read_task

_ROUNDS = 3


def retime(zoo: Path, data: Path) -> None:
    """Replace the overhead of the cells where several guards were tried; all other figures stay as they are."""
    cells = on_record("defence", "cells")
    for measured in cells:
        cell = Cell(measured["victim"], measured["site"], measured["task"], measured["method"])
        if not at_home(cell):
            continue
        ground = prepared(cell, read_task(data / cell.task), measured["planted"], zoo)
        for watch in ("raw", *WATCHES):
            if "overhead" not in measured[watch]:  # a pass that cannot be watched
                continue
            measured[watch] |= timed(ground.guard(watch), ground.test, len(ground.test), _ROUNDS)
            print(f"{cell.name}, {watch}: {measured[watch]['overhead']:.3f}", flush=True)
    write({cell["name"]: cell for cell in cells})
