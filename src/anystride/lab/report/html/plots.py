"""Plots as SVG: points and lines that show their numbers under the mouse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40


@dataclass(frozen=True)
class Series:
    """Points (x, y, tip) of one colour.

    Args:
        colour: of points and line.
        points: with the text that is shown under the mouse.
        line: joins them.
        dashed: breaks the line.
        marks: whether the points are drawn.
        hollow: whether they are rings.
        link: the addresses that they lead to.
        label: stands beside the first point.
    """

    colour: str
    points: Sequence[tuple[float, float, str]]
    line: bool = False
    dashed: bool = False
    marks: bool = True
    hollow: bool = False
    link: Sequence[str] = ()
    label: str = ""


def plot(series: Sequence[Series], x: str, y: str, *, log: bool = False) -> str:
    """One SVG with axes named `x` and `y`; `log` concerns x."""
    points = [point for each in series for point in each.points]
    if not points:
        return "<p class='soft'>No run of this figure is finished.</p>"
    forward: Callable[[float], float] = math.log10 if log else float
    across = _range([forward(point[0]) for point in points])
    up = _range([point[1] for point in points])

    def to_pixels(px: float, py: float) -> tuple[float, float]:
        right = (forward(px) - across[0]) / (across[1] - across[0])
        high = (py - up[0]) / (up[1] - up[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y)} against {escape(x)}">']
    for value in _ticks(*up):
        level = to_pixels(points[0][0], value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{level + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _decades(*across) if log else _ticks(*across):
        column = LEFT + ((math.log10(value) if log else value) - across[0]) / (across[1] - across[0]) * (
            WIDTH - LEFT - RIGHT
        )
        parts.append(f'<text x="{column:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:g}</text>')
    floor = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    half = (TOP + floor) / 2
    parts.append(f'<text x="13" y="{half}" text-anchor="middle" transform="rotate(-90 13 {half})">{escape(y)}</text>')
    for each in series:
        parts += _drawn(each, to_pixels)
    return "".join([*parts, "</svg>"])


def _drawn(series: Series, to_pixels: Callable[[float, float], tuple[float, float]]) -> list[str]:
    parts = []
    if series.line:
        path = " ".join("{:.1f},{:.1f}".format(*to_pixels(px, py)) for px, py, _ in series.points)
        dash = ' stroke-dasharray="5 3"' if series.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="1.6"{dash}/>')
    for number, (px, py, text) in enumerate(series.points if series.marks else ()):
        cx, cy = to_pixels(px, py)
        tip = escape(text, quote=True)
        paint = f'fill="{series.colour}" fill-opacity=".8"'
        if series.hollow:
            paint = f'fill="{series.colour}" fill-opacity="0" stroke="{series.colour}" stroke-width="1.6"'
        mark = (
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4.5" {paint} tabindex="0" data-tip="{tip}">'
            f"<title>{tip}</title></circle>"
        )
        if series.label and number == 0:
            # To the left where the right end is near.
            near = cx > WIDTH - RIGHT - 60
            place = f'x="{cx - 7:.1f}" text-anchor="end"' if near else f'x="{cx + 7:.1f}"'
            parts.append(f'<text {place} y="{cy + 4:.1f}">{escape(series.label)}</text>')
        link = series.link[number] if number < len(series.link) else ""
        parts.append(f'<a href="{escape(link, quote=True)}">{mark}</a>' if link else mark)
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low)
    if margin < 1e-6 * max(abs(low), abs(high), 1e-3):  # as good as equal
        margin = max(abs(low) * 0.1, 0.5)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten, or only the powers where these are many."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    apart = max(1, round((high - low) / 8))
    powers = range(math.floor(low), math.ceil(high) + 1, apart)
    every = [factor * 10.0**power for power in powers for factor in steps]
    return [value for value in every if low <= math.log10(value) <= high]
