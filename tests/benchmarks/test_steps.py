"""The pictures of the method's steps: well-formed, complete, and those of the recorded scan."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import RESULTS
from benchmarks.steps.axes import Axes
from benchmarks.steps.drawn import PICTURES, _lines

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


def test_a_candidate_keeps_its_line_through_the_rungs() -> None:
    steps = [[1.0, 3.0, 2.0], [5.0, 1.0, 4.0], [7.0, 6.0], [9.0]]
    assert _lines(steps) == [[1.0, 5.0, 7.0, 9.0], [3.0, 1.0], [2.0, 4.0, 6.0]]


def test_points_lie_between_the_ends_of_the_axes() -> None:
    axes = Axes((0.01, 100), (-1, 1), logarithmic=True)
    left, bottom = axes.at(0.01, -1)
    right, top = axes.at(100, 1)
    assert axes.at(1, 0) == pytest.approx(((left + right) / 2, (bottom + top) / 2))
    assert left < right < 660
    assert 0 < top < bottom < axes.height
