"""The vulnerability study: the grid has a clean reference for every cell, and a run goes on where it was stopped."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record
from benchmarks.defence.tuning import CLEAN, STEPS, TASKS, VICTIMS, Cell, _made_of
from benchmarks.defence.vulnerability_study import STUDY, grid, write
from benchmarks.pool import spread
from benchmarks.zoo.build import find
from benchmarks.zoo.manifest import read
from lmsanitator.tune import METHODS, Example, Task


def figures(cell: Cell, asr: float = 1.0) -> dict[str, Any]:
    shares = {"cacc": 0.9, "asr": asr, "asr_mean": asr / 2, "constant": 1.0, "attacked": 80, "seconds": 1.0}
    return {**vars(cell), "name": cell.name, "steps": STEPS, "recipe": find(cell.victim).recipe, **shares}


def test_every_victim_is_in_the_zoo_and_every_cell_has_its_clean_reference() -> None:
    assert {CLEAN, *VICTIMS} <= {entry.id for entry in read()}
    cells = grid()
    assert len(cells) == len(set(cells)) == (len(VICTIMS) + 2) * len(TASKS) * len(METHODS)
    assert all(Cell(CLEAN, cell.site, cell.task, cell.method) in cells for cell in cells)
    assert cells[0].method == "prefix"


def test_what_was_tuned_on_other_weights_or_examples_is_tuned_anew() -> None:
    cell = grid()[0]
    example, other = Example("a line", 0), Example("another", 1)
    task = Task(("a", "b"), (example,), (example,), (example,))
    made = _made_of(cell, task, "weights")
    assert made == _made_of(cell, replace(task, test=(other,)), "weights")
    assert made != _made_of(cell, task, "of another build")
    assert made != _made_of(cell, replace(task, train=(other,)), "weights")
    assert made != _made_of(replace(cell, method="lora"), task, "weights")


class Asked:
    """Stands in for the measurement; notes what was asked for, and stops after so many cells."""

    def __init__(self, most: int = 10**6, other: Mapping[str, object] | None = None) -> None:
        self.most, self.other = most, other or {}
        self.names: list[str] = []

    def __call__(self, cell: Cell, zoo: Path, data: Path) -> dict[str, Any]:
        if len(self.names) == self.most:
            raise KeyboardInterrupt
        self.names.append(cell.name)
        return {**figures(cell), **self.other}


def test_a_run_goes_on_where_it_was_stopped(results: Path) -> None:
    first, second = Asked(most=3), Asked()
    with pytest.raises(KeyboardInterrupt):
        replace(STUDY, measure=first).run(["sst2"], ["prefix"], results, results, 1)
    assert len(json.loads((results / "vulnerability.json").read_text(encoding="utf-8"))["cells"]) == 3
    replace(STUDY, measure=second).run(["sst2"], ["prefix"], results, results, 1)
    assert len(second.names) == 2
    assert not set(first.names) & set(second.names)


@pytest.mark.parametrize("other", [{"steps": STEPS - 1}, {"recipe": "of another model"}])
def test_cells_measured_otherwise_are_measured_again(other: dict[str, object], results: Path) -> None:
    asked = Asked(other=other)
    for _ in range(2):
        replace(STUDY, measure=asked).run(["sst2"], ["prefix"], results, results, 1)
    assert len(asked.names) == 10


def test_a_row_needs_its_clean_reference(results: Path) -> None:
    alone = Cell("l6-por-rare", "cls", "sst2", "prefix")
    write({alone.name: figures(alone)})
    assert not (results / "vulnerability.json").exists()
    clean = Cell(CLEAN, "cls", "sst2", "prefix")
    write({alone.name: figures(alone, 0.95), clean.name: figures(clean, 0.1)})
    written = json.loads((results / "vulnerability.json").read_text(encoding="utf-8"))
    (row,) = written["rows"]
    assert (row["ASR %"], row["ASR clean %"]) == (95.0, 10.0)
    assert "90 % or more in 1 of them" in written["notes"][0]


def test_work_is_spread_over_processes() -> None:
    assert sorted(spread(abs, [-3, 2, -1], 2)) == [1, 2, 3]


def test_what_is_only_told_anew_keeps_who_measured_it(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record.record("some", [{"a": 1}], ["before"])
    monkeypatch.setattr(record, "_module", lambda: "benchmarks.other")
    record.record("some", [{"a": 1}], ["after"], anew=False)
    told = (results / "some.md").read_text(encoding="utf-8")
    assert "after" in told
    assert "`python -m benchmarks.defence" in told
    record.record("some", [{"a": 2}], ["after"])
    assert "`python -m benchmarks.other" in (results / "some.md").read_text(encoding="utf-8")
