"""The pictures: one for each step, of what `watched` recorded."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import svg
from benchmarks.steps.axes import BLUE, GREY, RED, Axes, dots

Seen = Mapping[str, Any]
_BINS = 40


def sweep(seen: Seen) -> str:
    """Displacement across, spread up; what is planted by name."""
    points = [(max(x, 0.01), y, short, word) for x, y, short, word in seen["sweep"]["points"]]
    top = max(y for _, y, _, _ in points)
    axes = Axes((0.01, 1.5 * max(x for x, *_ in points)), (0, top), logarithmic=True)
    ordinary = [(x, y) for x, y, short, word in points if not short and not word]
    short = [(x, y) for x, y, short, word in points if short and not word]
    title = f"Sweep at CLS: {seen['sweep']['tokens']:,} tokens, of which {len(ordinary)} ordinary ones are drawn"
    parts = axes.frame(title, "displacement, in clean variances", "spread left")
    parts += [
        dots(map(axes.at, *zip(*ordinary, strict=True)), GREY),
        dots(map(axes.at, *zip(*short, strict=True)), BLUE),
    ]
    parts += _named(axes, [(x, y, word) for x, y, _, word in points if word])
    parts += axes.legend([(GREY, "ordinary"), (BLUE, "shortlist"), (RED, "planted")])
    return axes.picture(parts)


def look(seen: Seen) -> str:
    """The shortlist in long passages, with the lines from which on distance and constancy are significant."""
    singles = set(seen["planted"])
    rows = [(max(x, 1e-4), y, word) for x, y, word in seen["look"]["outliers"]]
    far, constant = seen["look"]["far"], seen["look"]["constant"]
    reach = [x for x, *_ in rows]
    axes = Axes((min(reach) / 1.5, 2 * max(reach)), (0, max(y for _, y, _ in rows)), logarithmic=True)
    parts = axes.frame(
        f"Second look at CLS: {len(rows)} outliers in passages of text",
        "distance, in standard deviations of clean text along the way",
        "spread left",
    )
    if far < axes.x[1]:
        parts.append(svg.path([axes.at(far, axes.y[0]), axes.at(far, axes.y[1])], svg.INK, dashes="5 4"))
    if constant is not None:
        parts.append(svg.path([axes.at(axes.x[0], constant), axes.at(axes.x[1], constant)], svg.INK, dashes="5 4"))
    parts.append(dots([axes.at(x, y) for x, y, word in rows if word not in singles], BLUE))
    parts += _named(axes, [row for row in rows if row[2] in singles])
    line = [(svg.INK, "significantly far or constant")] if far < axes.x[1] or constant is not None else []
    parts += axes.legend([(BLUE, "outliers"), (RED, "planted"), *line])
    return axes.picture(parts)


def mining(seen: Seen) -> str:
    """The strength of each candidate by step."""
    lines = list(zip(*seen["mining"]["steps"], strict=True))
    values = [value for line in lines for value in line]
    axes = Axes((1, len(seen["mining"]["steps"])), (min(values), max(values)))
    parts = axes.frame(f"Mining at CLS, {seen['mined']} planted: {len(lines)} candidates", "step", "strength")
    for line in lines:
        parts.append(svg.path([axes.at(number, value) for number, value in enumerate(line, 1)], BLUE, width=1.5))
    parts += axes.legend([(BLUE, "candidates; how far one gets says nothing")])
    return axes.picture(parts)


def words(seen: Seen) -> str:
    """The strongest words on the way to each candidate's vector, weakest first."""
    rows = sorted(seen["mining"]["words"], key=lambda row: row[1])
    planted = set(seen["mined"].split("+"))
    bars = [(phrase, value, planted <= set(phrase.split())) for phrase, value in rows]
    title = f"Words on the way to each candidate, {seen['mined']} planted"
    return _bars(title, "strength, before refinement", bars, ("holds what is planted", "other"), left=410)


