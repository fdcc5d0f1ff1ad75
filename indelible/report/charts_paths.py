"""Curves in the plane of what a stage gains and what it costs: the whole way of a stage run, not its end alone."""

from collections.abc import Iterator
from typing import Any

import altair as alt
import polars as pl

from indelible.records import PlannedChain
from indelible.report.chains import spread_chains
from indelible.report.figure import Chart, Figure
from indelible.results.curves import WATCHED, points
from indelible.results.labels import label_order
from indelible.results.run_folder import StudyRun


def paths_figure(table: pl.DataFrame, run: StudyRun) -> Figure | None:
    """The loss on D_post against the loss on a stage's own corpus, by step, where the study asks for curves.

    Args:
        table: results table with labels, its rows the chains of the plan.
        run: what has been read of the study run.

    Returns:
        None where no stage run has points of both corpora.
    """
    rows = [row for chain in spread_chains(table) for row in _chain_rows(run, run.plan.chains[chain["row"]], chain)]
    if not rows:
        return None
    frame = pl.DataFrame(rows).unique(["run", "step"], keep="first", maintain_order=True)
    options = frame["path"].unique(maintain_order=True).to_list()
    first = next((one for one in options if one.startswith("finetune:")), options[-1])
    select = alt.param(name="path", value=first, bind=alt.binding_select(options=options, name="stage "))
    left_out = table.height - len({row["chain"] for row in rows})
    return Figure(
        name="paths",
        title="What does a stage gain on its way, and what does that cost?",
        caption=(
            "One line a stage run, from its first step (small dot) to its last (large dot): the loss on the corpus "
            "that it trains on, to the left as it learns, against the loss on what is to be kept, upwards as it "
            "forgets. Lower left is better. Evaluated on the reported windows; watching changes no weight."
        ),
        chart=_chart(frame, table).add_params(select) if len(options) > 1 else _chart(frame, table),
        data={"paths": frame if len(options) > 1 else frame.drop("path")},
        notes=(f"{left_out} more chains have no curves, or have them in their run folders.",) if left_out else (),
    )


def _chain_rows(run: StudyRun, chain: PlannedChain, labels: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The points of a chain's stage runs at which both losses were taken."""
    before: str | None = None
    for stage, run_id in chain.stages.items():
        own = run.own_corpus(run_id)
        kept = chain.roles.get("post") if chain.roles.get("post") != own else before
        before = own
        if kept is None or kept == own or run_id not in run.results or run.results[run_id].watched is None:
            continue
        by_step: dict[int, dict[str, Any]] = {}
        for point in points(run, run_id):
            if point["kind"] == WATCHED and point.get("nats_per_token") is not None:
                at = by_step.setdefault(point["step"], {"tokens": point["tokens"]})
                at[point["corpus"]] = point["nats_per_token"]
        both = {step: at for step, at in by_step.items() if own in at and kept in at}
        for step, at in both.items():
            yield {
                "chain": labels["row"], "path": f"{stage}: {kept} against {own}", "run": run_id, "stage": stage,
                "seed": labels["seed"], "series": labels["series"], "exposure": labels["exposure"],
                "settings": labels["settings"], "step": step, "tokens": at["tokens"], "gained": at[own],
                "kept": at[kept], "gained_on": own, "kept_on": kept, "is_end": step == max(both),
            }  # fmt: skip


def _chart(frame: pl.DataFrame, table: pl.DataFrame) -> Chart:
    label = "exposure" if frame["exposure"].n_unique() > 1 else "series"
    order = [name for name in label_order(table, label) if name in frame[label].unique()]
    base = alt.Chart(alt.NamedData("paths"))
    if "path" in frame.columns and frame["path"].n_unique() > 1:
        base = base.transform_filter("datum.path == path")
    x_title, y_title = "loss on the stage's own corpus (nats per token)", "loss on what is to be kept (nats per token)"
    if frame.select("gained_on", "kept_on").unique().height == 1:
        x_title = f"loss on {frame['gained_on'][0]}, on which the stage trains (nats per token)"
        y_title = f"loss on {frame['kept_on'][0]}, to be kept (nats per token)"
    scale = alt.Scale(zero=False)
    color = alt.Color(
        f"{label}:N",
        title=None,
        sort=order,
        scale=alt.Scale(domain=order, range="ordinal" if label == "exposure" else "category"),
    )
    x, y = alt.X("gained:Q", scale=scale, title=x_title), alt.Y("kept:Q", scale=scale, title=y_title)
    line = base.mark_line(strokeWidth=1.6, opacity=0.8).encode(x=x, y=y, color=color, order="step:Q", detail="run:N")
    dot = base.mark_point(filled=True, opacity=1).encode(
        x=x, y=y, color=color,
        size=alt.condition("datum.is_end", alt.value(90), alt.value(14)),
        tooltip=[alt.Tooltip("series:N", title="arm"), alt.Tooltip("settings:N"), alt.Tooltip("seed:Q"),
                 alt.Tooltip("stage:N"), alt.Tooltip("step:Q"), alt.Tooltip("tokens:Q", format=","),
                 alt.Tooltip("gained:Q", format=".4f", title="own corpus"),
                 alt.Tooltip("kept:Q", format=".4f", title="kept"), alt.Tooltip("run:N")],
    )  # fmt: skip
    return alt.layer(line, dot).properties(width=620, height=400)
