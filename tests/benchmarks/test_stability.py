"""Seeds and repeated scans: what counts as steady, and that runs resume."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record, stability
from benchmarks.stability import MODELS, SEEDS, Piece, line, notes
from benchmarks.zoo.build import find
from benchmarks.zoo.manifest import Backdoored
from lmsanitator.errors import UsageError


def test_the_models_are_five_of_each_kind_from_the_report_half_all_made_otherwise() -> None:
    entries = [find(name) for name in MODELS]
    assert all(entry.half == "report" and entry.encoder != "mpnet-base" for entry in entries)
    backdoored = [entry for entry in entries if isinstance(entry, Backdoored)]
    assert len(backdoored) == len(entries) - len(backdoored) == 5
    assert len({(entry.attack, entry.kind) for entry in backdoored}) == 5
    assert len({entry.control for entry in entries if not isinstance(entry, Backdoored)}) == 5


def row(seed: int, verdict: str = "backdoored", *, again: bool = False, p: float = 1e-9, **more: Any) -> dict[str, Any]:
    said = {"id": "m", "backdoored": True, "seed": seed, "again": again, "verdict": verdict, "p": p, "findings": []}
    return {**said, "s": 1.0, "tokens": 5, "effort": "standard", "scanner": "s", "sha256": "x", **more}


def test_a_model_is_steady_where_all_seeds_say_the_same() -> None:
    steady = line([*map(row, SEEDS), row(0, again=True)])
    assert (steady["one verdict"], steady["verdicts"]) == (True, "5 backdoored")
    assert (steady["verdict again"], steady["report again"]) == (True, True)
    shaky = line([row(0), row(1, "clean", p=0.5), row(0, again=True, findings=[{"site": "cls"}])])
    assert (shaky["one verdict"], shaky["verdicts"]) == (False, "1 backdoored, 1 clean")
    assert (shaky["verdict again"], shaky["report again"]) == (True, False)
    assert (shaky["p from"], shaky["to"]) == (1e-9, 0.5)


@pytest.mark.parametrize("scans", [[row(1)], [row(0, again=True)], [row(0)]])
def test_what_was_not_repeated_says_nothing_of_repetition(scans: Sequence[dict[str, Any]]) -> None:
    assert (line(scans)["verdict again"], line(scans)["report again"]) == ("-", "-")


def test_the_notes_count_models_with_all_of_their_seeds() -> None:
    whole = line([*map(row, SEEDS), row(0, again=True)])
    half = line([row(0), row(0, again=True, p=2e-9)])
    innocent = line([row(seed, "clean", backdoored=False) for seed in SEEDS])
    said = notes([whole, half, innocent])
    assert said[0] == "The same verdict over 5 seeds: 1 of 2 backdoored models and 1 of 1 clean models."
    assert "verdict on 2 of 2 models" in said[1]
    assert said[2].endswith("last digit on 1 of 2 models.")
    assert notes([])[0] == "The same verdict over 5 seeds: 0 of 0 backdoored models and 0 of 0 clean models."


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def at_once(function: Callable[[Any], Any], pieces: Sequence[Any], jobs: int) -> Iterator[Any]:
        return map(function, pieces)

    def examine(piece: Piece, zoo: Path, effort: str) -> dict[str, Any]:
        name, sha256 = piece.model["id"], piece.model["sha256"]
        return row(piece.seed, again=piece.again, id=name, effort=effort, sha256=sha256)

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "_module", lambda: "benchmarks.stability")
    monkeypatch.setattr(stability, "spread", at_once)
    monkeypatch.setattr(stability, "examine", examine)
    monkeypatch.setattr(stability, "scanner", lambda: "s")
    return tmp_path


ZOO = [{"id": name, "sha256": name} for name in ("a", "b")]


def test_every_seed_is_scanned_once_and_the_first_twice(results: Path) -> None:
    stability.repeat(ZOO, results, "standard", 1)
    written = json.loads((results / "stability.json").read_text(encoding="utf-8"))
    done = [(scan["seed"], scan["again"]) for scan in written["scans"] if scan["id"] == "a"]
    assert done == [(0, False), (0, True), (1, False), (2, False), (3, False), (4, False)]
    assert "| a | backdoored | 5 | 5 backdoored | yes |" in (results / "stability.md").read_text(encoding="utf-8")


def test_a_run_goes_on_where_it_was_stopped(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, bool]] = []
    examine = stability.examine

    def stopped(piece: Piece, zoo: Path, effort: Any) -> dict[str, Any]:
        if len(seen) == 7:
            raise KeyboardInterrupt
        seen.append((piece.model["id"], piece.seed, piece.again))
        return examine(piece, zoo, effort)

    monkeypatch.setattr(stability, "examine", stopped)
    with pytest.raises(KeyboardInterrupt):
        stability.repeat(ZOO, results, "standard", 1)
    first = list(seen)
    seen.clear()
    stability.repeat(ZOO, results, "standard", 1)
    assert len(seen) == 5
    assert len({*first, *seen}) == 12
    seen.clear()
    stability.repeat([ZOO[0] | {"sha256": "anew"}, ZOO[1]], results, "standard", 1)
    assert {name for name, _, _ in seen} == {"a"}
    seen.clear()
    monkeypatch.setattr(stability, "scanner", lambda: "another")
    stability.repeat(ZOO[:1], results, "standard", 1)
    assert len(seen) == 6


def test_a_model_that_is_not_built_stops_the_run(results: Path) -> None:
    with pytest.raises(UsageError, match="build it"):
        stability.repeat([{"id": "l6-por-rare"}], results, "standard", 1)
