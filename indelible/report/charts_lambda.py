"""L_im and L_ret against lambda, this study's and the paper's."""

import json
from typing import Any

import altair as alt
import polars as pl

from indelible.claims import paper_figures as paper
from indelible.report.figure import MIN_SEEDS_FOR_BARS, Chart, Figure, independent
from indelible.results.columns import setting_columns, varying
from indelible.results.labels import (
    count_text,
    ids_text,
    plural,
    settings_text,
    texts,
    treatment_columns,
    treatments,
    word,
)
from indelible.statistics.inference import mean_interval

_TITLES = {"L_im": "L_im, at hand-over", "L_ret": "L_ret, after the later fine-tune"}
_DOT: dict[str, Any] = {"filled": True, "size": 55, "opacity": 1}
MAX_SLICES = 40  # choices in the menu
_AXES = ("exposure_fraction", "post_tokens")


def lambda_figure(table: pl.DataFrame) -> Figure | None:
    """L_im and L_ret against lambda by |D_post|, and Figure 3 of the paper beside them.

    Args:
        table: results table with labels; only finished chains are drawn.

    Returns:
        None when fewer than two values of lambda have finished chains.
    """
    done = table.filter(pl.col("status") == "done", pl.col("exposure_fraction").is_not_null())
    if done["exposure_fraction"].n_unique() < 2:
        return None
    summary, points, num_left_out = _summaries(done)
    slices = summary["slice"].unique(maintain_order=True).to_list()
    summary, points = with_sizes(summary), with_sizes(points)
    panels = _panels(points)
    paper_rows = _paper_rows(sorted(set(panels.values())))
    matched = [name for name, panel in panels.items() if panel == "b"]
    panel = f"(indexof({json.dumps(matched)}, slice) >= 0 ? 'b' : 'a')" if len(slices) > 1 else f"'{panels[slices[0]]}'"
    select = None
    if len(slices) > 1:
        menu = alt.binding_select(options=slices, name="settings ")
        select = alt.param(name="slice", value=slices[0], bind=menu)
    seeds = done["seed"].n_unique()
    has_bars = bool((summary["n"] >= MIN_SEEDS_FOR_BARS).any())
    views = []
    for loss in ("L_im", "L_ret"):
        views.append(_own_view(loss, summary, is_sliced=select is not None, has_bars=has_bars))
        views.append(_paper_view(loss, panel, paper_rows))
    chart = alt.concat(*views, columns=2, resolve=independent("color", "shape", "y"))
    if select is not None:
        chart = chart.add_params(select)
    bars = "Ticks: single seeds." + (" Bars: 95 % Student t interval of the mean over seeds." if has_bars else "")
    return Figure(
        name="lambda",
        title="What are the losses themselves at each λ?",
        caption=(
            "Held-out loss on D_post against λ, one line for each |D_post|; lines join means over "
            f"{plural(seeds, 'seed')}. "
            f"{bars if seeds > 1 else 'No interval.'} "
            f"Right: Figure 3{' or 3'.join(sorted(set(panels.values())))} of the paper (135M parameters, one seed)."
        ),
        chart=chart,
        data={"lambda_mean": summary, "lambda_seed": points, "lambda_paper": paper_rows},
        notes=(f"{num_left_out} more settings are in the table below.",) if num_left_out else (),
        place="effects",
    )


