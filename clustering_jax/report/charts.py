"""The charts of the report: lines, bars, a confusion matrix. Pure functions from numbers to markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from clustering_jax.report.markup import Html, element, joined
from clustering_jax.report.svg import (
    DASHES,
    LEFT,
    LETTER,
    RIGHT,
    TOP,
    WIDTH,
    Frame,
    colour,
    figure,
    line,
    marker,
    number,
    spread,
    text,
    ticks,
)

POINTS = 300  # largest number of points in a line; more points are averaged
SHADE = 0.6  # opacity of a full cell; text on it is readable in light and in dark mode
WRITTEN = 12  # largest number of bars, classes or clusters whose values are written in the chart


def thinned(x: Sequence[float], y: Sequence[float], most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Averages neighbouring points, so that at most `most` points are left."""
    parts = max(min(len(x), most), 1)

    def means(values: Sequence[float]) -> np.ndarray:
        return np.array([part.mean() for part in np.array_split(np.asarray(values, float), parts) if part.size])

    return means(x), means(y)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str = "step",
    limits: tuple[float, float] | None = None,
    x_limits: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    note: str = "",
) -> Html:
    """A line chart.

    Args:
      series: ``{name: (x, y)}``, one line each. A value that is not finite is a gap.
      title: title of the chart.
      x_label: label of the x axis.
      limits: limits of the y axis; None fits them to the values.
      x_limits: limits of the x axis; None fits them to the values.
      marks: ``(x, word)`` for vertical lines with a word. Marks outside the range of x are left out.
      note: text below the chart.

    Returns:
      The figure.
    """
    thin = {name: thinned(*points) for name, points in series.items()}
    xs, ys = (np.concatenate([points[i] for points in thin.values()]) for i in (0, 1))
    legend, legend_height = _legend(list(thin)) if len(thin) > 1 else (Html(), 0.0)
    top = TOP + legend_height + (14 if marks else 0)
    frame = Frame(x_limits or (xs.min(), xs.max()), limits or spread(ys.tolist()), top=top)
    drawn = [_line(frame, x, y, i) for i, (x, y) in enumerate(thin.values())]
    body = (frame.y_axis(), frame.x_axis(x_label), _marks(frame, marks), *drawn, legend)
    return figure(*body, title=title, note=note)


