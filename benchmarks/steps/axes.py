"""Axes to draw points, lines and bars on."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks import svg

BLUE, RED, GREY = "#0072b2", "#d55e00", "#afb8c1"
"""Told apart by colour-blind people too (Okabe and Ito)."""
_RULE = "#d8dee4"
_WIDTH, _TOP, _BOTTOM = 660, 52, 46


@dataclass(frozen=True)
class Axes:
    """Args:
    x, y: the ends of both axes.
    logarithmic: whether x is.
    rows: whether y counts rows that have names of their own.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    logarithmic: bool = False
    left: float = 62
    height: float = 360
    rows: bool = False

    @property
    def right(self) -> float:
        """Where the axes end on the right."""
        return _WIDTH - 20

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is in the picture."""
        ends = [math.log(end) for end in self.x] if self.logarithmic else self.x
        across = ((math.log(x) if self.logarithmic else x) - ends[0]) / (ends[1] - ends[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.height - _BOTTOM - up * (
            self.height - _TOP - _BOTTOM
        )

    def box(self, one: tuple[float, float], other: tuple[float, float], ink: str) -> str:
        """A filled box between two points."""
        (a, b), (c, d) = self.at(*one), self.at(*other)
        place = f"x='{min(a, c):.1f}' y='{min(b, d):.1f}'"
        return f"<rect {place} width='{max(abs(c - a), 0.5):.1f}' height='{abs(d - b):.1f}' fill='{ink}'/>"

    def frame(self, title: str, across: str, up: str) -> list[str]:
        """Title, rules, ticks and the names of the axes."""
        parts = [svg.words(14, 20, title, weight="bold")]
        bottom = self.height - _BOTTOM
        for tick in _powers(*self.x) if self.logarithmic else _ticks(*self.x):
            x, _ = self.at(tick, self.y[0])
            parts += [
                svg.path([(x, _TOP), (x, bottom)], _RULE),
                svg.words(x, bottom + 16, f"{tick:g}", anchor="middle"),
            ]
        for tick in [] if self.rows else _ticks(*self.y):
            _, y = self.at(self.x[0], tick)
            parts += [svg.path([(self.left, y), (self.right, y)], _RULE)]
            parts += [svg.words(self.left - 8, y + 4, f"{abs(tick) if up == 'texts' else tick:g}", anchor="end")]
        parts.append(svg.words((self.left + self.right) / 2, bottom + 36, across, anchor="middle"))
        middle = (_TOP + bottom) / 2
        turned = svg.words(0, 0, up, anchor="middle")
        return [*parts, f"<g transform='translate(18 {middle:.1f}) rotate(-90)'>{turned}</g>"]

    def legend(self, entries: Sequence[tuple[str, str]]) -> list[str]:
        """What the colours mean, in a row under the title."""
        parts, x = [], self.left
        for ink, text in entries:
            parts += [dots([(x + 4, 37)], ink, size=9), svg.words(x + 14, 41, text)]
            x += 32 + 6.6 * len(text)
        return parts

    def picture(self, parts: Iterable[str]) -> str:
        """The whole picture."""
        return svg.picture(_WIDTH, self.height, parts)


def dots(points: Iterable[tuple[float, float]], ink: str, *, size: float = 4) -> str:
    """Points as one path, so that thousands stay small."""
    drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    return f"<path d='{drawn}' stroke='{ink}' stroke-width='{size}' stroke-linecap='round' fill='none'/>"


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = size * next(factor for factor in (1, 2, 5, 10) if factor * size >= rough)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """The powers of ten between two."""
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
