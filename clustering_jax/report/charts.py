"""The report's charts: lines, bars, a confusion matrix, a map. Pure functions from numbers to markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from clustering_jax.report.markup import Html, element, joined
from clustering_jax.report.svg import (
    DASHES,
    LEFT,
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

POINTS = 300  # of a line; more are averaged
SHADE = 0.6  # opacity of a full cell: text on it can be read, light or dark
NUMBERED = 40  # clusters of a map
MAP_HEIGHT = 330.0
WRITTEN = 12  # up to so many bars, classes or clusters have their numbers written in


def thinned(x: Sequence[float], y: Sequence[float], most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points: each the mean of as many neighbours."""
    parts = min(len(x), most)
    columns = (np.array_split(np.asarray(v, float), max(parts, 1)) for v in (x, y))
    return tuple(np.array([part.mean() for part in column if part.size]) for column in columns)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str = "step",
    limits: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> Html:
    """A line for each of `series`, ``{name: (x, y)}``; not-finite values are gaps.

    limits: of y; None is what the values need. marks: ``(x, word)``, vertical lines where something begins, left out
      where the values don't reach.
    """
    thin = {name: thinned(*points) for name, points in series.items()}
    xs, ys = (np.concatenate([points[i] for points in thin.values()]) for i in (0, 1))
    top = TOP + (18 if len(thin) > 1 else 0) + (14 if marks else 0)
    frame = Frame((xs.min(), xs.max()), limits or spread(ys.tolist()), top=top)
    drawn = [_line(frame, x, y, i) for i, (x, y) in enumerate(thin.values())]
    legend = _legend(list(thin)) if len(thin) > 1 else Html()
    body = (frame.y_axis(), frame.x_axis(x_label), _marks(frame, marks), *drawn, legend)
    return figure(*body, title=title)


