"""Single chains: the training curves of their stages on one time line."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from indelible.records import PlannedChain
from indelible.report.chains import spread_chains
from indelible.report.figure import Chart, Figure
from indelible.results.curves import TRAINED, WATCHED, points
from indelible.results.run_folder import StudyRun

MAX_POINTS = 60  # points kept of one run's training loss
_TRAINING = "training loss"


def curves_figure(table: pl.DataFrame, run: StudyRun) -> Figure | None:
    """Training curves of a chosen chain; None when no chain has metrics.

    At most 60 chains are put in, spread over the table (all arms come before a second seed of one).
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    options: dict[str, str] = {}
    chains = spread_chains(table)
    for row in chains:
        chain = run.plan.chains[row["row"]]
        _add_chain(rows, run, chain)
        options[_key(chain)] = f"{row['settings'] or 'chain'} · seed {row['seed']}"
    found = [point for own in rows.values() for point in own]
    if not found:
        return None
    bind = alt.binding_select(options=list(options), labels=list(options.values()), name="chain ")
    chain_param = alt.param(name="chain", value=_most_forgotten(chains, run), bind=bind)
    scale_param = alt.param(name="axis", value="equal stages",
                            bind=alt.binding_radio(options=["equal stages", "tokens"], name="time line "))  # fmt: skip
    left_out = table.height - len(options)
    return Figure(
        name="curves",
        title="How does one chain learn and forget, from its first token to its last?",
        caption=(
            "Held-out losses (large dots: the results of the stages) and the training loss (thin "
            "line) of the chosen chain. What a later stage does to D_post is the rise of its line in that part."
        ),
        chart=_curve_chart(has_training=any(point["what"] == _TRAINING for point in found)).add_params(
            chain_param, scale_param
        ),
        data={"curves": pl.DataFrame(found, infer_schema_length=None)},
        notes=(f"{left_out} more chains have curves in their run folders.",) if left_out > 0 else (),
    )


def _add_chain(rows: dict[str, list[dict[str, Any]]], run: StudyRun, chain: PlannedChain) -> None:
    """Adds the points of a chain's stage runs that no other chain has brought."""
    offset = 0
    for position, (stage, name) in enumerate(chain.stages.items()):
        place = {"run": name, "stage": stage, "position": position, "offset": offset}
        if name not in rows:
            start = _losses(run, chain, chain.start) if position == 0 and chain.start else {}
            rows[name] = _run_points(run, place, start, _losses(run, chain, name))
        result = run.results.get(name)
        offset += 0 if result is None else result.train_tokens


def _losses(run: StudyRun, chain: PlannedChain, checkpoint: str) -> dict[str, float | None]:
    """The reported losses of a checkpoint by corpus; accuracies on tasks have no place among them."""
    planned = run.planned_evaluations(chain, checkpoint)
    made = {corpus: run.evaluations.get(name) for corpus, name in planned.items() if corpus not in run.tasks}
    return {corpus: one.nats_per_token for corpus, one in made.items() if one is not None}


def _key(chain: PlannedChain) -> str:
    return " ".join(chain.stages.values())


def _most_forgotten(chains: list[dict[str, Any]], run: StudyRun) -> str:
    """The chain that lost most of D_post, which is what the view is about; the first one when none is finished."""
    finished = [row for row in chains if row["forgotten"] is not None]
    chosen = max(finished, key=lambda row: row["forgotten"], default=chains[0])
    return _key(run.plan.chains[chosen["row"]])


def _run_points(
    run: StudyRun, place: Mapping[str, Any], start: Mapping[str, float | None], end: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Points of one stage run: thinned training losses, held-out losses inside it, reported losses at its ends."""
    records = list(points(run, place["run"]))
    result = run.results.get(place["run"])
    seen = max((record["tokens"] for record in records), default=0)
    total = max(seen, 0 if result is None else result.train_tokens)
    here = {**place, "total": total}
    train = [record for record in records if record["kind"] == TRAINED]
    step = max(1, -(-len(train) // MAX_POINTS))
    watched = {record["corpus"] for record in records if record["kind"] == WATCHED}
    rows = [_point(here, record, _TRAINING, record.get("nats_per_token")) for record in train[::step]]
    for record in records:  # where a corpus is watched, its stopping windows would draw a second line
        if record["kind"] == WATCHED or (record["kind"] != TRAINED and record["corpus"] not in watched):
            rows.append(_point(here, record, record["corpus"], record.get("nats_per_token")))
    last = {"tokens": total, "step": 0 if result is None else result.steps}
    for record, losses in (({"tokens": 0, "step": 0}, start), (last, end)):
        rows += [_point(here, record, corpus, loss, is_result=True) for corpus, loss in losses.items()]
    return [row for row in rows if row["value"] is not None]


def _point(
    place: Mapping[str, Any], record: Mapping[str, Any], what: str, value: float | None, *, is_result: bool = False
) -> dict[str, Any]:
    tokens = record["tokens"]
    share = tokens / place["total"] if place["total"] else 1.0
    return {
        "run": place["run"], "stage": place["stage"], "what": what, "step": record["step"],
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
    return alt.layer(*layers, width=860, height=320)
