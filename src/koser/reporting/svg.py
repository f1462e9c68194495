"""Plots as SVG inside a page: they follow its colours, light or dark, and print sharp.

matplotlib draws the pictures that a run leaves as files. A report that is read on a phone,
in a dark room or on paper wants lines that take the page's own ink: every colour here is
a class of the page's style sheet. Nothing is computed but places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 12, 44  # margins
_WANTED_TICKS = 5
_ROW = 26  # height of a row of a forest plot
_MAX_COLUMNS = 25  # of a row's name


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Attributes
    ----------
    low, high : float
        What it spans.
    title : str
        What it measures, with its unit.
    as_percent : bool
        Whether ticks are shares of 1, written in percent.
    """

    low: float
    high: float
    title: str
    as_percent: bool = False

    def ticks(self) -> list[float]:
        """Round values in the span, about five."""
        step = _round_step((self.high - self.low) / _WANTED_TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def text(self, value: float) -> str:
        """A tick's label."""
        return f"{100 * value:.0f} %" if self.as_percent else f"{value:.4g}"

    def place(self, value: float) -> float:
        """Where a value is between the ends, in [0, 1] for one in the span."""
        return (value - self.low) / (self.high - self.low)


@dataclass
class Plot:
    """Two axes and what is drawn between them.

    Attributes
    ----------
    title, description : str
        What a screen reader says of the picture.
    x, y : Axis
        The scales.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    _marks: list[str] = field(default_factory=list)

    def line(self, xs: Sequence[float], ys: Sequence[float | None], style: str) -> None:
        """Join points; a None interrupts."""
        for run in _runs(xs, ys):
            points = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in run)
            self._marks.append(f'<polyline class="line {style}" points="{points}"/>')

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: str
    ) -> None:
        """Fill what lies between two lines."""
        there = [f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in zip(xs, highs, strict=True)]
        back = [f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in zip(xs, lows, strict=True)]
        points = " ".join([*there, *reversed(back)])
        self._marks.append(f'<polygon class="band {style}" points="{points}"/>')

    def points(
        self, xs: Sequence[float], ys: Sequence[float], style: str, tips: Sequence[str] = ()
    ) -> None:
        """Dots, each with what it says when it is pointed at."""
        for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
            tip = f"<title>{escape(tips[number])}</title>" if tips else ""
            self._marks.append(
                f'<circle class="dot {style}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="4">'
                f"{tip}</circle>"
            )

    def render(self) -> str:
        """The picture as an ``<svg>`` element."""
        right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
        parts = []
        for tick in self.y.ticks():
            y = self._y(tick)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(_text(_LEFT - 6, y + 4, self.y.text(tick), "end"))
        for tick in self.x.ticks():
            parts.append(_text(self._x(tick), bottom + 18, self.x.text(tick), "middle"))
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(_text((_LEFT + right) / 2, HEIGHT - 6, self.x.title, "middle", "axis-title"))
        middle = (_TOP + bottom) / 2
        turned = f' transform="rotate(-90 13 {middle:.0f})"'
        parts.append(_text(13, middle, self.y.title, "middle", "axis-title", turned))
        return _svg(self.title, self.description, HEIGHT, [*parts, *self._marks])

    def _x(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self.y.place(value) * (HEIGHT - _TOP - _BOTTOM)


@dataclass(frozen=True)
class ForestRow:
    """A value with its interval, as one line of a forest plot.

    Attributes
    ----------
    name : str
        Whose value it is.
    value : float or None
        None where there is none.
    low, high : float or None
        The interval; None without one.
    text : str
        The value in words, beside the line.
    style : str
        A class of the style sheet.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    style: str = "first"


def forest(
    title: str,
    description: str,
    rows: Sequence[ForestRow],
    axis: Axis,
    *,
    reference: float | None = None,
) -> str:
    """Values with their intervals, one below the other, and a line for what they are held against.

    Parameters
    ----------
    title, description : str
        What a screen reader says.
    rows : Sequence[ForestRow]
        From top to bottom.
    axis : Axis
        The scale.
    reference : float, optional
        Where a vertical line stands, such as chance or no difference.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    left = 16 + 7 * max(_columns(_shortened(row.name)) for row in rows)
    right, bottom = WIDTH - 138, _TOP + _ROW * len(rows)

    def place(value: float) -> float:
        return left + min(max(axis.place(value), 0), 1) * (right - left)

    parts = []
    for tick in axis.ticks():
        x = place(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 18, axis.text(tick), "middle"))
    parts.append(_text((left + right) / 2, bottom + 38, axis.title, "middle", "axis-title"))
    if reference is not None:
        x = place(reference)
        parts.append(
            f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{bottom}"/>'
        )
    for number, row in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(_text(left - 8, y + 4, _shortened(row.name), "end"))
        parts.append(_text(right + 12, y + 4, row.text, "start"))
        if row.low is not None and row.high is not None:
            parts.append(
                f'<line class="line {row.style}" x1="{place(row.low):.1f}" '
                f'x2="{place(row.high):.1f}" y1="{y}" y2="{y}"/>'
            )
        if row.value is not None:
            x = place(row.value)
            parts.append(f'<circle class="dot {row.style}" cx="{x:.1f}" cy="{y}" r="5"/>')
    return _svg(title, description, bottom + 46, parts)


def strip(
    title: str,
    description: str,
    x: Axis,
    *,
    outline: Sequence[float],
    bars: Sequence[tuple[float, float, float]],
) -> str:
    """A waveform's outline, and below it what each of its moments is worth.

    Parameters
    ----------
    title, description : str
        What a screen reader says.
    x : Axis
        Time.
    outline : Sequence[float]
        Magnitudes at equal steps over all of `x`.
    bars : Sequence[tuple[float, float, float]]
        Start, end and value of each moment; above zero they go up.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    left, right, middle, zero, reach = 8, WIDTH - 8, 30, 92, 28
    bottom = zero + reach + 4

    def place(value: float) -> float:
        return left + x.place(value) * (right - left)

    loudest = max(outline, default=0.0) or 1.0
    steps = [left + (right - left) * (i + 0.5) / len(outline) for i in range(len(outline))]
    heights = [24 * value / loudest for value in outline]
    upper = [f"{at:.1f},{middle - h:.1f}" for at, h in zip(steps, heights, strict=True)]
    lower = [f"{at:.1f},{middle + h:.1f}" for at, h in zip(steps, heights, strict=True)]
    parts = [f'<polygon class="wave" points="{" ".join([*upper, *reversed(lower)])}"/>']
    largest = max((abs(value) for *_, value in bars), default=0.0) or 1.0
    for start, end, value in bars:
        height = reach * abs(value) / largest
        parts.append(
            f'<rect class="bar {"first" if value >= 0 else "second"}" x="{place(start):.1f}" '
            f'y="{zero - height if value >= 0 else zero:.1f}" '
            f'width="{place(end) - place(start):.1f}" height="{height:.1f}">'
            f"<title>{escape(f'{x.text(start)}–{x.text(end)}: {value:+.2f}')}</title></rect>"
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{zero}" y2="{zero}"/>')
    for tick in x.ticks():
        parts.append(_text(place(tick), bottom + 12, x.text(tick), "middle"))
    parts.append(_text(right, bottom + 28, x.title, "end", "axis-title"))
    return _svg(title, description, bottom + 34, parts)


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'aria-label="{escape(f"{title}. {description}")}">{"".join(parts)}</svg>'
    )


def _text(
    x: float, y: float, text: str, anchor: str, style: str = "tick", attributes: str = ""
) -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>'
        f"{escape(text)}</text>"
    )


def _runs(xs: Sequence[float], ys: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Stretches of points without a None."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _columns(text: str) -> int:
    """Room that a text takes: characters such as Hangul take two columns."""
    return sum(2 if ord(character) >= 0x1100 else 1 for character in text)


def _shortened(name: str) -> str:
    """A name that fits beside a picture; the tables below have it whole.

    Its middle goes: names that begin alike are told apart by their ends.
    """
    if _columns(name) <= _MAX_COLUMNS:
        return name
    start, end = name[: len(name) // 2], name[len(name) // 2 :]
    while _columns(start) + _columns(end) >= _MAX_COLUMNS:
        if _columns(start) > _columns(end):
            start = start[:-1]
        else:
            end = end[1:]
    return f"{start}…{end}"
