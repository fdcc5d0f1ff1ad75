"""Single runs: the training curves of a chain's three stages on one time line, and the ledger of pretraining."""

from typing import Any

import altair as alt
import polars as pl

from indelible.analysis.arms import settings_text
from indelible.analysis.columns import STAGES, setting_columns, varying
from indelible.analysis.runs import StudyRun, read_ledger, read_metrics
from indelible.report.figure import Chart, Figure

MAX_CHAINS = 60  # chains whose curves are put into the page
MAX_POINTS = 60  # points kept of one run's training loss
MAX_LEDGERS = 24
_TRAINING = "training loss"


def curves_figure(table: pl.DataFrame, run: StudyRun) -> Figure | None:
    """Training curves of a chosen chain; None when no chain has metrics.

    At most 60 chains are put in, spread over the table (all arms come before a second seed of one).
    """
    chains = _spread(table)
    rows: dict[str, list[dict[str, Any]]] = {}
    options: dict[str, str] = {}
    for chain in chains:
        offset = 0
        for position, stage in enumerate(STAGES):
            run_id = chain[f"{stage}_id"]
            if not run_id:
                continue
            if run_id not in rows:
                rows[run_id] = _run_rows(run, run_id, position, offset)
            offset += int((run.results.get(run_id) or {}).get("train_tokens") or 0)
        options[_key(chain)] = f"{chain['settings'] or 'chain'} · seed {chain['seed']}"
    points = [row for run_rows in rows.values() for row in run_rows]
    if not points:
        return None
    bind = alt.binding_select(options=list(options), labels=list(options.values()), name="chain ")
    chain_param = alt.param(name="chain", value=_most_erased(chains), bind=bind)
    scale_param = alt.param(name="axis", value="equal stages",
                            bind=alt.binding_radio(options=["equal stages", "tokens"], name="time line "))  # fmt: skip
    left_out = table.height - len(options)
    return Figure(
        name="curves",
        title="One chain from its first token to its last",
        caption=(
            "Held-out losses (large dots: the results of the stages) and the training loss (thin "
            "line) of the chosen chain. What stage 3 does to D_post is the rise of its line in the last part."
        ),
        chart=_curve_chart(has_training=any(row["what"] == _TRAINING for row in points)).add_params(
            chain_param, scale_param
        ),
        data={"curves": pl.DataFrame(points, infer_schema_length=None)},
        notes=(f"{left_out} more chains have curves in their run folders.",) if left_out > 0 else (),
    )


def ledger_figure(table: pl.DataFrame, run: StudyRun) -> Figure | None:
    """Where in pretraining D_post was seen; None when no run has a ledger.json with a second source."""
    settings = [name for name in varying(table, setting_columns(table)) if name.startswith(("exposure", "placement",
                "post_tokens", "pretrain"))] if table.height else []  # fmt: skip
    rows: list[dict[str, Any]] = []
    labels: set[str] = set()
    for chain in table.sort([*settings, "seed"], nulls_last=False).iter_rows(named=True):
        run_id = chain["pretrain_id"]
        if run_id is None or len(labels) >= MAX_LEDGERS:
            continue
        label = settings_text(chain, settings) or "all"
        if label in labels:  # another seed of the same arm
            continue
        ledger = read_ledger(run.root, run_id)
        if ledger is None:
            continue
        labels.add(label)
        rows += _ledger_rows(ledger, label, run_id)
    if not any(row["source_number"] > 0 for row in rows):
        return None
    rows = [row for row in rows if row["source_number"] > 0]
    percent = alt.Axis(format="%", tickCount=5)
    labels = {row["label"] for row in rows}
    chart = (
        alt.Chart(alt.NamedData("ledger"))
        .mark_rect()
        .encode(
            x=alt.X("start:Q", title="part of pretraining done", axis=percent, scale=alt.Scale(domain=[0, 1])),
            x2="end:Q",
            y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(grid=False)),
            color=alt.Color("share:Q", title="part of the tokens", scale=alt.Scale(domainMin=0),
                            legend=alt.Legend(format=".1%", gradientLength=180)),
            tooltip=[alt.Tooltip("label:N", title="arm"), alt.Tooltip("source:N"), alt.Tooltip("tokens:Q", format=","),
                     alt.Tooltip("share:Q", format=".2%"), alt.Tooltip("start:Q", format=".0%"),
                     alt.Tooltip("run:N")],
        )
        .properties(width=620, height=20 * len(labels))
    )  # fmt: skip
    return Figure(
        name="ledger",
        title="When in pretraining D_post was seen",
        caption="One row an arm (first seed): how much of each fiftieth of pretraining came from D_post.",
        chart=chart,
        data={"ledger": pl.DataFrame(rows)},
    )


