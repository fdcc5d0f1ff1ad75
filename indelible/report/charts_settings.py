"""The hyper-parameter view: which settings move L_ret, and where each value of a setting leads."""

from typing import Any

import altair as alt
import polars as pl

from indelible.report.figure import Figure
from indelible.results.columns import FORGOTTEN, MAIN_LOSSES, setting_columns, varying
from indelible.results.labels import value_text, word
from indelible.statistics.sensitivity import marginal_values, variance_shares

LOSSES = (*MAIN_LOSSES, FORGOTTEN)


def settings_figure(table: pl.DataFrame) -> Figure | None:
    """What moves L_ret: variance shares, and the marginal of a chosen setting. None when nothing varies."""
    done = table.filter(pl.col("status") == "done").drop_nulls("L_ret")
    names = varying(done, setting_columns(done)) if done.height else []
    if not names:
        return None
    shares = variance_shares(done, [*names, "seed"], LOSSES)
    shares = shares.with_columns(pl.Series("label", [word(name) for name in shares["setting"]], pl.String))
    values = marginal_values(done, names, "L_ret")
    values = values.with_columns(
        pl.Series("label", [word(name) for name in values["setting"]], pl.String),
        pl.Series("text", [_text(name, value) for name, value in values.select("setting", "value").iter_rows()]),
    )
    ranked = dict(shares.select("setting", "rank").iter_rows())
    options = [word(name) for name in sorted(names, key=lambda name: ranked[name])]  # what moves L_ret most comes first
    select = alt.param(name="setting", value=options[0], bind=alt.binding_select(options=options, name="setting "))
    chart = alt.concat(_share_view(), _value_view(), columns=2).add_params(select).resolve_scale(color="independent")
    return Figure(
        name="settings",
        title="What moves the losses?",
        caption=(
            "Left: the part of a loss's variance over finished chains that one setting explains by itself (between "
            "its values; "
            "the parts need not add up to one). Right: L_ret at each value of a setting: median, and the middle 80 "
            "% of chains."
        ),
        chart=chart,
        data={"shares": shares, "marginals": values},
    )


def _share_view() -> alt.Chart:
    return (
        alt.Chart(alt.NamedData("shares"))
        .mark_rect()
        .encode(
            x=alt.X("loss:N", title=None, sort=list(LOSSES), axis=alt.Axis(labelAngle=0)),
            y=alt.Y("label:N", title=None, sort=alt.EncodingSortField("rank", op="min")),
            color=alt.Color("share:Q", title="variance explained", scale=alt.Scale(domain=[0, 1]),
                            legend=alt.Legend(format="%", gradientLength=160)),
            tooltip=[alt.Tooltip("label:N", title="setting"), alt.Tooltip("loss:N"),
                     alt.Tooltip("share:Q", format=".1%", title="variance explained")],
        )
        .properties(title="Variance explained", width=330, height=alt.Step(26))
    )  # fmt: skip


def _value_view() -> alt.LayerChart:
    base = alt.Chart(alt.NamedData("marginals")).transform_filter("datum.label == setting")
    x = alt.X("text:N", title=None, sort=alt.EncodingSortField("rank", op="min"), axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(zero=False)
    tooltip: list[Any] = [
        alt.Tooltip("label:N", title="setting"), alt.Tooltip("text:N", title="value"),
        alt.Tooltip("median:Q", format=".4f"), alt.Tooltip("low:Q", format=".4f", title="10 %"),
        alt.Tooltip("high:Q", format=".4f", title="90 %"), alt.Tooltip("chains:Q"),
    ]  # fmt: skip
    bar = base.mark_rule(strokeWidth=3, opacity=0.5).encode(
        x=x, y=alt.Y("low:Q", scale=scale, title="L_ret, nats per token"), y2="high:Q", tooltip=tooltip
    )
    dot = base.mark_point(filled=True, size=90, opacity=1).encode(x=x, y="median:Q", tooltip=tooltip)
    return (bar + dot).properties(title="L_ret at each value", width=400, height=230)


def _text(name: str, value: str) -> str:
    try:
        return value_text(name, int(value)) if name.endswith("_tokens") else value
    except ValueError:
        return value
