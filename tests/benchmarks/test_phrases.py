"""The search for phrases over trials: what a line says, and that runs resume."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import phrases, record
from benchmarks.detection import scanner
from benchmarks.phrases import MODELS, line
from benchmarks.zoo.build import find
from benchmarks.zoo.manifest import Backdoored
from lmsanitator.errors import UsageError


def test_the_models_are_of_the_part_that_settings_are_chosen_on_and_planted_where_it_looks() -> None:
    entries = [find(name) for name in MODELS]
    assert all(entry.half == "choose" for entry in entries)
    assert {entry.site for entry in entries if isinstance(entry, Backdoored)} == {phrases.SITE}
    assert any(not isinstance(entry, Backdoored) for entry in entries)


def trial(reached: int | None, *found: str, nearest: Sequence[float] = ()) -> dict[str, Any]:
    said = {"tokens": 300, "found": list(found)}
    return said if reached is None else {**said, "reached": reached, "nearest": list(nearest)}


def test_a_line_counts_what_each_trial_reached_and_how_near_mining_came() -> None:
    trials = [trial(2, "a b", "c d", nearest=[0.9, 0.8]), trial(0, nearest=[0.5, 0.7])]
    said = line({"id": "m", "triggers": ["a b", "c d"], "trials": trials})
    assert said["PVs reached"] == "2 of 2, 0 of 2"
    assert (said["nearest, median"], said["nearest, least"]) == (0.75, 0.5)
    assert said["words"] == "a b, c d; none"
    assert said["tokens"] == 300


def test_a_line_of_a_clean_encoder_says_what_was_found_without_anything_planted() -> None:
    said = line({"id": "m", "triggers": [], "trials": [trial(None), trial(None, "x")]})
    assert (said["triggers"], said["PVs reached"], said["nearest, median"]) == ("none", "-", "-")
    assert said["words"] == "none; x"


def test_a_run_goes_on_where_it_was_stopped_and_a_model_built_anew_is_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def at_once(function: Callable[[Any], Any], pieces: Sequence[Any], jobs: int) -> Iterator[Any]:
        return map(function, pieces)

    def examine(model: dict[str, Any], zoo: Path) -> dict[str, Any]:
        searched.append(model["id"])
        return {**model, "triggers": [], "trials": [trial(None)], "scanner": scanner()}

    searched: list[str] = []
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "_module", lambda: "benchmarks.phrases")
    monkeypatch.setattr(phrases, "spread", at_once)
    monkeypatch.setattr(phrases, "examine", examine)
    models = [{"id": "l3-por-and", "sha256": "x"}, {"id": "l3-original", "sha256": "y"}]
    phrases.search(models, tmp_path, 1)
    phrases.search([{**models[0], "sha256": "z"}, models[1]], tmp_path, 1)
    assert searched == ["l3-por-and", "l3-original", "l3-por-and"]
    assert "1 of 2 models are on record, 1 to do" in capsys.readouterr().out
    kept = json.loads((tmp_path / "phrases.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in kept["rows"]] == ["l3-por-and", "l3-original"]
    with pytest.raises(UsageError, match=r"^expected l3-original in the zoo, build it: "):
        phrases.search([{"id": "l3-original", "sha256": None}], tmp_path, 1)
