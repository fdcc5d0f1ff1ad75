"""The page's charts as Vega-Lite specs; their data are named and stand once in the page.

Blocks and arms have colours from the Okabe-Ito palette and, where lines cross, dashes too, so that no chart rests on
colour alone. Text, grid and background are the page's (light or dark), set when a chart is drawn.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from indelible.theory.maps import Row, best_fraction
from indelible.theory.survey import Survey

Spec = dict[str, Any]

BLOCK_COLOURS = {"invariant": "#8a8f98", "inconsistent": "#D55E00", "specialised": "#2F8FD8"}
ARM_COLOURS = {"unmixed": "#CC79A7", "mixed": "#009E73"}
ARM_DASHES = {"unmixed": [6, 4], "mixed": [1, 0]}
DIVERGING = ["#b35806", "#fdb863", "#eeeeee", "#80b1d3", "#2166ac"]
STAGE_AXIS = "datum.value < 1 ? 'pretraining' : datum.value < 2 ? 'post-training' : 'fine-tuning'"


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
    ):
        tables[name] = with_cells(tables[name], x, y, log_y=log_y)
    return {name: [_rounded(row) for row in rows] for name, rows in tables.items()}


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


def _rounded(row: Row) -> Row:
    out: Row = {}
    for key, value in row.items():
        if isinstance(value, float):
            # JSON has no NaN; the charts draw a missing value as an empty cell.
            out[key] = float(f"{value:.5g}") if np.isfinite(value) else None  # type: ignore[assignment]
        else:
            out[key] = value
    return out


def all_charts(result: Survey) -> dict[str, Spec]:
    """Every chart of the page by the id of its place."""
    charts = {f"features-{arm}": _features(arm) for arm in ARM_COLOURS}
    charts |= {f"features-log-{arm}": _features(arm, log=True) for arm in ARM_COLOURS}
    charts["loss"] = _loss(result)
    for name, title in (("delta", "Δ = L_ret − L_im"), ("L_ret", "L_ret"), ("L_im", "L_im")):
        charts[f"posttrain-{name}"] = _posttrain(result, name, title)
    for name, title in (("gain_ret", "L_ret gain"), ("gain_delta", "Δ gain")):
        charts[f"alpha-beta-{name}"] = _alpha_beta(result, name, title)
        charts[f"times-{name}"] = _times(result, name, title)
    charts["overlap-0"] = _overlap("0")
    charts["overlap-beta"] = _overlap("beta")
    charts |= {f"allocation-{time}": _allocation(result, time) for time in (2, 30)}
    charts["allocation-map"] = _allocation_map(result)
    charts |= {"samples-delta": _samples("delta", "Δ"), "samples-L_ret": _samples("L_ret", "L_ret")}
    return {name: _spec(chart) for name, chart in charts.items()}


def _spec(chart: Any) -> Spec:
    return chart.properties(width="container", height=260).to_dict()


def _named(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=name))


def _arm(field: str = "arm:N") -> dict[str, Any]:
    names = list(ARM_COLOURS)
    legend = alt.Legend(title=None, orient="top", symbolStrokeWidth=3, symbolSize=300, symbolType="stroke")
    return {
        "color": alt.Color(field, scale=alt.Scale(domain=names, range=list(ARM_COLOURS.values())), legend=legend),
        "strokeDash": alt.StrokeDash(
            field, scale=alt.Scale(domain=names, range=[ARM_DASHES[n] for n in names]), legend=legend
        ),
    }


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
        _named("trajectory_long")
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
    line = _named("loss").mark_line(strokeWidth=3).encode(
        x=_progress(),
        y=alt.Y("loss_post:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g"), title="loss on D_post (log)"),
        tooltip=["arm:N", alt.Tooltip("loss_post:Q", format=".4g"), alt.Tooltip("time:Q", format=".3g")],
        **_arm(),
    )  # fmt: skip
    base = alt.Chart(alt.InlineData(values=marks)).encode(x=_progress(), y="loss_post:Q", color=_arm()["color"])
    text = base.mark_text(dy=-13, dx=-20, fontSize=13, fontWeight=600).encode(text="text:N")
    return alt.layer(line, _stage_rules(), base.mark_point(size=90, filled=True, opacity=1), text)


def _posttrain(result: Survey, name: str, title: str) -> Any:
    """One loss of both arms over the length of post-training; theorem 5.2 is expected to hold in the shaded band."""
    window = result.window
    band = alt.InlineData(values=[{"from": window.opens, "to": window.closes}])
    shade = alt.Chart(band).mark_rect(color="#8a8f98", opacity=0.25).encode(x=alt.X("from:Q"), x2="to:Q")
    line = (
        _named("posttrain")
        .mark_line(strokeWidth=3)
        .encode(
            x=alt.X("posttrain_time:Q", title="post-training time", axis=alt.Axis(tickCount=5)),
            y=alt.Y(f"{name}:Q", title=title),
            tooltip=["arm:N", alt.Tooltip("posttrain_time:Q", format=".3g"), alt.Tooltip(f"{name}:Q", format=".4g")],
            **_arm(),
        )
    )
    return alt.layer(shade, line) if window.opens < window.closes else line


def _map(rows: Sequence[Row], data: str, name: str, title: str, x: str, y: str) -> Any:
    """Cells coloured by a gain: viridis, or blue above zero and orange below where a value is negative."""
    values = [float(row[name]) for row in rows if np.isfinite(float(row[name]))]
    most = max((abs(value) for value in values), default=1.0)
    if min(values, default=0.0) < -0.01 * most:  # symmetric, so that equal gains and losses look equally strong
        scale = alt.Scale(range=DIVERGING, domain=[-most, most])
    else:
        scale = alt.Scale(scheme="viridis")
    return (
        _named(data)
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


def _alpha_beta(result: Survey, name: str, title: str) -> Any:
    """Over alpha and beta; the line is alpha nu beta = (1 - alpha) sigma_pre + alpha sigma_post."""
    spec, rows = result.spec, result.tables["map_alpha_beta"]
    cells = _map(rows, "map_alpha_beta", name, title, "mixing weight α", "value β of specialised features")
    cells = cells.encode(tooltip=[alt.Tooltip(f"{n}:Q", format=".4g") for n in ("alpha", "beta", name)])
    top = max(float(row["beta"]) for row in rows)
    pre, post = float(spec.values("sigma_pre").max()), float(spec.values("sigma_post").max())
    alphas = np.unique([float(row["alpha"]) for row in rows])
    line = [{"a": float(a), "b": ((1 - a) * pre + a * post) / (a * spec.post_variance)} for a in alphas]
    line = [point for point in line if point["b"] <= top]
    rule = alt.Chart(alt.InlineData(values=line)).encode(x="a:Q", y="b:Q")
    return alt.layer(cells, rule.mark_line(color="black", strokeWidth=5), rule.mark_line(color="white", strokeWidth=2))


def _times(result: Survey, name: str, title: str) -> Any:
    """Over both lengths, with the two arms' own stops at rank n - k as vertical lines."""
    cells = _map(
        result.tables["map_times"], "map_times", name, title, "pretraining time, both arms", "post-training time"
    )
    tips = [alt.Tooltip(f"{n}:Q", format=".4g") for n in ("pretrain_time", "posttrain_time", name)]
    stops = [{"x": chain.steps[0] * result.spec.lr, "arm": arm} for arm, chain in result.chains.items()]
    rule = alt.Chart(alt.InlineData(values=stops)).encode(x="x:Q")
    black, white = rule.mark_rule(color="black", strokeWidth=4), rule.mark_rule(color="white", strokeWidth=2)
    return alt.layer(cells.encode(tooltip=tips), black, white.encode(strokeDash=_arm()["strokeDash"].legend(None)))


