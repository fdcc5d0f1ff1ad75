"""The two linked trade-off views: (L_ft, L_ret) and (L_ret, L_pre), points with their frontiers."""

import warnings
from functools import reduce
from operator import and_
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from indelible.report.figure import Chart, Figure
from indelible.results.columns import (
    FORGOTTEN,
    MAIN_LOSSES,
    id_columns,
    setting_columns,
    stages_of,
    varying,
    view_columns,
)
from indelible.results.labels import label_order, with_labels, word
from indelible.statistics.frontier import Points, attainment, lower_left_hull, pareto_set

PLANES = (("L_ft", "L_ret"), ("L_ret", "L_pre"))
AXIS_TITLES = {
    "L_ft": "L_ft: loss on D_ft (nats per token)",
    "L_ret": "L_ret: loss on D_post after fine-tuning (nats per token)",
    "L_pre": "L_pre: loss on D_pre after fine-tuning (nats per token)",
}
MAX_SVG_CHAINS = 2_000
ATTAINED = ("attained by one seed at least", "attained by half of the seeds", "attained by every seed")
_NONE = "none"
_DASHES = [[1, 0], [7, 3], [3, 2], [9, 3, 2, 3], [5, 2], [12, 4], [2, 3], [9, 2, 2, 2, 2, 2]]


def tradeoff_figure(table: pl.DataFrame) -> Figure | None:
    """Two views of the same chains; a brush or a hover in one marks them in the other.

    Args:
        table: results table with labels and numbers (column chain); only finished chains are drawn.

    Returns:
        None when no finished chain has both losses of a view.
    """
    done = table.filter(pl.col("status") == "done")
    planes = [plane for plane in PLANES if done.drop_nulls(plane).height]
    if not planes:
        return None
    menu = pipeline_menu(done)
    if menu:  # one is shown at a time, and its name goes without saying
        done = pl.concat(with_labels(rows) for rows in done.partition_by("pipeline", maintain_order=True))
    lines = frontier_lines(done)
    kinds = lines["kind"].unique(maintain_order=True).to_list()
    kind = alt.param(name="frontier", value=kinds[0], bind=alt.binding_select(options=[*kinds, _NONE], name="line "))
    tooltip = _tooltip(done)
    is_dense = done.height > MAX_SVG_CHAINS
    keep = "datum.pipeline == pipeline" if menu else "true"
    views = [_view(plane, _channels(done), tooltip, keep, is_dense=is_dense) for plane in planes]
    params = [kind, *menu]
    with warnings.catch_warnings():
        # Both views carry the three selections on purpose: that is what links them.
        warnings.filterwarnings("ignore", message="Automatically deduplicated selection parameter")
        chart = alt.concat(*views, columns=2).add_params(*params)
    return Figure(
        name="tradeoff",
        title="How much is kept for what is gained?",
        caption=(
            "One dot a chain; lower left is better in both views. Drag in one view to mark its chains in the other, "
            "point at a dot for settings and run ids, click the legend for single arms (shift-click: several), "
            "double-click to clear."
        ),
        chart=chart,
        data={"chains": done.select(chain_columns(done)), "frontiers": lines},
        shared=("chains",),
        is_dense=is_dense,
        place="tradeoff",
    )


def pipeline_menu(done: pl.DataFrame) -> list[alt.Parameter]:
    """A menu of pipelines, whose losses have nothing to do with each other; none when there is but one."""
    names = done["pipeline"].unique(maintain_order=True).to_list()
    if len(names) < 2:
        return []
    return [alt.param(name="pipeline", value=names[0], bind=alt.binding_select(options=names, name="pipeline "))]


def chain_columns(table: pl.DataFrame) -> list[str]:
    """What the views and their tooltips need of a chain."""
    labels = ["series", "exposure", "variant", "pipeline"]
    ids = [name for name in id_columns(table) if table[name].null_count() < table.height]
    return list(dict.fromkeys(["chain", *labels, "seed", *_tooltip_fields(table), *_losses(table), *ids]))


def _losses(table: pl.DataFrame) -> list[str]:
    return [*MAIN_LOSSES, FORGOTTEN, *view_columns(table)]


def frontier_lines(done: pl.DataFrame) -> pl.DataFrame:
    """Lines to draw, one for each treatment, pipeline and |D_post|: plane, kind, series, order, x, y.

    Hull and Pareto set are of the means over seeds of equal settings; the attainment surfaces are of single chains.
    """
    labels = ["series", "exposure", "variant", "pipeline", "post_tokens"]
    means = done.group_by(list(dict.fromkeys([*setting_columns(done), *labels])), maintain_order=True).agg(
        pl.col("L_ft", "L_ret", "L_pre").mean()
    )
    num_seeds = done["seed"].n_unique()
    rows: list[dict[str, Any]] = []
    for x, y in PLANES:
        for names, group in means.group_by(labels, maintain_order=True):
            points = group.select(x, y).drop_nulls().to_numpy()
            rows += _line(x, y, "lower-left hull", names, lower_left_hull(points))
            rows += _line(x, y, "Pareto set", names, pareto_set(points))
        if num_seeds < 2:
            continue
        for names, group in done.drop_nulls([x, y]).group_by(labels, maintain_order=True):
            surfaces = attainment(group.select(x, y).to_numpy(), group["seed"].to_numpy())
            for kind, surface in zip(ATTAINED, surfaces, strict=True):
                rows += _line(x, y, kind, names, _steps(surface))
    return pl.DataFrame(rows)


