"""Pictures of committed results: `python -m benchmarks.plots` writes into docs/ those whose results are there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import roc, svg
from benchmarks.defence import bars
from benchmarks.record import on_record

DOCS = Path(__file__).parents[1] / "docs"
_CELL, _LEFT, _TOP, _GAP = (64, 26), 112, 64, 18


def main() -> None:
    cells = on_record("vulnerability", "rows")
    guarded = on_record("defence", "rows")
    drawn = roc.curves(on_record("detection", "scans"), on_record("baselines", "scores"))
    pictures = {
        "vulnerability.svg": heatmap(cells) if cells else None,
        "roc.svg": roc.chart(drawn) if drawn else None,
        "defence.svg": bars.chart(guarded) if guarded else None,
    }
    for name, picture in pictures.items():
        if picture is None:
            print(f"{name}: nothing to draw, its results are not there")
        else:
            (DOCS / name).write_text(picture, encoding="utf-8")
            print(f"{name}: drawn")


def heatmap(rows: Sequence[Mapping[str, Any]]) -> str:
    """Attack success by task (down) and tuning method (across), one block an attack; white cells are not measured."""
    victims = list(dict.fromkeys(row["victim"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    value = {(row["victim"], row["task"], row["method"]): row["ASR %"] for row in rows}
    block = len(methods) * _CELL[0] + _GAP
    parts = [svg.words(14, 22, "Share of inputs whose label some trigger makes wrong, in %", weight="bold")]
    parts += [svg.words(14, _TOP + index * _CELL[1] + 17, task) for index, task in enumerate(tasks)]
    for number, victim in enumerate(victims):
        left = _LEFT + number * block
        parts.append(svg.words(left, 40, victim))
        for column, method in enumerate(methods):
            x = left + column * _CELL[0]
            parts.append(svg.words(x + _CELL[0] / 2, 57, method, anchor="middle"))
            for index, task in enumerate(tasks):
                parts.append(_cell(x, _TOP + index * _CELL[1], value.get((victim, task, method))))
    return svg.picture(_LEFT + len(victims) * block, _TOP + len(tasks) * _CELL[1] + 14, parts)


def _cell(x: float, y: float, share: float | None) -> str:
    """A field from white to red, with its figure."""
    if share is None:
        return ""
    fade = round(255 - 1.55 * share)
    ink = "#ffffff" if share > 70 else svg.INK
    box = f"<rect x='{x}' y='{y}' width='{_CELL[0] - 2}' height='{_CELL[1] - 2}' fill='rgb(255,{fade},{fade})'/>"
    return box + svg.words(x + _CELL[0] / 2 - 1, y + 17, f"{share:.0f}", anchor="middle", ink=ink)


if __name__ == "__main__":
    main()