def _overlap(asks: str) -> Any:
    """L_ret of both arms over the overlap, on a logarithmic axis."""
    return (
        _named("overlap")
        .transform_filter(f"datum.ft_target === '{asks}' && datum.overlap > 0")
        .mark_line(strokeWidth=3)
        .encode(
            x=alt.X("overlap:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format=".0e", tickCount=6),
                    title="input variance of D_ft on specialised directions"),
            y=alt.Y("L_ret:Q", title="L_ret"),
            tooltip=["arm:N", alt.Tooltip("overlap:Q", format=".2e"), alt.Tooltip("L_ret:Q", format=".4g")],
            **_arm(),
        )
    )  # fmt: skip


def _allocation(result: Survey, time: int) -> Any:
    """L_ret over the exposed fraction at one length of fine-tuning, for three regularisers; the lowest is marked."""
    rows = [row for row in result.tables["allocation"] if abs(float(row["finetune_time"]) - time) < 0.01]
    colour = alt.Color(
        "regularisation:O",
        scale=alt.Scale(range=["#56B4E9", "#009E73", "#D55E00"]),
        legend=alt.Legend(title=None, orient="top", labelExpr="'ρ = ' + datum.label", symbolStrokeWidth=3,
                          symbolSize=300, symbolType="stroke"),
    )  # fmt: skip
    y = alt.Y("L_ret:Q", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~g"), title="L_ret (log)")
    encoding = {
        "x": alt.X("fraction:Q", title="fraction λ of D_post seen in pretraining", axis=alt.Axis(tickCount=5)),
        "y": y,
        "color": colour,
        "tooltip": [alt.Tooltip(f"{n}:Q", format=".4g") for n in ("regularisation", "fraction", "L_ret", "L_im")],
    }
    chosen = _named("allocation").transform_filter(f"abs(datum.finetune_time - {time}) < 0.01")
    lines = chosen.mark_line(strokeWidth=3).encode(
        **encoding, strokeDash=alt.StrokeDash("regularisation:O", legend=None)
    )
    marks = alt.Chart(alt.InlineData(values=_lowest(rows))).mark_point(
        size=170, filled=True, opacity=1, shape="diamond"
    )
    return alt.layer(lines, marks.encode(**encoding))


def _lowest(rows: Sequence[Row]) -> list[Row]:
    """The row of each regulariser's best fraction; none where the ends are as good as any."""
    out = []
    for reg in sorted({float(row["regularisation"]) for row in rows}):
        of_reg = {float(row["fraction"]): row for row in rows if row["regularisation"] == reg}
        best = best_fraction(np.array(list(of_reg)), np.array([float(row["L_ret"]) for row in of_reg.values()]))
        if np.isfinite(best):
            out.append(of_reg[best])
    return out


def _allocation_map(result: Survey) -> Any:
    """The fraction of lowest L_ret over budget and length of fine-tuning."""
    rows = result.tables["map_allocation"]
    cells = _map(rows, "map_allocation", "best_fraction", "best λ", "budget of D_post (time)", "fine-tuning time (log)")
    tips = [alt.Tooltip(f"{n}:Q", format=".4g") for n in ("budget", "finetune_time", "best_fraction", "spread")]
    return cells.encode(
        y=alt.Y(
            "y0:Q", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~g"), title="fine-tuning time (log)"
        ),
        tooltip=tips,
    )


def _samples(name: str, title: str) -> Any:
    """Each seed a point, the mean a line, over the number of samples."""
    x = alt.X(
        "num_samples:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s"), title="samples of each data set"
    )
    tips = ["arm:N", "seed:O", alt.Tooltip(f"{name}:Q", format=".4g")]
    base = _named("samples")
    mean = base.mark_line(strokeWidth=3).encode(x=x, y=alt.Y(f"mean({name}):Q", title=title), **_arm())
    seeds = base.mark_point(size=45, opacity=0.75, filled=True)
    return alt.layer(mean, seeds.encode(x=x, y=alt.Y(f"{name}:Q", title=title), color=_arm()["color"], tooltip=tips))
