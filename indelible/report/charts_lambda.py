"""L_im and L_ret against lambda, this study's and the paper's."""

from typing import Any

import altair as alt
import polars as pl

from indelible.analysis import paper
from indelible.analysis.arms import TREATMENT, count_text, plural, settings_text, word
from indelible.analysis.columns import setting_columns, varying
from indelible.analysis.inference import mean_interval
from indelible.report.figure import MIN_SEEDS_FOR_BARS, Chart, Figure

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
    panel = "b" if done["allocation"].unique().to_list() == ["matched"] else "a"
    paper_rows = _paper_rows(panel)
    select = None
    if len(slices) > 1:
        menu = alt.binding_select(options=slices, name="settings ")
        select = alt.param(name="slice", value=slices[0], bind=menu)
    seeds = done["seed"].n_unique()
    has_bars = bool((summary["n"] >= MIN_SEEDS_FOR_BARS).any())
    views = []
    for loss in ("L_im", "L_ret"):
        views.append(_own_view(loss, sizes_in(summary), is_sliced=select is not None, has_bars=has_bars))
        views.append(_paper_view(loss, panel, sizes_in(paper_rows)))
    chart = alt.concat(*views, columns=2).resolve_scale(color="independent", shape="independent", y="independent")
    if select is not None:
        chart = chart.add_params(select)
    bars = "Ticks: single seeds." + (" Bars: 95 % Student t interval of the mean over seeds." if has_bars else "")
    return Figure(
        name="lambda",
        title="What exposure does at hand-over, and what it does after the next fine-tune",
        caption=(
            "Held-out loss on D_post against λ, one line for each |D_post|; lines join means over "
            f"{plural(seeds, 'seed')}. "
            f"{bars if seeds > 1 else 'No interval.'} "
            f"Right: Figure 3{panel} of the paper (135M parameters, one seed)."
        ),
        chart=chart,
        data={"lambda_mean": summary, "lambda_seed": points, "lambda_paper": paper_rows},
        notes=(f"{num_left_out} more settings are in the table below.",) if num_left_out else (),
    )


def _summaries(done: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Means with intervals, single seeds, and how many slices were left out.

    A slice holds everything but lambda, |D_post| and seed fixed; before the slices of one treatment comes their mean.
    """
    others = [name for name in varying(done, setting_columns(done)) if name not in _AXES]
    treatment = [name for name in others if name in TREATMENT]
    sweeps = [name for name in others if name not in TREATMENT]
    losses = ["L_im", "L_ret"]
    done = done.sort([*others, *_AXES, "seed"], nulls_last=False).select(*others, *_AXES, "seed", *losses)
    rows = done.select(others).to_dicts() if others else [{}] * done.height
    groups = pl.Series("group", [settings_text(row, treatment) for row in rows], pl.String)
    single = done.with_columns(groups, pl.Series("slice", [settings_text(row, others) or "all" for row in rows]))
    parts = [single]
    if sweeps:
        mean_of = "mean over " + ", ".join(word(name) for name in sweeps)
        names = pl.when(pl.col("group") == "").then(pl.lit(mean_of)).otherwise(pl.col("group") + f" · {mean_of}")
        averaged = single.group_by("group", *_AXES, "seed", maintain_order=True).agg(pl.col(losses).mean())
        parts.insert(0, averaged.with_columns(names.alias("slice")))
    points = pl.concat(parts, how="diagonal").select("slice", *_AXES, "seed", *losses)
    slices = points["slice"].unique(maintain_order=True)
    points = points.filter(pl.col("slice").is_in(slices.head(MAX_SLICES).to_list())).with_columns(
        pl.col("post_tokens").map_elements(count_text, return_dtype=pl.String).alias("size")
    )
    keys = ["slice", "post_tokens", "size", "exposure_fraction"]
    long = points.unpivot(losses, index=[*keys, "seed"], variable_name="loss", value_name="value").drop_nulls("value")
    means: list[dict[str, Any]] = []
    for key, group in long.group_by(*keys, "loss", maintain_order=True):
        found = mean_interval(group["value"].to_numpy())
        means.append({**dict(zip([*keys, "loss"], key, strict=True)), "mean": found.mean, "low": found.low,
                      "high": found.high, "n": found.n})  # fmt: skip
    return pl.DataFrame(means, infer_schema_length=None), long, max(0, len(slices) - MAX_SLICES)


def _paper_rows(panel: str) -> pl.DataFrame:
    return (
        paper.lambda_curves()
        .filter(pl.col("panel") == panel)
        .with_columns(pl.col("post_tokens").map_elements(count_text, return_dtype=pl.String).alias("size"))
    )


def _own_view(loss: str, sizes: list[str], *, is_sliced: bool, has_bars: bool) -> Chart:
    conditions = [f"datum.loss == '{loss}'"] + (["datum.slice == slice"] if is_sliced else [])
    keep = " && ".join(conditions)
    x = alt.X("exposure_fraction:Q", title="λ, part of D_post seen in pretraining", axis=alt.Axis(tickCount=5))
    color, shape = size_channels(sizes)
    tooltip = [
        alt.Tooltip("exposure_fraction:Q", title="λ"), alt.Tooltip("size:N", title="|D_post|"),
        alt.Tooltip("mean:Q", format=".4f"), alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"), alt.Tooltip("n:Q", title="seeds"),
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
        .mark_tick(size=11, thickness=1.5, orient="horizontal", opacity=0.8)
        .encode(x=x, y=alt.Y("value:Q", scale=scale), color=color)
    )
    layers = [bar, line, single, dot] if has_bars else [line, single, dot]
    return alt.layer(*layers).properties(title=f"This study: {_TITLES[loss]}", width=400, height=240)


def _paper_view(loss: str, panel: str, sizes: list[str]) -> Chart:
    color, shape = size_channels(sizes)
    data = alt.Chart(alt.NamedData("lambda_paper")).transform_filter(f"datum.loss == '{loss}'")
    x = alt.X("exposure_fraction:Q", title="λ, part of D_post seen in pretraining", axis=alt.Axis(tickCount=5))
    y = alt.Y("value:Q", title="nats per token", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("exposure_fraction:Q", title="λ"), alt.Tooltip("size:N", title="|D_post|"),
        alt.Tooltip("value:Q", format=".4f"),
    ]  # fmt: skip
    line = data.mark_line(strokeWidth=2, strokeDash=[5, 3]).encode(x=x, y=y, color=color)
    dot = data.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=color, shape=shape, tooltip=tooltip)
    return (line + dot).properties(title=f"Paper, Figure 3{panel}: {loss}", width=400, height=240)


def sizes_in(rows: pl.DataFrame) -> list[str]:
    """The labels of |D_post| in ``rows`` (columns size, post_tokens), smallest first."""
    return rows.select("size", "post_tokens").unique().sort("post_tokens")["size"].to_list()


def size_channels(sizes: list[str]) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of |D_post|: one legend for both."""
    return (
        alt.Color("size:N", title="|D_post|", sort=sizes, scale=alt.Scale(domain=sizes, range="ordinal")),
        alt.Shape("size:N", title="|D_post|", sort=sizes, scale=alt.Scale(domain=sizes)),
    )