def _line(x: str, y: str, kind: str, names: tuple[Any, ...], points: Points) -> list[dict[str, Any]]:
    series, exposure, variant, pipeline, tokens = names
    return [
        {"plane": f"{x}_{y}", "kind": kind, "series": series, "exposure": exposure, "variant": variant,
         "pipeline": pipeline, "post_tokens": tokens, "order": order, "is_alone": len(points) == 1,
         "x": float(point[0]), "y": float(point[1])}
        for order, point in enumerate(points)
    ]  # fmt: skip


def _steps(corners: Points) -> Points:
    """The staircase through the corners of an attainment surface: across at the old height, then down."""
    if len(corners) < 2:
        return corners
    between = np.column_stack([corners[1:, 0], corners[:-1, 1]])
    return np.concatenate([np.stack([corners[:-1], between], axis=1).reshape(-1, 2), corners[-1:]])


def _tooltip_fields(done: pl.DataFrame) -> list[str]:
    return varying(done, setting_columns(done))


def _tooltip(done: pl.DataFrame) -> list[alt.Tooltip]:
    fields = [alt.Tooltip("series:N", title="arm"), alt.Tooltip("seed:Q", title="seed")]
    fields += [alt.Tooltip(f"{name}:{_kind(done, name)}", title=word(name)) for name in _tooltip_fields(done)]
    fields += [
        alt.Tooltip(f"{loss}:Q", format=".4f") for loss in _losses(done) if done[loss].null_count() < done.height
    ]
    stages = [stage for stage in stages_of(done) if done[f"{stage}_id"].null_count() < done.height]
    return fields + [alt.Tooltip(f"{stage}_id:N", title=stage) for stage in stages]


def _kind(done: pl.DataFrame, name: str) -> str:
    return "Q" if done.schema[name].is_numeric() else "N"


def _channels(done: pl.DataFrame) -> dict[str, Any]:
    """Colour is lambda (a ramp keeps its order) and shape the rest of the treatment; one varying thing gets both."""
    orders = {label: label_order(done, label) for label in ("exposure", "variant")}
    varied = [label for label, order in orders.items() if len(order) > 1] or ["exposure"]
    by_color, by_shape = varied[0], varied[-1]
    palette = "ordinal" if by_color == "exposure" else "category"
    color_scale = alt.Scale(domain=orders[by_color], range=palette)
    return {
        "color": alt.Color(f"{by_color}:N", sort=orders[by_color], title=None, scale=color_scale),
        "shape": alt.Shape(
            f"{by_shape}:N", sort=orders[by_shape], title=None, scale=alt.Scale(domain=orders[by_shape])
        ),
        "dash": alt.StrokeDash(
            "variant:N", title=None, sort=orders["variant"], legend=None, scale=alt.Scale(range=_DASHES)
        ),
        "legends": [f"shown_{label}" for label in varied],
    }


def _view(
    plane: tuple[str, str], channels: dict[str, Any], tooltip: list[alt.Tooltip], keep: str, *, is_dense: bool
) -> Chart:
    x, y = plane
    brush = alt.selection_interval(name="brush", resolve="intersect", empty=True)
    hover = alt.selection_point(name="hover", on="pointerover", clear="pointerout", fields=["chain"], empty=False)
    legends = [
        alt.selection_point(name=name, fields=[name.removeprefix("shown_")], bind="legend", empty=True)
        for name in channels["legends"]
    ]
    shown = reduce(and_, legends)
    scale = alt.Scale(zero=False, nice=True)
    dots = (
        alt.Chart(alt.NamedData("chains"))
        .transform_filter(keep)
        .mark_point(filled=True)
        .encode(
            x=alt.X(f"{x}:Q", scale=scale, title=AXIS_TITLES[x], axis=alt.Axis(tickCount=6)),
            y=alt.Y(f"{y}:Q", scale=scale, title=AXIS_TITLES[y]),
            color=channels["color"],
            shape=channels["shape"],
            size=alt.when(hover).then(alt.value(320)).otherwise(alt.value(42)),
            opacity=alt.when(shown & brush).then(alt.value(0.9)).otherwise(alt.value(0.07)),
            tooltip=tooltip,
        )
        .add_params(brush, hover, *legends)
    )
    line = (
        alt.Chart(alt.NamedData("frontiers"))
        .transform_filter(f"datum.plane == '{x}_{y}' && datum.kind == frontier && {keep}")
        .mark_line(strokeWidth=2.2)
        .encode(x="x:Q", y="y:Q", color=channels["color"], strokeDash=channels["dash"], order="order:Q",
                detail="post_tokens:O",
                opacity=alt.when(shown).then(alt.value(0.9)).otherwise(alt.value(0.07)))
    )  # fmt: skip
    ring = (  # a line of one point would be drawn as nothing; an empty layer would leave the scales without extent
        alt.Chart(alt.NamedData("frontiers"))
        .transform_filter(f"datum.plane == '{x}_{y}' && datum.kind == frontier && {keep}")
        .transform_calculate(ring="datum.is_alone ? '○' : ''")
        .mark_text(fontSize=24, baseline="middle", aria=False)
        .encode(x="x:Q", y="y:Q", color=channels["color"], text="ring:N",
                opacity=alt.when(shown).then(alt.value(0.9)).otherwise(alt.value(0.07)))
    )  # fmt: skip
    # In a crowd the lines would vanish below the dots.
    layers = [dots, line, ring] if is_dense else [line, ring, dots]
    return alt.layer(*layers, width=430, height=380)
