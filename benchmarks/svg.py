"""The few pieces of SVG that the pictures of results are drawn with."""

from collections.abc import Iterable
from html import escape

INK = "#1f2328"


def picture(width: float, height: float, parts: Iterable[str]) -> str:
    """The whole picture, on white."""
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>\n"
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>\n{body}\n</svg>\n"
    )


def words(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", ink: str = INK) -> str:
    """A line of text; x is where its anchor (start, middle, end) is, y its base line."""
    style = f"font-family='ui-sans-serif, system-ui, sans-serif' font-size='12' fill='{ink}'"
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' font-weight='{weight}' {style}>{escape(text)}</text>"


def path(points: Iterable[tuple[float, float]], ink: str, *, width: float = 1, dashes: str = "none") -> str:
    """A line through points."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f"<polyline points='{joined}' fill='none' stroke='{ink}' stroke-width='{width}' stroke-dasharray='{dashes}'/>"
    )
