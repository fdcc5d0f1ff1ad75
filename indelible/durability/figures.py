"""The pictures of the card: survival by tokens, customers at equal gain, worst of k, the trials, the comparison."""

from collections.abc import Callable

import numpy as np
from markupsafe import Markup

from indelible.durability.card import Audit, Number
from indelible.durability.charts import (
    BOTTOM,
    CUSTOMER_CLASS,
    HEIGHT,
    LEFT,
    MARGIN,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    axes,
    dot,
    line,
    path,
    range_of,
    short,
    svg,
    text,
    ticks,
    whisker,
)

LOWEST_SHARE = -0.25  # that a chart shows; what is worse stays at its edge
_ROW = 24  # height of a line of a dot plot
_NAMES = 196  # width of its labels
ADAPT_CLASS = {"full": "c0", "lora": "c2"}


def is_in_shares(audit: Audit) -> bool:
    """Whether the card tells shares of a capability; else nats."""
    return audit.capability is not None


def _left(audit: Audit) -> Callable[[float], float]:
    """What is drawn of a loss lost: the share that is left, or the loss itself."""
    capability = audit.capability
    return (lambda lost: lost) if capability is None else (lambda lost: 1 - lost / capability)


def _vertical(audit: Audit, values: list[float | None]) -> tuple[Scale, list[tuple[float, str]], str]:
    """The vertical axis of what is left: shares rise, losses fall, so that down is worse on both."""
    if is_in_shares(audit):
        low, high = range_of([None if v is None else max(LOWEST_SHARE, v) for v in values], 0.0, 1.0)
        marks = [(tick, f"{100 * tick:.0f} %") for tick in ticks(low, high)]
        return Scale(low, high, HEIGHT - BOTTOM, TOP), marks, "share of the capability left"
    low, high = range_of(values, 0.0, audit.require)
    return Scale(low, high, TOP, HEIGHT - BOTTOM), [(t, f"{t:g}") for t in ticks(low, high)], "nats per token lost"


def survival_figure(audit: Audit) -> Markup | None:
    """What is left, by fine-tuning tokens: the typical setting with its interval, the best and the worst."""
    points = audit.survival
    if len(points) < 2:
        return None
    left = _left(audit)
    curves = {who: [left(getattr(p, who)) for p in points] for who in ("careful", "careless")}
    typical = [left(p.lost.value) for p in points]
    has_band = any(p.lost.low is not None for p in points)
    band = [[left(p.lost.value if e is None else e) for e in (p.lost.low, p.lost.high)] for p in points]
    edges = [value for ends in band for value in ends]
    y, y_ticks, title = _vertical(audit, [*curves["careful"], *curves["careless"], *typical, *edges])
    first = points[1].tokens
    where = [float(np.log2(1 + p.tokens / first)) for p in points]  # 0 has a place, and doublings are equally wide
    x = Scale(0.0, where[-1], LEFT, WIDTH - RIGHT - 8)
    step = max(1, round(len(points) / 6))
    marks = [(place, short(p.tokens)) for place, p in zip(where, points, strict=True)]
    frame = axes(x, y, "fine-tuning tokens", title, marks[::-1][::step][::-1], y_ticks)
    parts = list(frame.parts)
    if has_band:  # at the start nothing is lost, for certain
        upper, lower = ([(x(p), y(e[end])) for p, e in zip(where, band, strict=True)] for end in (0, 1))
        parts.append(path([*upper, *lower[::-1]], "band c0", is_closed=True))
    bar = audit.require if audit.kept is not None and (audit.kept.unit == "share") == is_in_shares(audit) else None
    if bar is not None:
        parts += [line(LEFT, y(bar), WIDTH - RIGHT, y(bar), "bar")]
    for who, values in (("careful", curves["careful"]), ("careless", curves["careless"]), ("typical", typical)):
        places = [(x(p), y(v)) for p, v in zip(where, values, strict=True)]
        parts.append(path(places, f"curve {CUSTOMER_CLASS[who]}" + (" dashed" if who != "typical" else "")))
    parts += [dot(x(p), y(v), "c0", 3.5) for p, v in zip(where, typical, strict=True)]
    return svg(parts, f"{title} by fine-tuning tokens, from {typical[0]:.2f} to {typical[-1]:.2f}")


def customers_figure(audit: Audit) -> Markup | None:
    """The three customers at both gains, over all new corpora, as a dot plot."""
    rows = [row for row in audit.customers if row.later == "all"]
    if not rows:
        return None
    found = [(row, row.share if row.share is not None else row.lost) for row in rows]
    values = [end for _, number in found for end in (number.value, number.low, number.high)]
    is_share = is_in_shares(audit)
    low, high = range_of(
        [None if v is None else max(LOWEST_SHARE, v) for v in values], 0.0, 1.0 if is_share else audit.require
    )
    x = Scale(low, high, 150, WIDTH - MARGIN)
    parts, y = [], 18.0
    bottom = y + (len(rows) + len({row.gain for row in rows})) * _ROW
    marks = ticks(low, high, 4)
    parts += [line(x(t), 6, x(t), bottom - 6, "grid") for t in marks]
    if audit.kept is not None and (audit.kept.unit == "share") == is_share:
        parts.append(line(x(audit.require), 6, x(audit.require), bottom - 6, "bar"))
    last = None
    for row, number in found:
        if row.gain != last:
            parts.append(text(4, y + 4, f"at {100 * row.gain:.0f} % of the gain", "title"))
            last, y = row.gain, y + _ROW
        parts += [text(16, y + 4, row.customer, "tick-left"), *whisker(x, number, y, CUSTOMER_CLASS[row.customer])]
        y += _ROW
    unit = "share of the capability left" if is_share else "nats per token lost"
    parts += [text(x(t), bottom + 10, f"{100 * t:.0f} %" if is_share else f"{t:g}", "tick", "middle") for t in marks]
    parts.append(text((150 + WIDTH - MARGIN) / 2, bottom + 30, unit, "title", "middle"))
    return svg(parts, f"{unit} of three customers", bottom + 40)