def _line(frame: Frame, x: np.ndarray, y: np.ndarray, i: int) -> Html:
    """One series: a dashed line with about eight markers on it."""
    points = [(frame.x(a), frame.y(b)) if math.isfinite(b) else None for a, b in zip(x, y, strict=True)]
    path, pen = "", "M"
    for point in points:
        path += f"{pen}{number(point[0])} {number(point[1])}" if point else ""
        pen = "L" if point else "M"
    marked = [p for p in points[:: max(1, len(points) // 8)] if p]
    dots = "".join(marker(*p, i, 2.6) for p in marked)
    stroke = element("path", d=path, class_=f"line {colour(i)}", stroke_dasharray=DASHES[i % len(DASHES)] or None)
    return joined(stroke, element("path", d=dots, class_=f"fill {colour(i)}"))


def _legend(names: Sequence[str]) -> tuple[Html, float]:
    """The legend in as many lines as it needs, and its height."""
    parts: list[Html] = []
    x, y = LEFT, 12.0
    for i, name in enumerate(names):
        width = 28 + LETTER * len(name)
        if x > LEFT and x + width > WIDTH:
            x, y = LEFT, y + 16
        stroke = {"class_": f"line {colour(i)}", "stroke_dasharray": DASHES[i % len(DASHES)] or None}
        parts += [
            element("path", d=f"M{number(x)} {number(y)}h24", **stroke),
            element("path", d=marker(x + 12, y, i, 3), class_=f"fill {colour(i)}"),
            text(x + 28, y + 4, name),
        ]
        x += width + 12
    return joined(*parts), y + 6


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> Html:
    """Vertical lines with words; a word that would overlap the previous one is left out."""
    parts, free = [], -math.inf
    for x, word in ((frame.x(value), word) for value, word in marks):
        if not frame.left <= x < frame.right - 1:
            continue
        parts.append(line(x, frame.top, x, frame.bottom, "mark"))
        width = 5.6 * len(word)
        start = min(x + 2, WIDTH - width)
        if start >= free:
            parts.append(text(start, frame.top - 4, word, class_="small"))
            free = start + width + 4
    return joined(*parts)


def bars(values: Sequence[float], *, title: str, x_label: str, level: float | None = None, note: str = "") -> Html:
    """A bar chart.

    Args:
      values: heights of the bars, numbered from 0. A value that is not finite has no bar.
      title: title of the chart.
      x_label: label of the x axis.
      level: height of a dashed horizontal line, or None.
      note: text below the chart.

    Returns:
      The figure.
    """
    finite = [0.0, level or 0.0, *filter(math.isfinite, values)]
    frame = Frame((-0.5, len(values) - 0.5), (min(finite) * 1.06, max(finite) * 1.06), top=TOP + 6)
    width = (frame.right - frame.left) / len(values)
    base, parts, numbers = frame.y(0), [], []
    for i, value in enumerate(values):
        if not math.isfinite(value):
            continue
        y, x = frame.y(value), frame.x(i) - 0.4 * width
        size = {"x": number(x), "y": number(min(y, base)), "width": f"{0.8 * width:.2f}"}
        parts.append(
            element("rect", element("title", f"{i}: {value:g}"), class_="bar", height=number(abs(base - y)), **size)
        )
        if len(values) <= WRITTEN:
            numbers.append(text(frame.x(i), min(y, base) - 4, f"{value:g}", text_anchor="middle", class_="small halo"))
    last = len(values) - 1
    most = min(max(last, 1), int((frame.right - frame.left) / (7 * len(str(last)) + 6)))
    names = [frame.below(i) for i in ticks(0, last, most)]
    across = line(frame.left, frame.y(level), frame.right, frame.y(level), "mark") if level is not None else Html()
    axis = line(frame.left, base, frame.right, base, "axis")
    # The numbers come last, so that the dashed line is not drawn over them.
    body = (frame.y_axis(), *parts, axis, *names, across, *numbers, frame.label(x_label))
    return figure(*body, title=title, note=note)


def confusion(
    table: np.ndarray, sizes: np.ndarray, rows: Sequence[int], columns: Sequence[int], *, title: str, note: str = ""
) -> Html:
    """A confusion matrix whose shades show the share of each class.

    Args:
      table: counts [classes, clusters].
      sizes: number of examples of each class [classes].
      rows: numbers of the classes.
      columns: numbers of the clusters.
      title: title of the chart.
      note: text below the chart.

    Returns:
      The figure.
    """
    height, width = table.shape
    side = min((WIDTH - LEFT - RIGHT) / width, 300 / height, 40.0)
    share = table / sizes[:, None]
    written = max(height, width) <= WRITTEN
    parts = []
    for i, j in np.ndindex(height, width):
        x, y, part = LEFT + j * side, TOP + i * side, share[i, j]
        tooltip = element("title", f"class {rows[i]}, cluster {columns[j]}: {table[i, j]} ({part:.0%} of the class)")
        box = {"x": number(x), "y": number(y), "width": number(side), "height": number(side)}
        parts.append(element("rect", tooltip, class_="cell", fill_opacity=f"{SHADE * part:.2f}", **box))
        if written and table[i, j]:
            parts.append(text(x + side / 2, y + side / 2 + 4, table[i, j], text_anchor="middle"))
    bottom = TOP + height * side
    size = "small" if side < 14 else None
    every = math.ceil(8.5 / side)
    for i in range(0, height, every):
        parts.append(text(LEFT - 5, TOP + (i + 0.5) * side + 4, rows[i], text_anchor="end", class_=size))
    for j in range(0, width, math.ceil(13 / side)):
        parts.append(text(LEFT + (j + 0.5) * side, bottom + 14, columns[j], text_anchor="middle", class_=size))
    middle = TOP + height * side / 2
    parts += [
        text(LEFT + width * side / 2, bottom + 28, "cluster", text_anchor="middle", class_="label"),
        text(12, middle, "class", text_anchor="middle", class_="label", transform=f"rotate(-90 12 {number(middle)})"),
        element("rect", x=LEFT, y=TOP, width=number(width * side), height=number(height * side), class_="border"),
    ]
    return figure(*parts, title=title, height=bottom + 36, note=note, class_="wide")
