"""A grid of cells that is measured bit by bit: results are written after every cell, and a run goes on from there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.defence.tuning import Cell
from benchmarks.pool import spread
from benchmarks.record import on_record

Measure = Callable[[Cell, Path, Path], dict[str, Any]]
"""The figures of a cell, given where the zoo and the data are."""


@dataclass(frozen=True)
class Study:
    """Args:
    result: the result file's name.
    cells: the whole grid, in the order it is measured in.
    measure: the figures of one cell, given the zoo and the data; runs in a process of its own.
    current: whether a cell on record is as it would be measured now.
    write: makes the result file of what is measured, by name of cell.
    shown: a line to say what came out of a cell.
    """

    result: str
    cells: Sequence[Cell]
    measure: Measure
    current: Callable[[Mapping[str, Any]], bool]
    write: Callable[[Mapping[str, Mapping[str, Any]]], None]
    shown: Callable[[Mapping[str, Any]], str]

    def run(self, tasks: Sequence[str], methods: Sequence[str], zoo: Path, data: Path, jobs: int) -> None:
        """Measure the cells of these tasks and methods that are not on record as they are now."""
        measured = {cell["name"]: cell for cell in on_record(self.result, "cells") if self.current(cell)}
        wanted = [cell for cell in self.cells if cell.task in tasks and cell.method in methods]
        missing = [cell for cell in wanted if cell.name not in measured]
        print(f"{len(wanted) - len(missing)} of {len(wanted)} cells are there, {len(missing)} to measure", flush=True)
        for count, done in enumerate(spread(partial(_at, self.measure, zoo, data), missing, jobs), 1):
            measured[done["name"]] = done
            self.write(measured)
            print(f"[{count}/{len(missing)}] {done['name']}: {self.shown(done)}", flush=True)


def _at(measure: Measure, zoo: Path, data: Path, cell: Cell) -> dict[str, Any]:
    return measure(cell, zoo, data)
