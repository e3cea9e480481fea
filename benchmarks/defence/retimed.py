"""The cost of the guards on record, measured again: on a quiet machine, and on all clean texts of a cell.

A text that is flagged costs a purge, so that among a few texts one that happens to be flagged decides what comes out.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.defence.guarded import WATCHES, at_home, prepared, timed
from benchmarks.defence.guarded_tables import write
from benchmarks.defence.tuning import Cell
from benchmarks.pool import spread
from benchmarks.record import on_record
from lmsanitator.guard import Guard
from lmsanitator.tune import read_task

_ROUNDS = 3


def retime(zoo: Path, data: Path, jobs: int) -> None:
    """Replace the overhead of the cells where several guards were tried; all other figures stay as they are."""
    cells = {cell["name"]: cell for cell in on_record("defence", "cells")}
    home = [cell for cell in cells.values() if at_home(_cell_of(cell))]
    for name, figures in spread(partial(_timed_anew, zoo=zoo, data=data), home, jobs):
        for watch, measured in figures.items():
            cells[name][watch] |= measured
            print(f"{name}, {watch}: {measured['overhead']:.3f}", flush=True)
    write(cells)


def _timed_anew(measured: Mapping[str, Any], zoo: Path, data: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """The cost of each guard of a cell, by the pass that it watches."""
    cell = _cell_of(measured)
    ground = prepared(cell, read_task(data / cell.task), measured["planted"], zoo)
    guards: dict[str, Callable[[], Guard]] = {watch: partial(ground.guard, watch) for watch in ("raw", *WATCHES)}
    guards["wordless"] = partial(ground.guard, "raw", words=False)
    return measured["name"], {
        name: timed(guard(), ground.test, len(ground.test), _ROUNDS)
        for name, guard in guards.items()
        if "overhead" in measured[name]  # the others watch a pass that cannot be watched
    }


def _cell_of(measured: Mapping[str, Any]) -> Cell:
    return Cell(measured["victim"], measured["site"], measured["task"], measured["method"])
