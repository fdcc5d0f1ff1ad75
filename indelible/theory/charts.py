"""The page's charts as Vega-Lite specs; their data are named and stand once in the page. Maps are in `map_charts`."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from indelible.theory import map_charts
from indelible.theory.chart_parts import ARM_COLOURS, BLOCK_COLOURS, Spec, arm_encoding, named, with_excess
from indelible.theory.maps import Row, best_fraction
from indelible.theory.overview import Survey

LOG_TICKS = [base * 10.0**power for power in range(-3, 7) for base in (1, 3)]
STAGE_AXIS = "datum.value < 1 ? 'pretraining' : datum.value < 2 ? 'post-training' : 'fine-tuning'"


def all_charts(result: Survey) -> dict[str, Spec]:
    """Every chart of the page by the id of its place."""
    charts = {f"features-{arm}": _features(arm) for arm in ARM_COLOURS}
    charts |= {f"features-log-{arm}": _features(arm, log=True) for arm in ARM_COLOURS}
    charts["loss"] = _loss(result)
    for name, title in (("delta", "Δ = L_ret − L_im"), ("L_ret", "L_ret"), ("L_im", "L_im")):
        charts[f"posttrain-{name}"] = _posttrain(result, name, title)
    for name, title in (("gain_ret", "L_ret gain"), ("gain_delta", "Δ gain")):
        charts[f"alpha-beta-{name}"] = map_charts.alpha_beta(result, name, title)
        charts[f"times-{name}"] = map_charts.times(result, name, title)
    charts["overlap-0"] = _overlap("0")
    charts["overlap-beta"] = _overlap("beta")
    charts |= {f"allocation-{time}": _allocation(result, time) for time in (2, 30)}
    charts["allocation-map"] = map_charts.allocation(result, "map_allocation")
    charts["allocation-map-free"] = map_charts.allocation(result, "map_allocation_free")
    charts |= {"samples-delta": _samples("delta", "Δ"), "samples-L_ret": _samples("L_ret", "L_ret")}
    return {name: _spec(chart) for name, chart in charts.items()}


def _spec(chart: Any) -> Spec:
    return chart.properties(width="container", height=280).to_dict()


def _progress() -> alt.X:
    axis = alt.Axis(values=[0.5, 1.5, 2.5], labelExpr=STAGE_AXIS, grid=False, ticks=False, title=None)
    return alt.X("progress:Q", scale=alt.Scale(domain=[0, 3], nice=False), axis=axis)


def _stage_rules() -> Any:
    rows = alt.InlineData(values=[{"x": 1}, {"x": 2}])
    return alt.Chart(rows).mark_rule(strokeDash=[2, 3], color="#8a8f98").encode(x=alt.X("x:Q"))


def _features(arm: str, log: bool = False) -> Any:
    """Feature values, the mean of each block, over the three stages, each stage drawn equally wide."""
    names = list(BLOCK_COLOURS)
    scale = alt.Scale(type="log") if log else alt.Scale()
    axis = alt.Axis(format=".0e" if log else "~g", tickCount=6)
    lines = (
        named("trajectory_long")
        .transform_filter(f"datum.arm === '{arm}'")
        .mark_line(strokeWidth=3)
        .encode(
            x=_progress(),
            y=alt.Y("value:Q", scale=scale, axis=axis, title="feature value"),
            color=alt.Color(
                "block:N",
                scale=alt.Scale(domain=names, range=list(BLOCK_COLOURS.values())),
                legend=alt.Legend(title=None, orient="top", symbolStrokeWidth=3, symbolSize=300, symbolType="stroke"),
            ),
            tooltip=["block:N", alt.Tooltip("value:Q", format=".4g"), alt.Tooltip("time:Q", format=".3g")],
        )
    )
    return alt.layer(lines, _stage_rules())


def _loss(result: Survey) -> Any:
    """The loss on D_post over the stages, with the two losses that the paper compares marked."""
    marks = []
    for arm, chain in result.chains.items():
        marks.append({"arm": arm, "progress": 2, "loss_post": float(chain.losses.L_im), "text": "L_im"})
        marks.append({"arm": arm, "progress": 3, "loss_post": float(chain.losses.L_ret), "text": "L_ret"})
    line = named("loss").mark_line(strokeWidth=3).encode(
        x=_progress(),
        y=alt.Y("loss_post:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g", values=LOG_TICKS),
                title="loss on D_post (log)"),
        tooltip=["arm:N", alt.Tooltip("loss_post:Q", format=".4g"), alt.Tooltip("time:Q", format=".3g")],
        **arm_encoding(),
    )  # fmt: skip
    base = alt.Chart(alt.InlineData(values=marks)).encode(x=_progress(), y="loss_post:Q", color=arm_encoding()["color"])
    text = base.mark_text(dy=-13, dx=-20, fontSize=13, fontWeight=600).encode(text="text:N")
    return alt.layer(line, _stage_rules(), base.mark_point(size=90, filled=True, opacity=1), text)


def _posttrain(result: Survey, name: str, title: str) -> Any:
    """One loss of both arms over the length of post-training; theorem 5.2 is expected to hold in the shaded band."""
    window = result.window
    band = alt.InlineData(values=[{"from": window.opens, "to": window.closes}])
    shade = alt.Chart(band).mark_rect(color="#8a8f98", opacity=0.25).encode(x=alt.X("from:Q"), x2="to:Q")
    line = (
        named("posttrain")
        .mark_line(strokeWidth=3)
        .encode(
            x=alt.X("posttrain_time:Q", title="post-training time", axis=alt.Axis(tickCount=5)),
            y=alt.Y(f"{name}:Q", title=title),
            tooltip=["arm:N", alt.Tooltip("posttrain_time:Q", format=".3g"), alt.Tooltip(f"{name}:Q", format=".4g")],
            **arm_encoding(),
        )
    )
    return alt.layer(shade, line) if window.opens < window.closes else line


def _overlap(asks: str) -> Any:
    """L_ret of both arms over the overlap, on a logarithmic axis."""
    return (
        named("overlap")
        .transform_filter(f"datum.ft_target === '{asks}' && datum.overlap > 0")
        .mark_line(strokeWidth=3)
        .encode(
            x=alt.X("overlap:Q", scale=alt.Scale(type="log"),
                    axis=alt.Axis(format="~g", values=[10.0**power for power in range(-5, 1)]),
                    title="input variance of D_ft on specialised directions"),
            y=alt.Y("L_ret:Q", title="L_ret"),
            tooltip=["arm:N", alt.Tooltip("overlap:Q", format=".2e"), alt.Tooltip("L_ret:Q", format=".4g")],
            **arm_encoding(),
        )
    )  # fmt: skip


def _allocation(result: Survey, time: int) -> Any:
    """L_ret above its lowest over the exposed fraction at one length of fine-tuning; the best fractions are marked."""
    rows = [row for row in with_excess(result.tables["allocation"]) if abs(float(row["finetune_time"]) - time) < 0.01]
    legend = alt.Legend(title=None, orient="top", labelExpr="'ρ = ' + datum.label", symbolStrokeWidth=3,
                        symbolSize=300, symbolType="stroke")  # fmt: skip
    colour = alt.Color("regularisation:O", scale=alt.Scale(range=["#56B4E9", "#009E73", "#D55E00"]), legend=legend)
    scale = alt.Scale(type="symlog", constant=0.01, nice=False)
    axis = alt.Axis(values=[0, 0.01, 0.1, 1, 10, 100, 1000], labelExpr="toString(datum.value)")
    encoding = {
        "x": alt.X("fraction:Q", title="fraction λ of D_post seen in pretraining", axis=alt.Axis(tickCount=5)),
        "y": alt.Y("excess:Q", scale=scale, axis=axis, title="L_ret above the best λ’s (%)"),
        "color": colour,
        "tooltip": [alt.Tooltip(f"{n}:Q", format=".4g") for n in ("regularisation", "fraction", "L_ret", "L_im")],
    }
    chosen = named("allocation").transform_filter(f"abs(datum.finetune_time - {time}) < 0.01")
    dash = alt.StrokeDash("regularisation:O", scale=alt.Scale(range=[[1, 0], [8, 3], [2, 3]]), legend=None)
    lines = chosen.mark_line(strokeWidth=3).encode(**encoding, strokeDash=dash)
    best = alt.Chart(alt.InlineData(values=_lowest(rows)))
    return alt.layer(lines, best.mark_point(size=170, filled=True, opacity=1, shape="diamond").encode(**encoding))


def _lowest(rows: Sequence[Row]) -> list[Row]:
    """The row of each regulariser's best fraction; none where the ends are as good as any."""
    out = []
    for reg in sorted({float(row["regularisation"]) for row in rows}):
        of_reg = {float(row["fraction"]): row for row in rows if row["regularisation"] == reg}
        best = best_fraction(np.array(list(of_reg)), np.array([float(row["L_ret"]) for row in of_reg.values()]))
        if np.isfinite(best):
            out.append(of_reg[best])
    return out


def _samples(name: str, title: str) -> Any:
    """Each seed a point, the mean a line, over the number of samples."""
    x = alt.X(
        "num_samples:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s"), title="samples of each data set"
    )
    tips = ["arm:N", "seed:O", alt.Tooltip(f"{name}:Q", format=".4g")]
    base = named("samples")
    mean = base.mark_line(strokeWidth=3).encode(x=x, y=alt.Y(f"mean({name}):Q", title=title), **arm_encoding())
    seeds = base.mark_point(size=45, opacity=0.75, filled=True)
    return alt.layer(
        mean, seeds.encode(x=x, y=alt.Y(f"{name}:Q", title=title), color=arm_encoding()["color"], tooltip=tips)
    )