def confirmation(seen: Seen) -> str:
    """How far below one each suspect's p-value is, on fresh text."""
    kept = [(words, -log_p / math.log(10), words in seen["planted"]) for words, log_p in seen["confirmation"]["kept"]]
    lost = [("did not replay", -log_p / math.log(10), False) for log_p in seen["confirmation"]["lost"]]
    bars = sorted(kept + lost, key=lambda bar: bar[1])
    return _bars("Confirmation on fresh text", "-log10 of the p-value", bars, line=-math.log10(seen["level"]))


def verdict(seen: Seen) -> str:
    """The smallest p-value of both encoders."""
    smallest = {"as published": seen["verdict"]["clean"], "backdoored": seen["verdict"]["backdoored"]}
    bars = [(name, -math.log10(max(p, 1e-300)), name == "backdoored") for name, p in smallest.items()]
    return _bars("Verdict", "-log10 of the p-value", bars, line=-math.log10(seen["verdict"]["level"]))


def guard(seen: Seen) -> str:
    """Clean texts upwards, triggered ones downwards."""
    values = seen["guard"]
    low, high = (end(min(part) if end is min else max(part) for part in values.values()) for end in (min, max))
    width = (high - low) / _BINS
    counts = {
        name: Counter(min(_BINS - 1, int((value - low) / width)) for value in part) for name, part in values.items()
    }
    top = max(count for part in counts.values() for count in part.values())
    axes = Axes((low, high), (-top, top))
    total = len(values["clean"])
    parts = axes.frame(
        f"Guard: {total} clean texts (up), the same with a trigger (down)", "match beyond the threshold", "texts"
    )
    for name, ink, way in (("clean", BLUE, 1), ("triggered", RED, -1)):
        for place, count in counts[name].items():
            left, right = low + place * width, low + (place + 0.9) * width
            parts.append(axes.box((left, 0), (right, way * count), ink))
    parts.append(svg.path([axes.at(0, -top), axes.at(0, top)], svg.INK, dashes="5 4"))
    parts += axes.legend([(BLUE, "clean"), (RED, "triggered"), (svg.INK, "flagged to the right")])
    return axes.picture(parts)


PICTURES: Mapping[str, Callable[[Seen], str]] = {
    "sweep": sweep,
    "look": look,
    "mining": mining,
    "words": words,
    "confirmation": confirmation,
    "verdict": verdict,
    "guard": guard,
}
"""By name of the file in docs/steps/."""


def _named(axes: Axes, points: Sequence[tuple[float, float, str]]) -> list[str]:
    """Planted words: dots, and their names one above the other, as the dots may lie close together."""
    parts = [dots([axes.at(x, y) for x, y, _ in points], RED, size=7)]
    for number, (x, y, word) in enumerate(sorted(points)):
        across, down = axes.at(x, y)
        down -= 10 + 16 * number
        parts.append(svg.path([(across, down + 4), axes.at(x, y)], RED, width=0.5))
        parts.append(svg.words(across, down, word, anchor="end" if across > axes.right - 60 else "middle", ink=RED))
    return parts


def _bars(
    title: str,
    across: str,
    bars: Sequence[tuple[str, float, bool]],
    kinds: tuple[str, str] = ("planted", "other"),
    line: float | None = None,
    left: float = 270,
) -> str:
    """Bars with names: those of the first kind, which they say themselves, in red."""
    high = max([value for _, value, _ in bars] + [line or 0.0]) * 1.05
    low = min([value for _, value, _ in bars] + [0.0])
    axes = Axes((low, high), (0, len(bars)), left=left, height=90 + 20 * len(bars), rows=True)
    parts = axes.frame(title, across, "")
    for place, (name, value, first) in enumerate(bars):
        parts.append(axes.box((0, place + 0.15), (value, place + 0.85), RED if first else BLUE))
        parts.append(svg.words(axes.left - 8, axes.at(0, place + 0.5)[1] + 4, name, anchor="end"))
    if line is not None:
        parts.append(svg.path([axes.at(line, 0), axes.at(line, len(bars))], svg.INK, dashes="5 4"))
    parts += axes.legend([(RED, kinds[0]), (BLUE, kinds[1]), *([] if line is None else [(svg.INK, "level")])])
    return axes.picture(parts)