def _line(frame: Frame, x: np.ndarray, y: np.ndarray, i: int) -> Html:
    """One series: a dashed line, and some markers on it."""
    good = [(frame.x(a), frame.y(b)) if math.isfinite(b) else None for a, b in zip(x, y, strict=True)]
    path, pen = "", "M"
    for point in good:
        path += f"{pen}{number(point[0])} {number(point[1])}" if point else ""
        pen = "L" if point else "M"
    some = [p for p in good[:: max(1, len(good) // 8)] if p]
    dots = "".join(marker(*p, i, 2.6) for p in some)
    stroke = element("path", d=path, class_=f"line {colour(i)}", stroke_dasharray=DASHES[i % len(DASHES)] or None)
    return joined(stroke, element("path", d=dots, class_=f"fill {colour(i)}"))


def _legend(names: Sequence[str]) -> Html:
    parts, x = [], LEFT
    for i, name in enumerate(names):
        parts += [
            element(
                "path",
                d=f"M{number(x)} 12h24",
                class_=f"line {colour(i)}",
                stroke_dasharray=DASHES[i % len(DASHES)] or None,
            ),
            element("path", d=marker(x + 12, 12, i, 3), class_=f"fill {colour(i)}"),
            text(x + 28, 16, name),
        ]
        x += 40 + 6.6 * len(name)
    return joined(*parts)


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> Html:
    """Words at vertical lines; one that would run into the word before it is left out."""
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
    """A bar for each of ``values``, numbered from 0, but those not finite; `level` is a dashed line across."""
    finite = [0.0, level or 0.0, *filter(math.isfinite, values)]
    frame = Frame((-0.5, len(values) - 0.5), (min(finite) * 1.06, max(finite) * 1.06), top=TOP + 6)
    width = (frame.right - frame.left) / len(values)
    base, parts, told = frame.y(0), [], []
    for i, value in enumerate(values):
        if not math.isfinite(value):
            continue
        y, x = frame.y(value), frame.x(i) - 0.4 * width
        size = {"x": number(x), "y": number(min(y, base)), "width": f"{0.8 * width:.2f}"}
        parts.append(
            element("rect", element("title", f"{i}: {value:g}"), class_="bar", height=number(abs(base - y)), **size)
        )
        if len(values) <= WRITTEN:
            told.append(text(frame.x(i), min(y, base) - 4, f"{value:g}", text_anchor="middle", class_="small halo"))
    last = len(values) - 1
    most = min(max(last, 1), int((frame.right - frame.left) / (7 * len(str(last)) + 6)))
    names = [text(frame.x(i), frame.bottom + 14, f"{i:g}", text_anchor="middle") for i in ticks(0, last, most)]
    across = line(frame.left, frame.y(level), frame.right, frame.y(level), "mark") if level is not None else Html()
    axis = line(frame.left, base, frame.right, base, "axis")
    # The numbers last, so that the line across does not strike them out.
    body = (frame.y_axis(), *parts, axis, *names, across, *told, frame.label(x_label))
    return figure(*body, title=title, note=note)


def confusion(
    table: np.ndarray, sizes: np.ndarray, rows: Sequence[int], columns: Sequence[int], *, title: str, note: str = ""
) -> Html:
    """Counts [classes, clusters] as shades of their share of the class, of `sizes`; rows and columns name them."""
    height, width = table.shape
    side = min((WIDTH - LEFT - RIGHT) / width, 300 / height, 40.0)
    share = table / sizes[:, None]
    written = max(height, width) <= WRITTEN
    parts = []
    for i, j in np.ndindex(height, width):
        x, y, at = LEFT + j * side, TOP + i * side, share[i, j]
        told = element("title", f"class {rows[i]}, cluster {columns[j]}: {table[i, j]} ({at:.0%} of the class)")
        box = {"x": number(x), "y": number(y), "width": number(side), "height": number(side)}
        parts.append(element("rect", told, class_="cell", fill_opacity=f"{SHADE * at:.2f}", **box))
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


def scatter(points: np.ndarray, clusters: np.ndarray, *, title: str, note: str = "") -> Html:
    """A map: points [m, 2] with a colour and a shape for each cluster [m]; the largest have their number there."""
    low, high = points.min(0), points.max(0)
    scale = np.where(high > low, high - low, 1)
    at = 8 + (points - low) / scale * (WIDTH - 16, MAP_HEIGHT - 16)
    own = {cluster: at[clusters == cluster] for cluster in np.unique(clusters).tolist()}
    dots = []
    for cluster, rows in own.items():
        path = "".join(marker(x, y, cluster, 2.1) for x, y in rows.tolist())
        dots.append(element("path", element("title", f"cluster {cluster}"), d=path, class_=f"dot {colour(cluster)}"))
    largest = sorted(own, key=lambda cluster: -len(own[cluster]))[:NUMBERED]
    middles = np.stack([np.median(own[cluster], 0) for cluster in largest])
    middles = _apart(middles, (WIDTH, MAP_HEIGHT), 11.0 + 5 * len(str(max(largest))))
    names = [
        text(x, y + 5, cluster, text_anchor="middle", class_="name halo")
        for cluster, (x, y) in zip(largest, middles.tolist(), strict=True)
    ]
    return figure(*dots, *names, title=title, height=MAP_HEIGHT, note=note, class_="wide")


def _apart(places: np.ndarray, size: tuple[float, float], distance: float) -> np.ndarray:
    """`places` [k, 2] moved, where they are closer than `distance`, until labels there can be told apart."""
    places = places + np.random.default_rng(0).normal(0, 0.01, places.shape)  # two in one place have no direction
    for _ in range(60):
        gap = places[:, None] - places
        length = np.sqrt((gap**2).sum(2)) + np.eye(len(places)) * distance
        push = np.maximum(distance - length, 0)[..., None] * gap / length[..., None]
        if not push.any():
            break
        places = places + push.sum(1) / 3
    return np.clip(places, 10, np.array(size) - 10)
