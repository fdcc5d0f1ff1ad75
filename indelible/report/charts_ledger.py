"""The ledger: where in a stage the text was seen that was mixed into it."""

from typing import Any

import altair as alt
import polars as pl

from indelible.report.figure import Figure
from indelible.results.columns import setting_columns, varying
from indelible.results.labels import settings_text
from indelible.results.run_folder import LedgerPicture, StudyRun, read_ledger

MAX_LEDGERS = 24
# Known settings that decide what is mixed into a stage, beside those that begin with its name.
_DECIDING = {"pretrain": ("exposure", "placement", "post_tokens"), "posttrain": ("replay_fraction", "post_tokens")}


def ledger_figure(table: pl.DataFrame, run: StudyRun) -> Figure | None:
    """Where in its stage a mixed-in corpus was seen; None when no run has a ledger.json with a second source."""
    rows: list[dict[str, Any]] = []
    for stage in run.stages:
        if table.height:
            rows += _stage_rows(table, run, stage)
    if not rows:
        return None
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    if len(stages) > 1:
        rows = [{**row, "label": f"{row['stage']}: {row['label']}"} for row in rows]
    labels = {row["label"] for row in rows}
    where = f"of {stages[0]}ing" if stages in (["pretrain"], ["posttrain"]) else "of the stage"
    chart = (
        alt.Chart(alt.NamedData("ledger"))
        .mark_rect()
        .encode(
            x=alt.X("start:Q", title=f"part {where} done", axis=alt.Axis(format="%", tickCount=5),
                    scale=alt.Scale(domain=[0, 1])),
            x2="end:Q",
            y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(grid=False)),
            color=alt.Color("share:Q", title="part of the tokens", scale=alt.Scale(domainMin=0),
                            legend=alt.Legend(format=".1%", gradientLength=180)),
            tooltip=[alt.Tooltip("label:N", title="arm"), alt.Tooltip("stage:N"), alt.Tooltip("source:N"),
                     alt.Tooltip("tokens:Q", format=","), alt.Tooltip("share:Q", format=".2%"),
                     alt.Tooltip("start:Q", format=".0%"), alt.Tooltip("run:N")],
        )
        .properties(width=620, height=20 * len(labels))
    )  # fmt: skip
    is_papers = stages == ["pretrain"]
    return Figure(
        name="ledger",
        title="When in pretraining was D_post seen?" if is_papers else "When was mixed-in text seen?",
        caption=(
            f"One row an arm (first seed): how much of each fiftieth {where} came from "
            + ("D_post." if is_papers else "another corpus than the stage's own.")
        ),
        chart=chart,
        data={"ledger": pl.DataFrame(rows)},
    )


def _stage_rows(table: pl.DataFrame, run: StudyRun, stage: str) -> list[dict[str, Any]]:
    """The mixed-in sources of a stage, one seed of every arm."""
    prefixes = (*_DECIDING.get(stage, ()), f"{stage}_")
    settings = [name for name in varying(table, setting_columns(table)) if name.startswith(prefixes)]
    rows: list[dict[str, Any]] = []
    labels: set[str] = set()
    mixed = [name for name, result in run.results.items() if result.stage == stage and len(result.tokens_seen) > 1]
    chains = table.filter(pl.col(f"{stage}_id").is_in(mixed)).sort([*settings, "seed"], nulls_last=False)
    for chain in chains.iter_rows(named=True):
        run_id = chain[f"{stage}_id"]
        if len(labels) >= MAX_LEDGERS:
            break
        label = settings_text(chain, settings) or "all"
        if label in labels:  # another seed of the same arm
            continue
        ledger = read_ledger(run.root, run_id)
        if ledger is None:
            continue
        labels.add(label)
        rows += _ledger_rows(ledger, {"label": label, "stage": stage, "run": run_id})
    return rows


def _ledger_rows(ledger: LedgerPicture, place: dict[str, Any]) -> list[dict[str, Any]]:
    """The sources behind the first, which is the stage's own corpus."""
    bins = ledger.bins
    totals = [sum(column) for column in zip(*ledger.tokens, strict=True)]
    return [
        {**place, "source": source, "start": position / bins, "end": (position + 1) / bins, "tokens": count,
         "share": count / totals[position] if totals[position] else 0.0}
        for source, counts in list(zip(ledger.sources, ledger.tokens, strict=True))[1:]
        for position, count in enumerate(counts)
    ]  # fmt: skip