def _spread(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Up to MAX_CHAINS chains: first one seed of every setting, evenly spread, then further seeds."""
    if table.height == 0:
        return []
    ordered = table.with_row_index("row").sort("seed", "row")
    first = ordered.filter(pl.col("seed") == ordered["seed"][0])
    if first.height >= MAX_CHAINS:
        picks = [round(number * (first.height - 1) / (MAX_CHAINS - 1)) for number in range(MAX_CHAINS)]
        return first[sorted(set(picks))].to_dicts()
    return ordered.head(MAX_CHAINS).to_dicts()


def _key(chain: dict[str, Any]) -> str:
    return " ".join(chain[f"{stage}_id"] for stage in STAGES if chain[f"{stage}_id"])


def _most_erased(chains: list[dict[str, Any]]) -> str:
    """The chain that lost most in stage 3, which is what the view is about; the first one when none is finished."""
    finished = [chain for chain in chains if chain["L_ret"] is not None and chain["L_im"] is not None]
    return _key(max(finished, key=lambda chain: chain["L_ret"] - chain["L_im"], default=chains[0]))


def _run_rows(run: StudyRun, run_id: str, position: int, offset: int) -> list[dict[str, Any]]:
    """Points of one stage run: thinned training losses, its evaluations, and the losses of its result at its end."""
    records = read_metrics(run.root, run_id)
    result = run.results.get(run_id) or {}
    seen = max((int(record.get("tokens") or 0) for record in records), default=0)
    total = max(seen, int(result.get("train_tokens") or 0))
    place = {"run": run_id, "stage": STAGES[position], "position": position, "offset": offset, "total": total}
    train = [record for record in records if "train/loss" in record]
    step = max(1, -(-len(train) // MAX_POINTS))
    rows = [_point(place, record, _TRAINING, record["train/loss"]) for record in train[::step]]
    for record in records:
        for key, value in record.items():
            if key.startswith("eval/") and key.endswith("/nats_per_token"):
                rows.append(_point(place, record, key.split("/")[1], value))
    end = {"tokens": total, "step": result.get("steps")}
    for corpus, loss in (result.get("losses") or {}).items():
        rows.append(_point(place, end, corpus, loss.get("nats_per_token"), is_result=True))
    return [row for row in rows if row["value"] is not None]


def _point(
    place: dict[str, Any], record: dict[str, Any], what: str, value: float | None, *, is_result: bool = False
) -> dict[str, Any]:
    tokens = int(record.get("tokens") or 0)
    share = tokens / place["total"] if place["total"] else 1.0
    return {
        "run": place["run"], "stage": place["stage"], "what": what, "step": int(record.get("step") or 0),
        "tokens": tokens, "total": place["offset"] + tokens, "equal": place["position"] + share, "value": value,
        "is_result": is_result, "start_total": place["offset"], "start_equal": place["position"],
    }  # fmt: skip


def _curve_chart(*, has_training: bool) -> Chart:
    base = (
        alt.Chart(alt.NamedData("curves"))
        .transform_filter("indexof(chain, datum.run) >= 0")
        .transform_calculate(position="axis == 'tokens' ? datum.total : datum.equal")
    )
    labels = "axis == 'tokens' ? format(datum.value, '~s') : ''"
    x_axis = alt.Axis(labelExpr=labels, grid=False, ticks=False)
    x = alt.X("position:Q", title="tokens trained, stage after stage", axis=x_axis)
    y = alt.Y("value:Q", title="nats per token", scale=alt.Scale(zero=False))
    color = alt.Color("what:N", title=None)
    thin = base.transform_filter(f"datum.what == '{_TRAINING}'").mark_line(strokeWidth=1, opacity=0.55)
    thin = thin.encode(x=x, y=y, color=color, detail="run:N")
    held = base.transform_filter(f"datum.what != '{_TRAINING}'")
    line = held.mark_line(strokeWidth=2).encode(x=x, y=y, color=color)
    dot = held.mark_point(filled=True, opacity=1).encode(
        x=x, y=y, color=color,
        size=alt.condition("datum.is_result", alt.value(110), alt.value(26)),
        tooltip=[alt.Tooltip("what:N", title="held-out"), alt.Tooltip("value:Q", format=".4f"), alt.Tooltip("stage:N"),
                 alt.Tooltip("step:Q"), alt.Tooltip("tokens:Q", format=","), alt.Tooltip("run:N")],
    )  # fmt: skip
    first = "axis == 'tokens' ? datum.start_total : datum.start_equal"
    starts = base.transform_calculate(first=first).transform_aggregate(start="min(first)", groupby=["stage"])
    rules = starts.mark_rule(strokeDash=[2, 3]).encode(x="start:Q")
    names = starts.mark_text(align="left", dx=5, dy=10, fontWeight=600).encode(
        x="start:Q", y=alt.value(0), text="stage:N"
    )
    layers = [rules, names, thin, line, dot] if has_training else [rules, names, line, dot]
    return alt.layer(*layers).properties(width=860, height=320)


def _ledger_rows(ledger: dict[str, Any], label: str, run_id: str) -> list[dict[str, Any]]:
    bins = int(ledger["bins"])
    totals = [sum(column) for column in zip(*ledger["tokens"], strict=True)]
    return [
        {"label": label, "run": run_id, "source": source, "source_number": number, "start": position / bins,
         "end": (position + 1) / bins, "tokens": int(count),
         "share": count / totals[position] if totals[position] else 0.0}
        for number, (source, counts) in enumerate(zip(ledger["sources"], ledger["tokens"], strict=True))
        for position, count in enumerate(counts)
    ]  # fmt: skip
