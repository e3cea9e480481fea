"""Drawings of predefined vectors, as SVG inside a page, whose style sheet chooses their colours."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.vectors import sign_match

DRAWN = 1024
"""Dimensions of a vector that are drawn at most: a strip of more would be finer than a screen and make a large file."""
_HALF = 20
_CELL = 28


def strip(values: Float[Tensor, "hidden"], label: str) -> str:
    """The values of a vector as bars, up where positive and down where negative. Bars end at the 95th percentile.

    Args:
        values: the vector.
        label: what a screen reader says, safe to put into an attribute.
    """
    drawn = values[:DRAWN]
    unit = max(float(drawn.abs().quantile(0.95)), torch.finfo(torch.float32).tiny)
    heights = (drawn / unit).clamp(-1, 1).mul(_HALF).round().int().tolist()
    width = len(heights)
    bars = {"up": "", "down": ""}
    start = 0
    for at in range(1, width + 1):  # neighbours of one height are one bar
        if at == width or heights[at] != heights[start]:
            if heights[start]:
                bars["up" if heights[start] > 0 else "down"] += (
                    f"M{start} {_HALF}v{-heights[start]}h{at - start}V{_HALF}z"
                )
            start = at
    paths = "".join(f'<path class="{side}" d="{path}"/>' for side, path in bars.items() if path)
    return (
        f'<svg class="strip" viewBox="0 0 {width} {2 * _HALF}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{paths}</svg>'
    )


def agreement(vectors: Sequence[Tensor], names: Sequence[str]) -> str:
    """In what share of the dimensions each two vectors have the same sign: as a square of cells, dark where they agree.

    Args:
        vectors: all of one length.
        names: short and safe, one for each.
    """
    rows = torch.stack(list(vectors)).float()
    shares = sign_match(rows, rows).tolist()
    size = _CELL * (len(names) + 1)
    cells = []
    for row, name in enumerate(names):
        middle = _CELL * (row + 1.5)
        cells.append(f'<text x="{_CELL / 2}" y="{middle + 4}">{name}</text>')
        cells.append(f'<text x="{middle}" y="{_CELL / 2 + 4}">{name}</text>')
        for column, share in enumerate(shares[row]):
            x, y = _CELL * (column + 1), _CELL * (row + 1)
            percent = f"{share:.0%}"
            # Vectors that have nothing to do with each other agree in half of the signs, so that colour starts there.
            ink = max(0.0, 2 * share - 1)
            cells.append(
                f'<g><title>{name} and {names[column]}: {percent}</title><rect class="cell" x="{x}" y="{y}" '
                f'width="{_CELL - 2}" height="{_CELL - 2}" fill-opacity="{ink:.2f}"/>'
                f'<text class="{"inked" if ink > 0.55 else "bare"}" x="{x + _CELL / 2 - 1}" y="{y + _CELL / 2 + 2}">'
                f"{percent[:-1]}</text></g>"
            )
    return (
        f'<svg class="agreement" viewBox="0 0 {size} {size}" width="{size}" role="img" '
        f'aria-label="Share of equal signs of each two vectors">{"".join(cells)}</svg>'
    )
