"""Effects with their intervals: every finding in one forest."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from indelible.claims.verdicts import Verdict
from indelible.report.figure import MIN_SEEDS_FOR_BARS, NEUTRAL, VERDICT_COLORS, Figure
from indelible.report.headline import common_parts, short_scope
from indelible.results.labels import ids_text

_ROW_HEIGHT = 22
_VERDICT_SHAPES = alt.Scale(domain=list(VERDICT_COLORS), range=["circle", "diamond", "cross"])  # not colour alone
_VERDICT_COLORS = alt.Scale(domain=list(VERDICT_COLORS), range=list(VERDICT_COLORS.values()))


def effects_figure(verdicts: Sequence[Verdict], scale: str) -> Figure | None:
    """A forest: each finding's effect, the interval that decides it, the detectable effect. None without effects.

    Args:
        verdicts: of the study.
        scale: the study's scale, which goes without saying.
    """
    shown = [one for one in verdicts if one.finding.effect is not None]
    if not shown:
        return None
    everywhere = {scale, *common_parts([one.finding.scope for one in shown])}
    rows = [_forest_row(one, everywhere) for one in shown]
    frame = pl.DataFrame(rows)
    base = alt.Chart(alt.NamedData("effects"))
    title = "effect on the loss, nats per token"
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(grid=False, domain=False, ticks=False))
    color = alt.Color("verdict:N", title=None, scale=_VERDICT_COLORS)
    barred = base.transform_filter(f"datum.n >= {MIN_SEEDS_FOR_BARS}")
    band = barred.mark_bar(height=_ROW_HEIGHT - 8, opacity=0.22, color=NEUTRAL).encode(
        y=y, x=alt.X("undetectable_low:Q", title=title, axis=alt.Axis(tickCount=8)), x2="undetectable_high:Q"
    )
    zero = alt.Chart(alt.NamedData("effects")).mark_rule(strokeDash=[3, 3]).encode(x=alt.datum(0))
    line = barred.mark_rule(strokeWidth=2.5).encode(y=y, x="low:Q", x2="high:Q", color=color)
    dot = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=y,
        x=alt.X("effect:Q", title=title, axis=alt.Axis(tickCount=8)),
        color=color,
        shape=alt.Shape("verdict:N", title=None, scale=_VERDICT_SHAPES),
        tooltip=[
            alt.Tooltip("claim:N"), alt.Tooltip("text:N"), alt.Tooltip("scope:N", title="where"),
            alt.Tooltip("verdict:N"), alt.Tooltip("effect:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f"),
            alt.Tooltip("high:Q", format="+.4f"), alt.Tooltip("confidence:Q", format=".2%"),
            alt.Tooltip("detectable:Q", format=".4f"),
            alt.Tooltip("n:Q", title="seeds"), alt.Tooltip("detail:N"), alt.Tooltip("runs:N"),
        ],
    )  # fmt: skip
    layers = [band, zero, line, dot] if (frame["n"] >= MIN_SEEDS_FOR_BARS).any() else [zero, dot]
    return Figure(
        name="effects",
        title="Which effects stand out from the noise?",
        caption=(
            "One row a finding: the mean difference over seeds and the paired t interval that decides it, all "
            "corrections included. In grey the true effects that this design finds with a power below 0.8 (of what "
            "shall be flat, the margins that it cannot show): for planning, it decides nothing. Bars and grey are "
            "drawn from three seeds on."
        ),
        chart=alt.layer(*layers).properties(width=620, height=_ROW_HEIGHT * len(rows)),
        data={"effects": frame},
        place="effects",
    )


def _forest_row(verdict: Verdict, everywhere: set[str]) -> dict[str, Any]:
    one = verdict.finding
    where = short_scope(one.scope, everywhere)
    label = f"{verdict.claim} · {where}" if where else verdict.claim
    return {
        "label": label, "claim": verdict.claim, "text": verdict.text, "scope": one.scope,
        "verdict": one.verdict, "effect": one.effect, "low": one.low, "high": one.high,
        "confidence": one.confidence, "detectable": one.detectable,
        "undetectable_low": None if one.detectable is None else -one.detectable, "undetectable_high": one.detectable,
        "n": one.num_seeds, "detail": one.detail, "runs": ids_text(one.run_ids, 3),
    }  # fmt: skip