def _summaries(done: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Means with intervals, single seeds, and how many slices were left out.

    A slice holds everything but lambda, |D_post| and seed fixed; before the slices of one treatment comes their mean.
    """
    known = treatments(done)
    settled = set(known) - set(treatment_columns(done))
    others = [name for name in varying(done, setting_columns(done)) if name not in (*_AXES, *settled)]
    treatment = [name for name in known if name in others]
    sweeps = [name for name in others if name not in known]
    others = [*treatment, *sweeps]
    losses = ["L_im", "L_ret"]
    done = done.sort([*others, *_AXES, "seed"], nulls_last=False)
    done = done.select(list(dict.fromkeys([*others, "allocation", *_AXES, "seed", "finetune_id", *losses])))
    single = done.with_columns(
        texts(done, "group", treatment, lambda row: settings_text(row, treatment)),
        texts(done, "slice", others, lambda row: settings_text(row, others) or "all"),
    )
    is_swept = pl.struct(sweeps).n_unique().over("group") > 1 if sweeps else pl.lit(False)
    is_named = ~is_swept & (pl.col("group") != "")  # nothing is swept: the treatment's name says it all
    single = single.with_columns(pl.when(is_named).then("group").otherwise("slice").alias("slice"))
    parts = [single]
    if sweeps:
        mean_of = "mean over " + ", ".join(word(name) for name in sweeps)
        names = pl.when(pl.col("group") == "").then(pl.lit(mean_of)).otherwise(pl.col("group") + f" · {mean_of}")
        # A mean counts only settings that every lambda has, so that lambdas are compared over equal settings.
        everywhere = pl.col("exposure_fraction").n_unique()
        kept = single.filter(is_swept)
        kept = kept.filter(everywhere.over("group", "post_tokens", *sweeps) ==
                             everywhere.over("group", "post_tokens"))  # fmt: skip
        kept = kept.filter(pl.len().over("group", "post_tokens", "seed", *sweeps) == everywhere.over("group",
                           "post_tokens"))  # fmt: skip
        averaged = kept.group_by("group", "allocation", *_AXES, "seed", maintain_order=True).agg(
            pl.col(losses).mean(), pl.col("finetune_id").str.join(" ")
        )
        parts.insert(0, averaged.with_columns(names.alias("slice")))
    order = single["group"].unique(maintain_order=True).to_list()
    points = pl.concat(parts, how="diagonal").sort(
        pl.col("group").replace_strict(order, range(len(order)), return_dtype=pl.Int64), maintain_order=True
    )
    points = points.select("slice", "allocation", *_AXES, "seed", "finetune_id", *losses)
    slices = points["slice"].unique(maintain_order=True)
    points = points.filter(pl.col("slice").is_in(slices.head(MAX_SLICES).to_list()))
    keys = ["slice", "allocation", *(name for name in reversed(_AXES))]
    long = points.unpivot(
        losses, index=[*keys, "seed", "finetune_id"], variable_name="loss", value_name="value"
    ).drop_nulls("value")
    means: list[dict[str, Any]] = []
    for key, group in long.group_by(*keys, "loss", maintain_order=True):
        found = mean_interval(group["value"].to_numpy())
        means.append({**dict(zip([*keys, "loss"], key, strict=True)), "mean": found.mean, "low": found.low,
                      "high": found.high, "n": found.n,
                      "runs": ids_text(" ".join(group["finetune_id"]).split())})  # fmt: skip
    return pl.DataFrame(means, infer_schema_length=None), long.drop("finetune_id"), max(0, len(slices) - MAX_SLICES)


def _panels(points: pl.DataFrame) -> dict[str, str]:
    """The panel of the paper's Figure 3 that each slice stands beside."""
    return {name: "b" if part["allocation"].unique().to_list() == ["matched"] else "a"
            for (name,), part in points.group_by("slice", maintain_order=True)}  # fmt: skip


def _paper_rows(panels: list[str]) -> pl.DataFrame:
    return with_sizes(paper.lambda_curves().filter(pl.col("panel").is_in(panels)))


def _own_view(loss: str, rows: pl.DataFrame, *, is_sliced: bool, has_bars: bool) -> Chart:
    conditions = [f"datum.loss == '{loss}'"] + (["datum.slice == slice"] if is_sliced else [])
    keep = " && ".join(conditions)
    x = alt.X("x:Q", title="λ, part of D_post seen in pretraining", axis=lambda_axis(rows))
    color, shape = size_channels(rows)
    tooltip = [
        alt.Tooltip("exposure_fraction:Q", title="λ"), alt.Tooltip("size:N", title="|D_post|"),
        alt.Tooltip("mean:Q", format=".4f"), alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"), alt.Tooltip("n:Q", title="seeds"), alt.Tooltip("runs:N"),
    ]  # fmt: skip
    means = alt.Chart(alt.NamedData("lambda_mean")).transform_filter(keep)
    scale = alt.Scale(zero=False)
    y = alt.Y("mean:Q", title="nats per token", scale=scale)
    line = means.mark_line(strokeWidth=2).encode(x=x, y=y, color=color)
    barred = means.transform_filter(f"datum.n >= {MIN_SEEDS_FOR_BARS}")
    bar = barred.mark_rule(strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q", color=color)
    dot = means.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=color, shape=shape, tooltip=tooltip)
    single = (
        alt.Chart(alt.NamedData("lambda_seed"))
        .transform_filter(keep)
        .mark_tick(size=7, thickness=1, orient="horizontal", opacity=0.6)
        .encode(x=x, y=alt.Y("value:Q", scale=scale), color=color)
    )
    layers = [bar, line, single, dot] if has_bars else [line, single, dot]
    return alt.layer(*layers, title=f"This study: {_TITLES[loss]}", width=400, height=240)


def _paper_view(loss: str, panel: str, rows: pl.DataFrame) -> Chart:
    """``panel`` is a Vega expression for ``'a'`` or ``'b'``."""
    color, shape = size_channels(rows)
    data = alt.Chart(alt.NamedData("lambda_paper")).transform_filter(
        f"datum.loss == '{loss}' && datum.panel == {panel}"
    )
    x = alt.X("x:Q", title="λ, part of D_post seen in pretraining", axis=lambda_axis(rows))
    y = alt.Y("value:Q", title="nats per token", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("exposure_fraction:Q", title="λ"), alt.Tooltip("size:N", title="|D_post|"),
        alt.Tooltip("value:Q", format=".4f"),
    ]  # fmt: skip
    line = data.mark_line(strokeWidth=2, strokeDash=[5, 3]).encode(x=x, y=y, color=color)
    dot = data.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=color, shape=shape, tooltip=tooltip)
    title = {"expr": f"'The paper, Figure 3' + {panel} + ': {loss}'"}
    return alt.layer(line, dot, title=alt.Title(text=title), width=400, height=240)


