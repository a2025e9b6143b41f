"""The parts of every chart as SVG: a frame, axes, markers.

Charts are WIDTH units wide, which is the width of a phone, so that their text is readable there without scaling. The
colours are the classes c0 to c6 of `assets/page.css`. A marker, a dash pattern or a word always repeats what a colour
means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clustering_jax.report.markup import Html, element, joined

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 18.0, 12.0, 34.0
LETTER = 6.6  # largest mean width of a letter of a label
COLOURS = 7
DASHES = ("", "7 3", "2 2", "8 3 2 3", "1 3")
_TURN = [2 * math.pi * i / 10 for i in range(10)]
# Outlines around 0 of about equal area. Five shapes and seven colours give 35 different pairs.
SHAPES = (
    [(math.cos(a), math.sin(a)) for a in _TURN],
    [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    [(0.0, -1.3), (1.2, 0.9), (-1.2, 0.9)],
    [(0.0, -1.4), (1.1, 0.0), (0.0, 1.4), (-1.1, 0.0)],
    [(x * c, y * c) for x, y, c in zip(map(math.cos, _TURN), map(math.sin, _TURN), (1.6, 0.6) * 5, strict=True)],
)


def number(x: float) -> str:
    """Formats a coordinate with one decimal place."""
    return f"{x:.1f}".removesuffix(".0")


def short(x: float) -> str:
    """Formats a number for an axis: 12k for 12,000."""
    for size, unit, suffix in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(x) >= size:
            return f"{x / unit:g}{suffix}"
    return f"{x:g}"


def colour(i: int) -> str:
    """The CSS class for the colour of series or cluster `i`."""
    return f"c{i % COLOURS}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Up to `most` + 1 numbers in [low, high] whose distance is 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * m for m in (1, 2, 5, 10) if (high - low) / (power * m) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def marker(x: float, y: float, shape: int, radius: float) -> str:
    """The path of the outline number `shape` around a point."""
    corners = [(radius * dx, radius * dy) for dx, dy in SHAPES[shape % len(SHAPES)]]
    return "M" + "L".join(f"{number(x + dx)} {number(y + dy)}" for dx, dy in corners) + "Z"


def text(x: float, y: float, content: object, **attributes: object) -> Html:
    """Text at a point."""
    return element("text", content, x=number(x), y=number(y), **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """A straight line."""
    return element("line", x1=number(x1), y1=number(y1), x2=number(x2), y2=number(y2), class_=class_)


def figure(*body: Html, title: str, height: float = HEIGHT, note: str = "", class_: str | None = None) -> Html:
    """A chart with its title and a note. A screen reader reads the title."""
    size = f"0 0 {number(WIDTH)} {number(height)}"
    drawn = element("svg", *body, xmlns="http://www.w3.org/2000/svg", viewBox=size, role="img", aria_label=title)
    below = [element("p", note, class_="note")] if note else []
    return element("figure", element("figcaption", title), drawn, *below, class_=class_)


class Frame:
    """The rectangle of a plot, which maps values to coordinates.

    Args:
      x: ``(low, high)`` of the values on the x axis. If both are equal, the range is widened.
      y: ``(low, high)`` of the values on the y axis. If both are equal, the range is widened.
      height: height of the figure.
      top: space above the rectangle.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: float = HEIGHT, top: float = TOP):
        self._x, self._y = _widened(*x), _widened(*y)
        self.left = max(LEFT, 8 + LETTER * max(len(short(v)) for v in ticks(*self._y)))
        self.right, self.top, self.bottom = WIDTH - RIGHT, top, height - BOTTOM

    def x(self, value: float) -> float:
        """The horizontal coordinate of a value."""
        low, high = self._x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """The vertical coordinate of a value."""
        low, high = self._y
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def y_axis(self) -> Html:
        """Horizontal grid lines with their values."""
        rows = ticks(*self._y)
        lines = [line(self.left, self.y(v), self.right, self.y(v), "rule") for v in rows]
        return joined(*lines, *(text(self.left - 5, self.y(v) + 4, short(v), text_anchor="end") for v in rows))

    def x_axis(self, label: str) -> Html:
        """The base line with values and a label."""
        base = line(self.left, self.bottom, self.right, self.bottom, "axis")
        return joined(base, *(self.below(v) for v in ticks(*self._x)), self.label(label))

    def below(self, value: float) -> Html:
        """A value below the horizontal axis, inside of the chart."""
        name = short(value)
        x = min(self.x(value), WIDTH - LETTER / 2 * len(name))
        return text(x, self.bottom + 14, name, text_anchor="middle")

    def label(self, content: str) -> Html:
        """The label below the horizontal axis."""
        return text((self.left + self.right) / 2, self.bottom + 28, content, text_anchor="middle", class_="label")


def _widened(low: float, high: float) -> tuple[float, float]:
    pad = 0.0 if high > low else max(abs(low) * 0.1, 0.5)
    return low - pad, high + pad


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The range of the finite values with a small margin; (0, 1) if no value is finite."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    # The second term keeps a nearly constant line nearly flat: the axis covers a fifth of its height at least.
    pad = max(0.04 * (high - low), 0.1 * max(abs(low), abs(high)) - (high - low) / 2)
    return low - pad, high + pad
