"""What the later stages erased of D_post and what they gained, by the setting that moves it: the learning rate first.

The question of one who has a finished checkpoint; it needs no exposure and no second arm.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import polars as pl

from indelible.report.figure import MIN_SEEDS_FOR_BARS, Chart, Figure, independent
from indelible.results.columns import FORGOTTEN, setting_columns, stages_of, varying
from indelible.results.labels import label_order, plural, settings_text, treatments, value_text, word
from indelible.results.run_folder import StudyRun
from indelible.statistics.inference import mean_interval

GAINED = "gained"  # L_ft before the stage minus L_ft
MAX_SLICES = 16  # choices in the menu
MAX_SERIES = 12  # lines in one view


def with_gains(table: pl.DataFrame, run: StudyRun) -> pl.DataFrame:
    """Adds ``gained``: by how much `finetune` lowered the loss on its own corpus, nats per token.

    Args:
        table: results table, its rows the chains of the plan.
        run: what has been read of the study run; it has the losses before the stage, which no column shows.
    """
    gained: list[float | None] = []
    for chain, after in zip(run.plan.chains, table["L_ft"], strict=True):
        names = list(run.checkpoints(chain).items())
        stages = [stage for stage, _ in names]
        place = stages.index("finetune") if "finetune" in stages else 0
        before = None
        if place and after is not None:
            planned = run.planned_evaluations(chain, names[place - 1][1])
            made = run.evaluations.get(planned.get(run.own_corpus(chain.stages["finetune"]), ""))
            before = None if made is None else made.nats_per_token
        gained.append(None if before is None or after is None else before - after)
    return table.with_columns(pl.Series(GAINED, gained, pl.Float64))


def erased_figure(table: pl.DataFrame) -> Figure | None:
    """``forgotten`` and what was gained, over the setting that is swept, one line a treatment.

    Args:
        table: results table with labels, with ``gained`` (`with_gains`) where it is known.

    Returns:
        None when no finished chain has both L_im and L_ret.
    """
    done = table.filter(pl.col("status") == "done").drop_nulls(FORGOTTEN)
    if done.height == 0:
        return None
    axis = _axis(done)
    losses = [FORGOTTEN, GAINED if _is_known(done, GAINED) else "L_ft"]
    rows = [row for name, part in _slices(done) for row in _rows(part, name, axis, losses)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    slices = frame["slice"].unique(maintain_order=True).to_list()
    chart = _chart(frame, table, axis, losses, is_sliced=len(slices) > 1)
    if len(slices) > 1:
        menu = alt.binding_select(options=slices, name="settings ")
        chart = chart.add_params(alt.param(name="slice", value=slices[0], bind=menu))
    seeds = done["seed"].n_unique()
    second = "how much its own loss fell" if losses[1] == GAINED else "L_ft, the loss on its own corpus"
    has_bars = bool((frame["n"] >= MIN_SEEDS_FOR_BARS).any())
    return Figure(
        name="erased",
        title=f"What did {'each ' + word(axis) if axis else 'the later stages'} erase and gain?",
        caption=(
            f"{_range_text(frame, axis)} Left: L_ret - L_im, what was forgotten of D_post; above 0, the later "
            f"stages erased. Right: {second}. "
            f"Means over {plural(seeds, 'seed')}, equal settings."
            + (" Bars: 95 % Student t interval." if has_bars else "")
        ),
        chart=chart,
        data={"erased": frame},
        place="effects",
        rows=_table_rows(frame, axis, losses),
    )


def _range_text(frame: pl.DataFrame, axis: str | None) -> str:
    """The least and the most that was forgotten, in words, of the first line of the first choice."""
    own = frame.filter(pl.col("loss") == FORGOTTEN, pl.col("slice") == frame["slice"][0])
    ends = own.filter(pl.col("series") == own["series"][0]).sort("mean").to_dicts()
    where = "" if own["series"].n_unique() == 1 else f" ({own['series'][0]})"
    if axis is None or len(ends) == 1:
        return f"Forgotten of D_post{where}: {ends[0]['mean']:+.3f} nats per token."
    low, high = (f"{one['mean']:+.3f} nats per token at {word(axis)} {one['text']}" for one in (ends[0], ends[-1]))
    return f"Forgotten of D_post{where}: from {low} to {high}."


def _is_known(done: pl.DataFrame, name: str) -> bool:
    return name in done.columns and done[name].null_count() < done.height


def _axis(done: pl.DataFrame) -> str | None:
    """The setting along which what is erased is drawn: the rate of the latest stage that sweeps it, else any number."""
    treatment = treatments(done)
    swept = [name for name in varying(done, setting_columns(done)) if name not in treatment]
    rates = [f"{stage}_lr" for stage in reversed(stages_of(done)) if f"{stage}_lr" in swept]
    numbers = [name for name in swept if done.schema[name].is_numeric() and not name.endswith("_seed")]
    return next(iter([*rates, *numbers]), None)


def _slices(done: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Parts whose losses can be compared: one pipeline and one |D_post|."""
    names = varying(done, ["scale", "pipeline", "post_tokens"])
    parts = done.partition_by(names, maintain_order=True) if names else [done]
    for part in parts[:MAX_SLICES]:
        yield settings_text(part.row(0, named=True), names) or "all", part


