"""Line charts as inline SVG: no script and no file of its own, in the page's colours, with values where one points.

Browsers show the `title` of a point, or of a line, when the pointer rests on it.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

from .style import COLOURS

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 26, 46
STYLES = ("", "6 3", "2 3")
MOST_POINTS = 240


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart: `points` are (x, y), `tips` what is shown at each of them.

    `colour` and `style` are numbers; None of the colour means the place of the line in its chart. `marks` are dots.
    """

    label: str
    points: Sequence[tuple[float, float]]
    tips: Sequence[str]
    colour: int | None = None
    style: int = 0
    marks: bool = True


def chart(
    title: str, x: str, y: str, lines: Sequence[Line], *, log_x: bool = False, y_least: float | None = None
) -> str:
    """An SVG element with its legend; nothing where no line has a point. What is not finite is left out.

    Args:
      title, x, y: of the chart and of its axes.
      lines: drawn one over the other.
      log_x: a logarithmic axis, for positive x.
      y_least: what lies below is cut off.
    """
    drawn = [(number, line, _finite(line, log_x)) for number, line in enumerate(lines)]
    drawn = [(number, line, points) for number, line, points in drawn if points]
    if not drawn:
        return ""
    scale = math.log10 if log_x else float
    xs = [scale(px) for _, _, points in drawn for (px, _), _ in points]
    ys = [py for _, _, points in drawn for (_, py), _ in points]
    low, high = _range(xs)
    bottom, top = _range(ys if y_least is None else [max(py, y_least) for py in ys])
    to_x = lambda value: LEFT + (scale(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    to_y = lambda value: HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)
    parts = [f"<text class='title' x='{WIDTH / 2}' y='15' text-anchor='middle'>{html.escape(title)}</text>"]
    for value in _ticks(bottom, top):
        parts.append(f"<path class='grid' d='M{LEFT} {to_y(value):.1f}H{WIDTH - RIGHT}'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{to_y(value) + 4:.1f}' text-anchor='end'>{_number(value)}</text>")
    for value in _log_ticks(low, high) if log_x else _ticks(low, high):
        parts.append(f"<path class='grid' d='M{to_x(value):.1f} {TOP}V{HEIGHT - BOTTOM}'/>")
        parts.append(
            f"<text x='{to_x(value):.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{_number(value)}</text>"
        )
    parts.append(
        f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 10}' text-anchor='middle'>{html.escape(x)}</text>"
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f"<text transform='translate(14 {middle}) rotate(-90)' text-anchor='middle'>{html.escape(y)}</text>")
    legend = []
    for number, line, points in drawn:
        colour, dash = _look(number, line)
        inside = [((to_x(px), to_y(max(py, bottom))), tip) for (px, py), tip in points]
        path = "M" + "L".join(f"{px:.1f} {py:.1f}" for (px, py), _ in inside)
        label = html.escape(line.label)
        parts.append(
            f"<path class='line' stroke='{colour}' stroke-dasharray='{dash}' d='{path}'><title>{label}</title></path>"
        )
        radius = 2.5 if line.marks else 4
        shown = "" if line.marks else " fill-opacity='0'"  # there to be pointed at
        for (px, py), tip in inside:
            text = f"<title>{label}: {html.escape(tip)}</title>"
            parts.append(f"<circle cx='{px:.1f}' cy='{py:.1f}' r='{radius}' fill='{colour}'{shown}>{text}</circle>")
        legend.append(
            f"<li><svg width='26' height='8' aria-hidden='true'><path class='line' stroke='{colour}' "
            f"stroke-dasharray='{dash}' d='M0 4H26'/></svg> {label}</li>"
        )
    picture = (
        f"<svg class='chart' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' role='img' "
        f"aria-label='{html.escape(title, quote=True)}'>{''.join(parts)}</svg>"
    )
    return f"<div class='panel'>{picture}<ul class='legend'>{''.join(legend)}</ul></div>"


def _finite(line: Line, log_x: bool) -> list[tuple[tuple[float, float], str]]:
    """The points that can be drawn, with their tips; of very many every second, third, …"""
    found = [
        (point, tip)
        for point, tip in zip(line.points, line.tips, strict=True)
        if all(map(math.isfinite, point)) and not (log_x and point[0] <= 0)
    ]
    step = -(-len(found) // MOST_POINTS)
    return found[::step] + ([found[-1]] if step > 1 and (len(found) - 1) % step else []) if found else []


def _look(number: int, line: Line) -> tuple[str, str]:
    place = number if line.colour is None else line.colour
    return COLOURS[place % len(COLOURS)], STYLES[(line.style + place // len(COLOURS)) % len(STYLES)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about five."""
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; where that is too many, powers of ten alone, and where too few, round numbers."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [f * 10.0**power for power in powers for f in (1, 2, 5) if low <= math.log10(f * 10.0**power) <= high]
    if len(found) < 3:
        return _ticks(10**low, 10**high)
    return found if len(found) <= 8 else [value for value in found if math.log10(value).is_integer()]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