def worst_figure(audit: Audit) -> Markup | None:
    """The expected worst of k settings, on each new corpus."""
    found = [(one.later, list(one.share if one.share is not None else one.lost)) for one in audit.worst_of]
    longest = max((len(values) for _, values in found), default=0)
    if longest < 2:
        return None
    y, y_ticks, title = _vertical(audit, [value for _, values in found for value in values])
    x = Scale(1, longest, LEFT + 8, WIDTH - RIGHT - 8)
    marks = [(tick, f"{tick:g}") for tick in ticks(1, longest, 6) if tick >= 1 and float(tick).is_integer()]
    frame = axes(x, y, "settings tried, k", title, [(1, "1"), *[m for m in marks if m[0] > 1]], y_ticks)
    parts = list(frame.parts)
    for number, (later, values) in enumerate(found):
        kind = f"c{(0, 2, 1, 3, 4)[number % 5]}"
        places = [(x(k), y(v)) for k, v in enumerate(values, 1)]
        parts += [path(places, f"curve {kind}"), *(dot(px, py, kind, 3) for px, py in places[:40])]
        parts.append(text(LEFT + 12, HEIGHT - BOTTOM - 12 - 17 * (len(found) - 1 - number), later, f"label {kind}"))
    return svg(parts, f"{title}, expected worst of k settings")


def trials_figure(audit: Audit) -> Markup | None:
    """Every setting at the end of its trials: gain on the new task against what is left."""
    rows = [row for row in audit.settings if row.end_lost is not None and row.end_gain is not None]
    if not rows:
        return None
    left = _left(audit)
    numbers = [(row, row.end_gain, row.end_lost) for row in rows]
    gains = [end for _, gain, _ in numbers if gain is not None for end in (gain.value,)]
    values = [left(lost.value) for _, _, lost in numbers if lost is not None]
    y, y_ticks, title = _vertical(audit, list(values))
    low, high = range_of(list(gains), 0.0)
    x = Scale(low, high, LEFT + 8, WIDTH - RIGHT - 8)
    frame = axes(
        x, y, "gain on the new task, nats per token", title, [(t, f"{t:g}") for t in ticks(low, high)], y_ticks
    )
    parts = list(frame.parts)
    for row, gain, lost in numbers:
        if gain is None or lost is None:
            continue
        kind = ADAPT_CLASS.get(row.adapt, "c0")
        px, py = x(gain.value), y(left(lost.value))
        if row.replay or row.is_padded:
            parts.append(f'<rect x="{px - 4.5:.2f}" y="{py - 4.5:.2f}" width="9" height="9" class="hollow {kind}"/>')
        else:
            parts.append(dot(px, py, kind, 5))
    return svg(parts, f"{title} against the gain on the new task, {len(rows)} settings")


def comparison_figure(audit: Audit) -> Markup | None:
    """The model minus the other side, over all new corpora."""
    rows = [row for row in audit.comparison if row.later == "all"]
    if not rows:
        return None
    ends = [end for row in rows for end in (row.difference.value, row.difference.low, row.difference.high)]
    low, high = range_of(ends, 0.0)
    x = Scale(low, high, _NAMES, WIDTH - MARGIN)
    bottom = 14.0 + len(rows) * _ROW
    marks = ticks(low, high, 4)
    parts = [line(x(t), 4, x(t), bottom - 6, "grid") for t in marks] + [line(x(0.0), 4, x(0.0), bottom - 6, "axis")]
    for number, row in enumerate(rows):
        y = 18.0 + number * _ROW
        kind = {"keeps more": "good", "keeps less": "bad"}.get(row.verdict, "muted-mark")
        parts.append(text(4, y + 4, f"{row.customer}, {100 * row.gain:.0f} % of the gain", "tick-left"))
        parts += whisker(x, row.difference, y, kind)
    parts += [text(x(t), bottom + 10, f"{t:g}", "tick", "middle") for t in marks]
    parts.append(
        text((_NAMES + WIDTH - MARGIN) / 2, bottom + 30, "nats lost, difference (left: keeps more)", "title", "middle")
    )
    return svg(parts, "difference of the loss lost, model minus the other side", bottom + 40)


def number_text(number: Number | None, *, is_share: bool = False, digits: int = 3, with_n: bool = True) -> str:
    """A number with its interval and n, for tables."""
    if number is None:
        return "–"
    factor, unit = (100, " %") if is_share else (1, "")
    form = f"{{:.{0 if is_share else digits}f}}"
    inside = []
    if number.low is not None and number.high is not None:
        inside.append(f"{form.format(factor * number.low)} to {form.format(factor * number.high)}")
    if with_n:
        inside.append(f"n = {number.n}")
    return form.format(factor * number.value) + unit + (f" ({'; '.join(inside)})" if inside else "")
