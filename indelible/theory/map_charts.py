"""The page's maps: cells coloured by a gain, or by the best fraction."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from indelible.theory.chart_parts import DIVERGING, arm_encoding, named
from indelible.theory.maps import Row
from indelible.theory.overview import Survey


def _cells(rows: Sequence[Row], data: str, name: str, title: str, x: str, y: str) -> Any:
    """Cells coloured by a gain: viridis, or blue above zero and orange below where a value is negative."""
    values = [float(row[name]) for row in rows if np.isfinite(float(row[name]))]
    most = max((abs(value) for value in values), default=1.0)
    if min(values, default=0.0) < -0.01 * most:  # symmetric, so that equal gains and losses look equally strong
        scale = alt.Scale(range=DIVERGING, domain=[-most, most])
    else:
        scale = alt.Scale(scheme="viridis")
    return (
        named(data)
        .mark_rect(strokeWidth=0)
        .encode(
            x=alt.X("x0:Q", title=x, scale=alt.Scale(nice=False, zero=False)),
            x2="x1:Q",
            y=alt.Y("y0:Q", title=y, scale=alt.Scale(nice=False, zero=False)),
            y2="y1:Q",
            color=alt.Color(
                f"{name}:Q", scale=scale, legend=alt.Legend(title=title, orient="right", gradientLength=200)
            ),
        )
    )


def alpha_beta(result: Survey, name: str, title: str) -> Any:
    """Over alpha and beta; the line is alpha nu beta = (1 - alpha) sigma_pre + alpha sigma_post."""
    spec, rows = result.spec, result.tables["map_alpha_beta"]
    cells = _cells(rows, "map_alpha_beta", name, title, "mixing weight α", "value β of specialised features")
    cells = cells.encode(tooltip=[alt.Tooltip(f"{n}:Q", format=".4g") for n in ("alpha", "beta", name)])
    top = max(float(row["beta"]) for row in rows)
    pre, post = float(spec.values("sigma_pre").max()), float(spec.values("sigma_post").max())
    alphas = np.unique([float(row["alpha"]) for row in rows])
    line = [{"a": float(a), "b": ((1 - a) * pre + a * post) / (a * spec.post_variance)} for a in alphas]
    line = [point for point in line if point["b"] <= top]
    rule = alt.Chart(alt.InlineData(values=line)).encode(x="a:Q", y="b:Q")
    return alt.layer(cells, rule.mark_line(color="black", strokeWidth=5), rule.mark_line(color="white", strokeWidth=2))


def times(result: Survey, name: str, title: str) -> Any:
    """Over both lengths, with the two arms' own stops at rank n - k as vertical lines."""
    cells = _cells(
        result.tables["map_times"], "map_times", name, title, "pretraining time, both arms", "post-training time"
    )
    tips = [alt.Tooltip(f"{n}:Q", format=".4g") for n in ("pretrain_time", "posttrain_time", name)]
    stops = [{"x": chain.steps[0] * result.spec.lr, "arm": arm} for arm, chain in result.chains.items()]
    rule = alt.Chart(alt.InlineData(values=stops)).encode(x="x:Q")
    black, white = rule.mark_rule(color="black", strokeWidth=4), rule.mark_rule(color="white", strokeWidth=2)
    return alt.layer(
        cells.encode(tooltip=tips), black, white.encode(strokeDash=arm_encoding()["strokeDash"].legend(None))
    )


def allocation(result: Survey, data: str) -> Any:
    """The fraction of lowest L_ret over budget and length of fine-tuning; colours from 0 to 1 whatever is there."""
    cells = _cells(result.tables[data], data, "best_fraction", "best λ", "budget of D_post (time)", "")
    tips = [alt.Tooltip(f"{n}:Q", format=".4g") for n in ("budget", "finetune_time", "best_fraction", "spread")]
    axis = alt.Axis(format="~g", values=[0.1, 0.3, 1, 3, 10, 30])
    times = [float(row["finetune_time"]) for row in result.tables[data]]  # empty cells belong to the map too
    scale = alt.Scale(scheme="viridis", domain=[0, 1])
    return cells.encode(
        x=alt.X(
            "x0:Q", title="budget of D_post (time)", scale=alt.Scale(nice=False, zero=False), axis=alt.Axis(tickCount=5)
        ),
        y=alt.Y(
            "y0:Q",
            scale=alt.Scale(type="log", nice=False, domain=[min(times), max(times)]),
            axis=axis,
            title="fine-tuning time (log)",
        ),
        color=alt.Color("best_fraction:Q", scale=scale, legend=alt.Legend(title="best λ", gradientLength=200)),
        tooltip=tips,
    )