def with_sizes(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds ``size``, |D_post| for people, and ``x``, lambda moved a little so that bars of sizes stand side by side."""
    sizes = rows["post_tokens"].unique().sort().to_list()
    text = pl.col("post_tokens").map_elements(count_text, return_dtype=pl.String).fill_null("-")
    number = pl.col("post_tokens").replace_strict(sizes, list(range(len(sizes))), return_dtype=pl.Float64)
    step = min(0.014, 0.08 / len(sizes)) * max(1.0, rows["exposure_fraction"].max() or 1.0)  # type: ignore[operator]
    shift = (number - (len(sizes) - 1) / 2) * step
    return rows.with_columns(text.alias("size"), (pl.col("exposure_fraction") + shift).round(5).alias("x"))


def lambda_axis(rows: pl.DataFrame) -> alt.Axis:
    """Ticks at the lambdas that were run, when they are few."""
    fractions = rows["exposure_fraction"].unique().sort().to_list()
    return alt.Axis(values=fractions, labelExpr="'' + datum.value") if len(fractions) <= 7 else alt.Axis(tickCount=5)


def size_channels(rows: pl.DataFrame) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of |D_post| (columns size, post_tokens), smallest first: one legend for both."""
    sizes = rows.select("size", "post_tokens").unique().sort("post_tokens")["size"].to_list()
    return (
        alt.Color("size:N", title="|D_post|", sort=sizes, scale=alt.Scale(domain=sizes, range="ordinal")),
        alt.Shape("size:N", title="|D_post|", sort=sizes, scale=alt.Scale(domain=sizes)),
    )
