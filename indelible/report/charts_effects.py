"""Effects with their intervals: every finding in one forest, and the paired difference against lambda."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from indelible.analysis.arms import count_text
from indelible.analysis.compare import compare_at_equal_settings
from indelible.analysis.scopes import EXPOSURE
from indelible.analysis.verdicts import Verdict
from indelible.report.charts_lambda import size_channels, sizes_in
from indelible.report.figure import MIN_SEEDS_FOR_BARS, NEUTRAL, VERDICT_COLORS, Chart, Figure

_ROW_HEIGHT = 22
_VERDICT_SHAPES = alt.Scale(domain=list(VERDICT_COLORS), range=["circle", "diamond", "cross"])  # not colour alone
_VERDICT_COLORS = alt.Scale(domain=list(VERDICT_COLORS), range=list(VERDICT_COLORS.values()))


def effects_figure(verdicts: Sequence[Verdict]) -> Figure | None:
    """A forest: each finding's effect, interval and detectable effect. None when nothing has an effect."""
    shown = [one for one in verdicts if one.finding.effect is not None]
    if not shown:
        return None
    parts = [set(one.finding.scope.split(" · ")) for one in shown]
    everywhere = set.intersection(*parts)
    rows = [_forest_row(one, everywhere) for one in shown]
    frame = pl.DataFrame(rows)
    base = alt.Chart(alt.NamedData("effects"))
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(grid=False, domain=False, ticks=False))
    color = alt.Color("verdict:N", title=None, scale=_VERDICT_COLORS)
    barred = base.transform_filter(f"datum.n >= {MIN_SEEDS_FOR_BARS}")
    band = barred.mark_bar(height=_ROW_HEIGHT - 8, opacity=0.22, color=NEUTRAL).encode(
        y=y, x=alt.X("undetectable_low:Q", title="effect on the loss, nats per token"), x2="undetectable_high:Q"
    )
    zero = alt.Chart(alt.NamedData("effects")).mark_rule(strokeDash=[3, 3]).encode(x=alt.datum(0))
    line = barred.mark_rule(strokeWidth=2.5).encode(y=y, x="low:Q", x2="high:Q", color=color)
    dot = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=y,
        x="effect:Q",
        color=color,
        shape=alt.Shape("verdict:N", title=None, scale=_VERDICT_SHAPES),
        tooltip=[
            alt.Tooltip("claim:N"), alt.Tooltip("text:N"), alt.Tooltip("scope:N", title="where"),
            alt.Tooltip("verdict:N"), alt.Tooltip("effect:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f"),
            alt.Tooltip("high:Q", format="+.4f"), alt.Tooltip("detectable:Q", format=".4f"),
            alt.Tooltip("n:Q", title="seeds"), alt.Tooltip("detail:N"), alt.Tooltip("runs:N"),
        ],
    )  # fmt: skip
    layers = [band, zero, line, dot] if (frame["n"] >= MIN_SEEDS_FOR_BARS).any() else [zero, dot]
    return Figure(
        name="effects",
        title="Effects and what could have been seen",
        caption=(
            "One row a finding: the mean difference over seeds, its 95 % interval (the wider of bootstrap and "
            "Student t), "
            "and in grey the effects too small for this design to detect with power 0.8: what lies in the grey is "
            "inconclusive. Bars and grey are drawn from three seeds on."
        ),
        chart=alt.layer(*layers).properties(width=620, height=_ROW_HEIGHT * len(rows)),
        data={"effects": frame},
    )


