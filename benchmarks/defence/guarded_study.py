"""The guarded study: the victims under guard, on every task with prefix tuning, on one with the other methods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.defence.guarded import made_by, measure
from benchmarks.defence.guarded_tables import write
from benchmarks.defence.study import Study
from benchmarks.defence.tuning import TASKS, VICTIMS, Cell, triggers_of
from lmsanitator.tune import METHODS

_LARGE = Cell("mpnet-por", "cls", "sst2", "p-tuning")
"""One model of another architecture and size, with a method that it takes."""


def grid() -> list[Cell]:
    """The large model, which takes longest and so comes first; prefix tuning on all tasks, the other methods on one."""
    cells = [Cell(victim, site, task, "prefix") for task in TASKS for victim, site in VICTIMS.items()]
    for method in METHODS:
        cells += [Cell(victim, site, TASKS[0], method) for victim, site in VICTIMS.items() if method != "prefix"]
    return [_LARGE, *cells]


def examine(cell: Cell, zoo: Path, data: Path) -> dict[str, Any]:
    """One cell."""
    return measure(cell, triggers_of(cell.victim), zoo, data)


def current(cell: Mapping[str, Any]) -> bool:
    """Whether a cell was measured as it would be now."""
    now = made_by(Cell(cell["victim"], cell["site"], cell["task"], cell["method"]))
    return all(cell[name] == value for name, value in now.items())


def shown(cell: Mapping[str, Any]) -> str:
    clean, once, thrice = cell["clean"], cell["x1"], cell["x3"]
    return (
        f"CACC {clean['cacc']:.3f} to {clean['cacc_guarded']:.3f}, "
        f"ASR {once['asr_unguarded']:.3f} to {once['asr']:.3f}, "
        f"three times {thrice['asr_unguarded']:.3f} to {thrice['asr']:.3f}, {cell['seconds']:.0f} s"
    )


STUDY = Study("defence", grid(), examine, current, write, shown)
