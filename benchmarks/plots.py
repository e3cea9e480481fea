"""Pictures of committed results: `python -m benchmarks.plots` writes them into docs/."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

DOCS = Path(__file__).parents[1] / "docs"
_CELL, _LEFT, _TOP, _GAP = (64, 26), 112, 64, 18
_FONT = "font-family='ui-sans-serif, system-ui, sans-serif' font-size='12' fill='#1f2328'"


def main() -> None:
    rows = json.loads((RESULTS / "vulnerability.json").read_text(encoding="utf-8"))["rows"]
    (DOCS / "vulnerability.svg").write_text(heatmap(rows), encoding="utf-8")


def heatmap(rows: Sequence[Mapping[str, Any]]) -> str:
    """Attack success by task (down) and tuning method (across), one block an attack; white cells are not measured."""
    victims = list(dict.fromkeys(row["victim"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    value = {(row["victim"], row["task"], row["method"]): row["ASR %"] for row in rows}
    block = len(methods) * _CELL[0] + _GAP
    width, height = _LEFT + len(victims) * block, _TOP + len(tasks) * _CELL[1] + 14
    parts = [_text(14, 22, "Share of inputs whose label some trigger makes wrong, in %", weight="bold")]
    parts += [_text(14, _TOP + index * _CELL[1] + 17, task) for index, task in enumerate(tasks)]
    for number, victim in enumerate(victims):
        left = _LEFT + number * block
        parts.append(_text(left, 40, victim))
        for column, method in enumerate(methods):
            x = left + column * _CELL[0]
            parts.append(_text(x + _CELL[0] / 2, 57, method, anchor="middle"))
            for index, task in enumerate(tasks):
                parts.append(_cell(x, _TOP + index * _CELL[1], value.get((victim, task, method))))
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>\n"
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>\n{body}\n</svg>\n"
    )


def _cell(x: float, y: float, share: float | None) -> str:
    """A field from white to red, with its figure."""
    if share is None:
        return ""
    fade = round(255 - 1.55 * share)
    ink = "#ffffff" if share > 70 else "#1f2328"
    box = f"<rect x='{x}' y='{y}' width='{_CELL[0] - 2}' height='{_CELL[1] - 2}' fill='rgb(255,{fade},{fade})'/>"
    return box + _text(x + _CELL[0] / 2 - 1, y + 17, f"{share:.0f}", anchor="middle", ink=ink)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", ink: str = "#1f2328") -> str:
    style = _FONT.replace("#1f2328", ink)
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' font-weight='{weight}' {style}>{escape(text)}</text>"


if __name__ == "__main__":
    main()