def difference_figure(table: pl.DataFrame) -> Figure | None:
    """L_im and L_ret minus those at lambda 0, paired over seeds, by |D_post|; None without two lambdas and a pair."""
    rows: list[dict[str, Any]] = []
    done = table.filter(pl.col("status") == "done").drop_nulls("exposure_fraction")
    for (tokens,), part in done.sort("post_tokens").group_by("post_tokens", maintain_order=True):
        fractions = sorted(part["exposure_fraction"].unique().to_list())
        if fractions[:1] != [0.0]:
            continue
        for loss in ("L_im", "L_ret"):
            zero = {"post_tokens": tokens, "size": _size(tokens), "loss": loss, "exposure_fraction": 0.0,
                    "effect": 0.0, "low": None, "high": None, "n": None, "verdict": "reference"}  # fmt: skip
            rows.append(zero)
            for fraction in fractions[1:]:
                column = pl.col("exposure_fraction")
                found = compare_at_equal_settings(part, column == 0, column == fraction, loss, EXPOSURE).result
                low, high = found.interval or (None, None)
                rows.append({**zero, "exposure_fraction": fraction, "effect": found.effect, "low": low, "high": high,
                             "n": found.n, "verdict": found.conclusion()})  # fmt: skip
    frame = pl.DataFrame(rows, infer_schema_length=None).drop_nulls("effect") if rows else pl.DataFrame()
    if frame.height == 0 or frame["exposure_fraction"].n_unique() < 2:
        return None
    chart = alt.concat(
        *(
            _difference_view(loss, sizes_in(frame), has_bars=bool((frame["n"] >= MIN_SEEDS_FOR_BARS).any()))
            for loss in ("L_im", "L_ret")
        ),
        columns=2,
    )
    return Figure(
        name="difference",
        title="The same, seed by seed",
        caption=(
            "Loss minus that at λ 0 with the same seed and settings (so that what a seed does to every arm "
            "cancels), mean "
            "over seeds and the other settings. Bars, from three seeds on: 95 % interval, the wider of bootstrap and "
            "Student t."
        ),
        chart=chart.resolve_scale(y="shared"),
        data={"differences": frame},
    )


def _difference_view(loss: str, sizes: list[str], *, has_bars: bool) -> Chart:
    base = alt.Chart(alt.NamedData("differences")).transform_filter(f"datum.loss == '{loss}'")
    x = alt.X("exposure_fraction:Q", title="λ, part of D_post seen in pretraining", axis=alt.Axis(tickCount=5))
    color, shape = size_channels(sizes)
    zero = alt.Chart(alt.NamedData("differences")).mark_rule(strokeDash=[3, 3]).encode(y=alt.datum(0))
    barred = base.transform_filter(f"datum.n >= {MIN_SEEDS_FOR_BARS}")
    bar = barred.mark_rule(strokeWidth=2).encode(x=x, y="low:Q", y2="high:Q",
                                               color=color)  # fmt: skip
    y = alt.Y("effect:Q", title=f"{loss} minus {loss} at λ 0")
    line = base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color)
    dot = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x, y="effect:Q", color=color, shape=shape,
        tooltip=[
            alt.Tooltip("exposure_fraction:Q", title="λ"), alt.Tooltip("size:N", title="|D_post|"),
            alt.Tooltip("effect:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f"),
            alt.Tooltip("high:Q", format="+.4f"), alt.Tooltip("n:Q", title="seeds"), alt.Tooltip("verdict:N"),
        ],
    )  # fmt: skip
    title = "at hand-over" if loss == "L_im" else "after the later fine-tune"
    layers = [zero, line, bar, dot] if has_bars else [zero, line, dot]
    return alt.layer(*layers).properties(title=f"{loss}, {title}", width=400, height=230)


def _forest_row(verdict: Verdict, everywhere: set[str]) -> dict[str, Any]:
    one = verdict.finding
    ids = ", ".join(one.run_ids[:3]) + (f" and {len(one.run_ids) - 3} more" if len(one.run_ids) > 3 else "")
    label = " · ".join([verdict.claim, *(part for part in one.scope.split(" · ") if part not in everywhere)])
    return {
        "label": label, "claim": verdict.claim, "text": verdict.text, "scope": one.scope,
        "verdict": one.verdict, "effect": one.effect, "low": one.low, "high": one.high, "detectable": one.detectable,
        "undetectable_low": None if one.detectable is None else -one.detectable, "undetectable_high": one.detectable,
        "n": one.num_seeds, "detail": one.detail, "runs": ids,
    }  # fmt: skip


def _size(tokens: int | None) -> str:
    return "-" if tokens is None else count_text(tokens)