def _rows(part: pl.DataFrame, name: str, axis: str | None, losses: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and interval over seeds by series and value of the axis; a seed's settings are averaged first."""
    shown = part["series"].unique(maintain_order=True).to_list()[:MAX_SERIES]
    by = ["series", "exposure", *([axis] if axis else [])]
    seeds = part.filter(pl.col("series").is_in(shown)).group_by(*by, "seed").agg(pl.col(losses).mean())
    rows = []
    for key, group in seeds.sort(by, nulls_last=False).group_by(by, maintain_order=True):
        place = {"slice": name, "series": key[0], "exposure": key[1], "value": key[2] if axis else None}
        text = value_text(axis, key[2]) if axis else "all"
        for loss in losses:
            found = mean_interval(group[loss].drop_nulls().to_numpy())
            rows.append({**place, "text": text, "loss": loss, "mean": found.mean, "low": found.low,
                         "high": found.high, "n": found.n})  # fmt: skip
    return rows


def _chart(
    frame: pl.DataFrame, table: pl.DataFrame, axis: str | None, losses: Sequence[str], *, is_sliced: bool
) -> Chart:
    titles = {
        FORGOTTEN: "erased: L_ret - L_im (nats per token)",
        GAINED: "gained: fall of L_ft (nats per token)",
        "L_ft": "L_ft (nats per token)",
    }
    label = "exposure" if frame["exposure"].n_unique() == frame["series"].n_unique() > 1 else "series"
    order = [name for name in label_order(table, label) if name in frame[label].unique()]
    legend = alt.Legend() if len(order) > 1 else None
    scale = alt.Scale(domain=order, range="ordinal" if label == "exposure" else "category")
    color = alt.Color(f"{label}:N", title=None, sort=order, legend=legend, scale=scale)
    values = frame.select("text", "value").unique().sort("value", nulls_last=False)["text"].to_list()
    x = alt.X("text:N", sort=values, title=word(axis) if axis else None, axis=alt.Axis(labelAngle=0))
    views = []
    for loss in losses:
        base = alt.Chart(alt.NamedData("erased")).transform_filter(
            f"datum.loss == '{loss}'" + (" && datum.slice == slice" if is_sliced else "")
        )
        y = alt.Y("mean:Q", title=titles[loss], scale=alt.Scale(zero=loss != "L_ft"))
        line = base.mark_line(strokeWidth=2).encode(x=x, y=y, color=color)
        dot = base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x, y=y, color=color,
            tooltip=[alt.Tooltip("series:N", title="arm"), alt.Tooltip("text:N", title=word(axis) if axis else "at"),
                     alt.Tooltip("mean:Q", format="+.4f"), alt.Tooltip("low:Q", format="+.4f"),
                     alt.Tooltip("high:Q", format="+.4f"), alt.Tooltip("n:Q", title="seeds")],
        )  # fmt: skip
        bar = base.transform_filter(f"datum.n >= {MIN_SEEDS_FOR_BARS}").mark_rule(strokeWidth=1.5)
        bar = bar.encode(x=x, y=alt.Y("low:Q", title=titles[loss]), y2="high:Q", color=color)
        layers = [bar, line, dot] if bool((frame["n"] >= MIN_SEEDS_FOR_BARS).any()) else [line, dot]
        views.append(alt.layer(*layers, width=400, height=240))
    return alt.concat(*views, columns=2, resolve=independent("y"))


def _table_rows(frame: pl.DataFrame, axis: str | None, losses: Sequence[str]) -> tuple[dict[str, str], ...]:
    """The numbers for reading, one row a series and value."""
    names = {FORGOTTEN: "erased (L_ret - L_im)", GAINED: "gained (fall of L_ft)", "L_ft": "L_ft"}
    keys = [name for name in ("slice", "series") if frame[name].n_unique() > 1]
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for one in frame.iter_rows(named=True):
        key = one["slice"], one["series"], one["text"]
        row = rows.setdefault(key, {**{name: one[name] for name in keys}, **({word(axis): one["text"]} if axis else {}),
                                    "seeds": str(one["n"])})  # fmt: skip
        sign = "" if one["loss"] == "L_ft" else "+"
        interval = f" [{one['low']:{sign}.3f}, {one['high']:{sign}.3f}]" if one["n"] >= MIN_SEEDS_FOR_BARS else ""
        row[names[one["loss"]]] = "-" if one["mean"] is None else f"{one['mean']:{sign}.3f}{interval}"
    return tuple(rows.values())[:200]
