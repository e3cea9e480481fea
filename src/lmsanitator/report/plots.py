"""Drawings of what a scan saw, as SVG inside a page, whose style sheet chooses their colours."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lmsanitator.detect.seen import NamedToken, Outputs, Searched, Vocabulary
from lmsanitator.report.plain import visible

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 16, 44
_APART = 13
"""Height of a line of text: of names closer than that the first is written."""


@dataclass(frozen=True)
class Axes:
    """A frame with its scales; `logarithmic` is the one across."""

    x: tuple[float, float]
    y: tuple[float, float]
    logarithmic: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn; beyond an edge it is on it."""
        along = _share(x, self.x, math.log if self.logarithmic else float)
        return (
            round(_LEFT + along * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - _share(y, self.y, float) * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def frame(self, across: str, up: str) -> list[str]:
        """Both axes with their names and the values at their ends."""
        left, bottom, top, right = _LEFT, _HEIGHT - _BOTTOM, _TOP, _WIDTH - _RIGHT
        across_ends, up_ends = _ends(self.x), _ends(self.y)
        return [
            f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>',
            _text(left, bottom + 16, across_ends[0]),
            _text(right, bottom + 16, across_ends[1], "end"),
            _text((left + right) / 2, bottom + 34, across, "middle"),
            _text(left - 6, bottom, up_ends[0], "end"),
            _text(left - 6, top + 10, up_ends[1], "end"),
            f'<text class="middle" transform="translate({left - 52} {(top + bottom) / 2}) rotate(-90)">{up}</text>',
        ]


def vocabulary(seen: Vocabulary, planted: Collection[str]) -> str:
    """The sweep: a grid that is darker where more tokens are, and the outliers by name.

    Args:
        planted: tokens of the triggers that were found.
    """
    across, up = seen.displacements, seen.spreads
    axes = Axes((across[0], across[-1]), (up[0], up[-1]), logarithmic=across[0] > 0)
    most = math.log1p(max((count for row in seen.counts for count in row if count > 0), default=1))
    parts: list[str] = []
    for row, low, high in zip(seen.counts, up, up[1:], strict=False):
        for count, left, right in zip(row, across, across[1:], strict=False):
            if count > 0:
                (x, bottom), (end, top) = axes.at(left, low), axes.at(right, high)
                ink = 0.12 + 0.78 * math.log1p(count) / most
                parts.append(
                    f'<rect class="many" x="{x}" y="{top}" width="{max(end - x, 1):.1f}" '
                    f'height="{max(bottom - top, 1):.1f}" fill-opacity="{ink:.2f}"/>'
                )
    parts += axes.frame("displacement, in clean variances", "spread left")
    ranked = sorted(seen.outliers, key=lambda item: item.token not in planted)
    parts += _dots(((axes.at(*_place(item)), item.token in planted) for item in ranked), "other")
    parts += _names([(axes.at(*_place(item)), item.token) for item in ranked])
    return _picture("All tokens of the vocabulary by displacement and spread", parts)


def outputs(seen: Outputs, names: Sequence[str]) -> str:
    """Outputs of clean and triggered passages in one plane.

    Args:
        names: of the triggers, in their order.
    """
    places = [*seen.clean, *(point for item in seen.triggered for point in item.points)]
    axes = Axes(_range([x for x, _ in places]), _range([y for _, y in places]))
    parts = axes.frame("first principal component", "second")
    parts += _dots(((axes.at(*point), False) for point in seen.clean), "clean")
    parts += _dots(((axes.at(*point), True) for item in seen.triggered for point in item.points), "clean")
    middles = [_middle(item.points) for item in seen.triggered if item.points]
    parts += _names([(axes.at(*middle), name) for middle, name in zip(middles, names, strict=False)])
    if seen.clean:
        parts += _names([(axes.at(*_middle(seen.clean)), "as they are")])
    return _picture("Outputs of passages without and with triggers", parts)


def growth(seen: Searched, planted: Collection[str]) -> str:
    """The strength of the best phrase toward each vector by its length; those that ended on a trigger by name."""
    lines = [line for line in seen.strengths if line]
    if not lines:
        return _picture(f"Phrases grown at {escape(seen.site)}: none", [_text(_LEFT, _TOP + 20, "none were grown")])
    longest = max(map(len, lines))
    axes = Axes((3, max(4, longest + 2)), _range([value for line in lines for value in line]))
    parts = axes.frame(f"tokens of the phrase, the most, at {seen.site}", "strength")
    found: list[tuple[tuple[float, float], str]] = []
    for phrase, line in zip(seen.phrases, seen.strengths, strict=False):
        ended = bool(line) and set(phrase.split(" ")) & set(planted) != set()
        path = "L".join("{} {}".format(*axes.at(3 + number, value)) for number, value in enumerate(line))
        parts.append(f'<path class="line{" found" if ended else ""}" d="M{path}"/>' if line else "")
        if ended:
            found.append((axes.at(3, line[0]), phrase))
    return _picture(f"Strength of the phrases grown at {escape(seen.site)}", [*parts, *_names(found)])


def _picture(label: str, parts: Iterable[str]) -> str:
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _dots(points: Iterable[tuple[tuple[float, float], bool]], ordinary: str) -> list[str]:
    return [
        f'<circle class="{"planted" if found else ordinary}" cx="{x}" cy="{y}" r="{4 if found else 3}"/>'
        for (x, y), found in points
    ]


def _names(points: Iterable[tuple[tuple[float, float], str]]) -> list[str]:
    """Names beside their points, the first come first; one that would lie on another is left out."""
    taken: list[tuple[float, float]] = []
    parts: list[str] = []
    for (x, y), name in points:
        width = 8 * len(visible(name)[:24])
        left = x + 7 if x + 7 + width < _WIDTH else x - 7 - width
        if any(abs(y - other) < _APART and abs(left - start) < 90 for start, other in taken):
            continue
        taken.append((left, y))
        parts.append(_text(left, y + 4, visible(name)[:24], "name"))
    return parts


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _place(item: NamedToken) -> tuple[float, float]:
    return item.displacement, item.spread


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest, with a little room."""
    if not values:
        return 0.0, 1.0
    room = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room


def _share(value: float, ends: tuple[float, float], scale: Callable[[float], float]) -> float:
    """How far along a value is; in the middle where there is no telling, as a file may say anything."""
    low, high = ends
    if not (high > low and math.isfinite(high - low)):
        return 0.5
    return (scale(min(max(value, low), high)) - scale(low)) / (scale(high) - scale(low))


def _ends(ends: tuple[float, float]) -> tuple[str, str]:
    """Both ends of a scale, in as few digits as tell them apart."""
    written = [tuple(f"{end:.{digits}g}" for end in ends) for digits in (2, 3, 4, 6)]
    low, high = next((pair for pair in written if pair[0] != pair[1]), written[0])
    return low, high
