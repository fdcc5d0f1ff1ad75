"""What the study cost, by stage, and what it would have cost without sharing stage runs."""

import altair as alt
import polars as pl

from indelible.report.cost_summary import Cost
from indelible.report.figure import Figure


def cost_figure(cost: Cost) -> Figure | None:
    """Tokens by stage, trained against unshared; None when nothing was trained."""
    if not cost.trained_tokens:
        return None
    rows = [
        {"stage": stage.stage, "what": what, "tokens": tokens, "hours": stage.hours, "runs": stage.num_runs}
        for stage in cost.stages
        for what, tokens in (("trained", stage.tokens), ("without sharing", stage.unshared_tokens))
    ]
    chart = (
        alt.Chart(alt.NamedData("cost"))
        .mark_bar(height=12)
        .encode(
            y=alt.Y("stage:N", sort=None, title=None),
            yOffset=alt.YOffset("what:N", sort=["trained", "without sharing"]),
            x=alt.X("tokens:Q", title="tokens", axis=alt.Axis(format="~s", tickCount=6)),
            color=alt.Color("what:N", title=None, sort=["trained", "without sharing"]),
            tooltip=[alt.Tooltip("stage:N"), alt.Tooltip("what:N"), alt.Tooltip("tokens:Q", format=","),
                     alt.Tooltip("runs:Q", title="runs trained"), alt.Tooltip("hours:Q", format=".2f")],
        )
        .properties(width=620, height=40 * len(cost.stages))
    )  # fmt: skip
    return Figure(
        name="cost",
        title="Which stage took the work?",
        caption="Tokens trained, and what the same chains would have cost if each had trained all its stages itself.",
        chart=chart,
        data={"cost": pl.DataFrame(rows)},
        place="cost",
    )
