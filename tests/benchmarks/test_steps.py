"""The pictures of the method's steps: well-formed, complete, and those of the recorded scan."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import RESULTS
from benchmarks.steps.axes import BLUE, RED, Axes
from benchmarks.steps.drawn import PICTURES

PLACE = Path(__file__).parents[2] / "docs" / "steps"


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((RESULTS / "steps.json").read_text(encoding="utf-8"))
    return recorded


@pytest.mark.parametrize("name", list(PICTURES))
def test_the_committed_pictures_are_drawn_from_the_committed_record(name: str, seen: dict[str, Any]) -> None:
    drawn = PICTURES[name](seen)
    assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own
    assert (PLACE / f"{name}.svg").read_text(encoding="utf-8") == drawn
    assert len(drawn) < 40_000


def test_planted_words_are_named_in_the_pictures_of_words(seen: dict[str, Any]) -> None:
    for name in ("sweep", "look"):
        drawn = PICTURES[name](seen)
        assert [word for word in seen["planted"] if f">{word}<" not in drawn] == []


def test_the_words_that_hold_what_is_planted_are_told_from_the_others(seen: dict[str, Any]) -> None:
    planted = seen["mined"].split("+")
    rows = [[" ".join(planted), 3.0], [planted[0], 2.0], ["lamp river", 1.0]]
    drawn = PICTURES["words"]({**seen, "mining": {**seen["mining"], "words": rows}})
    bars = [line for line in drawn.split("<rect")[1:] if RED in line or BLUE in line]
    assert [RED in bar for bar in bars] == [False, False, True]  # weakest first


def test_points_lie_between_the_ends_of_the_axes() -> None:
    axes = Axes((0.01, 100), (-1, 1), logarithmic=True)
    left, bottom = axes.at(0.01, -1)
    right, top = axes.at(100, 1)
    assert axes.at(1, 0) == pytest.approx(((left + right) / 2, (bottom + top) / 2))
    assert left < right < 660
    assert 0 < top < bottom < axes.height
