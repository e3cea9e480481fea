"""The guarded study as a picture: attack success without and with the guard, row by row."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import svg

BEFORE, AFTER = "#d1242f", "#0969da"
_LEFT, _TOP, _ROW, _WIDTH = 250, 62, 24, 400


def chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two bars a row: ASR of the classifier alone, and under guard."""
    parts = [
        svg.words(14, 22, "Share of inputs whose label some trigger makes wrong, in %", weight="bold"),
        svg.words(_LEFT, 46, "without the guard", ink=BEFORE),
        svg.words(_LEFT + 130, 46, "with it", ink=AFTER),
    ]
    for number, row in enumerate(rows):
        top = _TOP + number * _ROW
        parts.append(svg.words(14, top + 13, f"{row['victim']} {row['task']} {row['method']}"))
        parts += _bar(top, row["ASR %"], BEFORE)
        parts += _bar(top + 9, row["guarded ASR %"], AFTER)
    return svg.picture(_LEFT + _WIDTH + 60, _TOP + len(rows) * _ROW + 14, parts)


def _bar(top: float, share: float, ink: str) -> list[str]:
    """A bar, one pixel wide where there is nothing, and its figure."""
    width = max(1.0, share / 100 * _WIDTH)
    bar = f"<rect x='{_LEFT}' y='{top}' width='{width:.1f}' height='8' fill='{ink}'/>"
    return [bar, svg.words(_LEFT + width + 6, top + 8, f"{share:.3g}", ink=ink)]
