"""The card's charts as inline SVG: drawn from the records alone, coloured by the page's own variables, all text "
"escaped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from indelible.durability.card import Audit, Number

WIDTH, HEIGHT = 480, 300  # units of a chart; the page scales it to its column
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 14, 50  # room for axes
MARGIN = 26  # of a dot plot or a gauge, for the last tick's label
CUSTOMER_CLASS = {"careful": "c1", "typical": "c0", "careless": "c2"}


@dataclass(frozen=True)
class Scale:
    """Values to places on the page, straight; ``start`` is where the first value lies, so that axes may be turned."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value; beyond the axis it stays at its end."""
        width = self.high - self.low
        share = (value - self.low) / width if width else 0.5
        return round(self.start + min(1.02, max(-0.02, share)) * (self.end - self.start), 2)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** np.floor(np.log10(raw))
    step = float(next(unit * one for one in (1, 2, 2.5, 5, 10) if unit * one >= raw))
    first = int(np.ceil(low / step - 1e-9))
    return [round(number * step, 10) for number in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def short(value: float) -> str:
    """A count in few letters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A text element."""
    return f'<text x="{x:.2f}" y="{y:.2f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A line element."""
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" class="{kind}"/>'


def path(points: Sequence[tuple[float, float]], kind: str, *, is_closed: bool = False) -> str:
    """A polyline."""
    steps = "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
    return f'<path d="M{steps}{"Z" if is_closed else ""}" class="{kind}"/>'


def dot(x: float, y: float, kind: str, size: float = 5) -> str:
    """A point."""
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{size}" class="{kind}"/>'


def svg(parts: Sequence[str], label: str, height: float = HEIGHT, width: float = WIDTH) -> Markup:
    """The whole picture; ``label`` is what a screen reader says."""
    inside = "".join(parts)
    return Markup(  # every text in it has been escaped above
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">{inside}</svg>'
    )


def gauge(audit: Audit) -> Markup | None:
    """The number of the verdict on a bar, with its interval and what is required."""
    kept = audit.kept
    if kept is None:
        return None
    ends = [value for value in (kept.value, kept.low, kept.high, audit.require) if value is not None]
    is_share = kept.unit == "share"
    low, high = (min(0.0, *ends), max(1.0, *ends)) if is_share else (min(0.0, *ends), 1.15 * max(*ends, 1e-3))
    low, high = (max(-1.0, low), min(1.5, high)) if is_share else (low, high)
    place = Scale(low, high, MARGIN, WIDTH - MARGIN)
    bar = place(audit.require)
    good = (bar, WIDTH - MARGIN) if is_share else (MARGIN, bar)
    parts = [
        f'<rect x="{MARGIN}" y="46" width="{WIDTH - 2 * MARGIN}" height="22" rx="4" class="track"/>',
        f'<rect x="{good[0]:.2f}" y="46" width="{good[1] - good[0]:.2f}" height="22" rx="4" class="goodside"/>',
        line(bar, 38, bar, 76, "bar"),
    ]
    words = (
        f"required: {_amount(audit.require, is_share)}" if is_share else f"allowed: {_amount(audit.require, is_share)}"
    )
    anchor = "end" if bar > WIDTH * 0.7 else "start" if bar < WIDTH * 0.3 else "middle"
    parts.append(text(bar, 28, words, "small", anchor))
    if kept.low is not None and kept.high is not None:
        width = max(1.5, place(kept.high) - place(kept.low))
        parts.append(f'<rect x="{place(kept.low):.2f}" y="53" width="{width:.2f}" height="8" rx="4" class="interval"/>')
    parts.append(dot(place(kept.value), 57, "value", 8))
    for tick in ticks(low, high, 4):
        parts += [
            line(place(tick), 68, place(tick), 74, "axis"),
            text(place(tick), 90, _amount(tick, is_share), "tick", "middle"),
        ]
    label = f"{_amount(kept.value, is_share)}, {words}"
    return svg(parts, label, 100)


def _amount(value: float, is_share: bool) -> str:
    return f"{100 * value:.0f} %" if is_share else f"{value:.3g} nats"


@dataclass(frozen=True)
class Axes:
    """The frame of a chart."""

    x: Scale
    y: Scale
    parts: tuple[str, ...]


def axes(
    x: Scale,
    y: Scale,
    x_title: str,
    y_title: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
) -> Axes:
    """Grid, ticks and titles."""
    parts: list[str] = []
    for value, words in y_ticks:
        parts += [
            line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"),
            text(LEFT - 7, y(value) + 4, words, "tick", "end"),
        ]
    for value, words in x_ticks:
        parts += [line(x(value), HEIGHT - BOTTOM, x(value), HEIGHT - BOTTOM + 5, "axis"),
                  text(x(value), HEIGHT - BOTTOM + 19, words, "tick", "middle")]  # fmt: skip
    parts.append(line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, "title", "middle"))
    parts.append(f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" class="title" '
                 f'text-anchor="middle">{escape(y_title)}</text>')  # fmt: skip
    return Axes(x, y, tuple(parts))


def whisker(x: Scale, number: Number, y: float, kind: str) -> list[str]:
    """A horizontal interval with its value."""
    parts = []
    if number.low is not None and number.high is not None:
        parts.append(line(x(number.low), y, x(number.high), y, f"whisker {kind}"))
    return [*parts, dot(x(number.value), y, kind)]


def range_of(
    values: Sequence[float | None], low: float | None = None, high: float | None = None
) -> tuple[float, float]:
    """The range of what is there, with the ends that must be in it."""
    known = [value for value in (*values, low, high) if value is not None]
    first, last = (min(known), max(known)) if known else (0.0, 1.0)
    if not last > first:
        return first - 0.5, first + 0.5
    room = 0.03 * (last - first)  # so that nothing lies on the frame
    return (first if first in (low, high) else first - room), (last if last in (low, high) else last + room)
