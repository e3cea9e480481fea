"""The ROC plot of the models that nothing was decided on: the scanner by its p-value, every baseline by its score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import svg
from benchmarks.baselines.summary import auc
from benchmarks.detection_summary import scan_score

_INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")
"""Told apart by colour-blind people too (Okabe and Ito); dashes tell them apart in print."""
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")
_SIDE, _LEFT, _TOP, _LINE = 320, 62, 44, 20


@dataclass(frozen=True)
class Curve:
    """A detector's trade-off: points of (clean models accused, backdoored models called so), both as shares."""

    name: str
    points: tuple[tuple[float, float], ...]
    area: float
    models: int

    @property
    def label(self) -> str:
        """What the legend says."""
        return f"{self.name}: AUC {self.area:.3f} over {self.models} models"


def curves(scans: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The scanner's curve and one for each baseline, as far as models of both kinds were looked at.

    Args:
        scans: rows of the detection benchmark.
        scores: those of the baselines, possibly none, or of part of the zoo.
    """
    detectors = {"lmsanitator": [{**row, "score": scan_score(row["p"])} for row in scans]}
    for row in scores:
        detectors.setdefault(row["baseline"], []).append(dict(row))
    drawn = (_curve(name, [row for row in rows if row["half"] != "choose"]) for name, rows in detectors.items())
    return [curve for curve in drawn if curve is not None]


def _curve(name: str, rows: Sequence[Mapping[str, Any]]) -> Curve | None:
    area = auc(rows)
    return None if area is None else Curve(name, _points(rows), area, len(rows))


def _points(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], ...]:
    """A point for every threshold that can be told apart, from the strictest; models of one score come together."""
    bad = [row["score"] for row in rows if row["backdoored"]]
    clean = [row["score"] for row in rows if not row["backdoored"]]
    thresholds = sorted({*bad, *clean}, reverse=True)
    points = [
        tuple(sum(score >= threshold for score in group) / len(group) for group in (clean, bad))
        for threshold in thresholds
    ]
    return ((0.0, 0.0), *((accused, called) for accused, called in points))


def chart(drawn: Sequence[Curve]) -> str:
    """The picture, with a legend that names every curve."""
    title = "Zoo, parts that settings were not chosen on: every threshold a detector could have"
    parts = [svg.words(14, 22, title, weight="bold")]
    for tick in range(0, 101, 20):
        across, down = _at(tick / 100, 0), _at(0, tick / 100)
        parts += [
            svg.path([across, _at(tick / 100, 1)], "#d8dee4"),
            svg.path([down, _at(1, tick / 100)], "#d8dee4"),
            svg.words(across[0], across[1] + 18, str(tick), anchor="middle"),
            svg.words(down[0] - 8, down[1] + 4, str(tick), anchor="end"),
        ]
    middle, bottom = _at(0.5, 0)
    parts.append(svg.words(middle, bottom + 38, "clean models accused, %", anchor="middle"))
    parts.append(
        f"<g transform='translate(18 {_TOP + _SIDE / 2}) rotate(-90)'>"
        + svg.words(0, 0, "backdoored models called so, %", anchor="middle")
        + "</g>"
    )
    parts.append(svg.path([_at(0, 0), _at(1, 1)], "#8c959f", dashes="3 3"))
    for number, curve in reversed(list(enumerate(drawn))):  # the scanner's lies on top
        ink, dashes = _INKS[number % len(_INKS)], _DASHES[number % len(_DASHES)]
        parts.append(svg.path([_at(*point) for point in curve.points], ink, width=2.5, dashes=dashes))
        x, y = _LEFT + _SIDE + 24, _TOP + 16 + number * _LINE
        parts.append(svg.path([(x, y - 4), (x + 32, y - 4)], ink, width=2.5, dashes=dashes))
        parts.append(svg.words(x + 40, y, curve.label))
    return svg.picture(_LEFT + _SIDE + 380, _TOP + _SIDE + 52, parts)


def _at(accused: float, called: float) -> tuple[float, float]:
    return _LEFT + accused * _SIDE, _TOP + (1 - called) * _SIDE
