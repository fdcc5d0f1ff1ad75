"""What the page's charts share: the rows they read, colours, dashes, and how an arm is told from the other.

Blocks and arms have colours from the Okabe-Ito palette and, where lines cross, dashes too, so that no chart rests on
colour alone. Text, grid and background are the page's (light or dark), set when a chart is drawn.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from indelible.theory.maps import Row
from indelible.theory.overview import Survey

Spec = dict[str, Any]

BLOCK_COLOURS = {"invariant": "#8a8f98", "inconsistent": "#D55E00", "specialised": "#2F8FD8"}
ARM_COLOURS = {"unmixed": "#CC79A7", "mixed": "#009E73"}
ARM_DASHES = {"unmixed": [6, 4], "mixed": [1, 0]}
DIVERGING = ["#b35806", "#fdb863", "#eeeeee", "#80b1d3", "#2166ac"]


def named(name: str) -> alt.Chart:
    """A chart that reads one of the page's named data sets."""
    return alt.Chart(alt.NamedData(name=name))


def arm_encoding(field: str = "arm:N") -> dict[str, Any]:
    """Colour and dash of the two arms, with one legend."""
    names = list(ARM_COLOURS)
    legend = alt.Legend(title=None, orient="top", symbolStrokeWidth=3, symbolSize=300, symbolType="stroke")
    return {
        "color": alt.Color(field, scale=alt.Scale(domain=names, range=list(ARM_COLOURS.values())), legend=legend),
        "strokeDash": alt.StrokeDash(
            field, scale=alt.Scale(domain=names, range=[ARM_DASHES[n] for n in names]), legend=legend
        ),
    }


def data_sets(result: Survey) -> dict[str, list[Row]]:
    """The rows that the charts read, numbers cut to five significant digits, maps with the corners of their cells."""
    tables = dict(result.tables)
    tables["trajectory_long"] = [
        {"arm": row["arm"], "progress": row["progress"], "time": row["time"], "block": name, "value": row[name]}
        for row in tables.pop("trajectories")
        for name in BLOCK_COLOURS
    ]
    tables["loss"] = [
        {name: row[name] for name in ("arm", "progress", "time", "loss_post")} for row in result.tables["trajectories"]
    ]
    for name, x, y, log_y in (
        ("map_alpha_beta", "alpha", "beta", False),
        ("map_times", "pretrain_time", "posttrain_time", False),
        ("map_allocation", "budget", "finetune_time", True),
        ("map_allocation_free", "budget", "finetune_time", True),
    ):
        tables[name] = with_cells(tables[name], x, y, log_y=log_y)
    tables["allocation"] = with_excess(tables["allocation"])
    return {name: [_rounded(row) for row in rows] for name, rows in tables.items()}


def _rounded(row: Row) -> Row:
    out: Row = {}
    for key, value in row.items():
        if isinstance(value, float):
            # JSON has no NaN; the charts draw a missing value as an empty cell.
            out[key] = float(f"{value:.5g}") if np.isfinite(value) else None  # type: ignore[assignment]
        else:
            out[key] = value
    return out


def with_cells(rows: Sequence[Row], x: str, y: str, *, log_y: bool = False) -> list[Row]:
    """Rows of a map with x0, x1, y0, y1: edges halfway to the neighbouring cells (geometrically with `log_y`)."""
    edges: dict[str, dict[float, tuple[float, float]]] = {}
    for axis, log in ((x, False), (y, log_y)):
        points = np.unique([float(row[axis]) for row in rows])
        inside = np.log(points) if log else points
        middle = (inside[1:] + inside[:-1]) / 2
        ends = np.concatenate([[inside[0]], middle, [inside[-1]]])
        # Each cell reaches a little under the next one, which is drawn later: no seams show between them.
        upper = np.concatenate([ends[1:-1] + 0.1 * np.diff(ends)[1:], ends[-1:]])
        lower, upper = (np.exp(ends[:-1]), np.exp(upper)) if log else (ends[:-1], upper)
        pairs = zip(lower.tolist(), upper.tolist(), strict=True)
        edges[axis] = dict(zip(points.tolist(), pairs, strict=True))
    out = []
    for row in rows:
        (x0, x1), (y0, y1) = edges[x][float(row[x])], edges[y][float(row[y])]
        out.append({**row, "x0": x0, "x1": x1, "y0": y0, "y1": y1})
    return out


def with_excess(rows: Sequence[Row]) -> list[Row]:
    """Rows of matched allocation with `excess`: L_ret above the lowest of its curve, in per cent of that."""
    curves: dict[tuple[float | int | str, ...], float] = {}
    for row in rows:
        key = row["regularisation"], row["finetune_time"]
        curves[key] = min(curves.get(key, np.inf), float(row["L_ret"]))
    lowest = [curves[row["regularisation"], row["finetune_time"]] for row in rows]
    return [{**row, "excess": 100 * (float(row["L_ret"]) / low - 1)} for row, low in zip(rows, lowest, strict=True)]
