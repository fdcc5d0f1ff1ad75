"""The main figure: what exposure changes at hand-over and after the later fine-tune, beside the same of the paper."""

import json
from typing import Any

import altair as alt
import polars as pl

from indelible.claims import paper_figures as paper
from indelible.claims.scopes import scopes
from indelible.report.charts_lambda import lambda_axis, size_channels, with_sizes
from indelible.report.figure import MIN_SEEDS_FOR_BARS, Chart, Figure, independent
from indelible.results.columns import setting_columns, varying
from indelible.results.labels import differing_columns, ids_text, plural, settings_text, treatment_columns, word
from indelible.statistics.compare import compare_at_equal_settings

LOSSES = ("L_im", "L_ret")
MAX_RATES = 8  # stage-3 learning rates that get a choice of their own in the menu
BESIDE = 0.012  # of the axis: how far L_im stands to the left of L_ret where both have bars
MARGIN = 0.03  # of the axis, on both sides: a mark at an end is whole
MAX_SLICES = 16  # choices in the menu; single learning rates go first when there are more


def retention_figure(table: pl.DataFrame) -> Figure | None:
    """L_im and L_ret minus those at lambda 0, paired over seeds, by |D_post|, and the same of the paper's Figure 3.

    Args:
        table: results table; only finished chains are drawn.

    Returns:
        None without two lambdas and a seed that has both.
    """
    rows: list[dict[str, Any]] = []
    panels: dict[str, str] = {}
    for name, panel, part in _slices(table):
        found = [row for size in part.partition_by("post_tokens") for row in _differences(size, name)]
        if any(row["exposure_fraction"] > 0 for row in found):
            rows += found
            panels[name] = panel
    if not panels:
        return None
    frame = with_sizes(pl.DataFrame(rows, infer_schema_length=None))
    papers = with_sizes(_paper_differences(sorted(set(panels.values()))))
    has_bars = bool((frame["n"] >= MIN_SEEDS_FOR_BARS).any())
    if has_bars:  # L_im beside the bars of L_ret, not behind them
        shift = pl.when(pl.col("loss") == "L_im").then(BESIDE * pl.col("exposure_fraction").max()).otherwise(0.0)
        frame = frame.with_columns(x=(pl.col("x") - shift).round(5))
    names = list(panels)
    matched = [name for name, panel in panels.items() if panel == "b"]
    panel = f"(indexof({json.dumps(matched)}, slice) >= 0 ? 'b' : 'a')"
    own = f"'This study: ' + {_label(frame, names)}"
    chart = alt.concat(
        _view("retention", "datum.slice == slice", own, frame, has_bars=has_bars),
        _view("retention_paper", f"datum.panel == {panel}", f"'The paper: Figure 3' + {panel}", papers, has_bars=False),
        columns=2,
        resolve=independent("color", "shape", shared=("y",)),
    )
    menu: dict[str, Any] = {"bind": alt.binding_select(options=names, name="settings ")} if len(names) > 1 else {}
    select = alt.param(name="slice", value=names[0], **menu)
    return Figure(
        name="retention",
        title="What does exposure change at hand-over, and after the next fine-tune?",
        caption=(
            "Held-out loss on D_post minus that at λ 0 with the same seed and settings, so that what a seed does to "
            "every arm cancels; mean over seeds. Below zero: exposure helps. Solid, filled: L_ret. Dashed, hollow: "
            "L_im. "
            + ("Bars: 95 % paired t interval of each point by itself. " if has_bars else "")
            + "The paper has one seed, 135M parameters and |D_post| of 30M to 300M tokens."
        ),
        chart=chart.add_params(select),
        data={"retention": frame, "retention_paper": papers},
        place="summary",
    )


def _label(frame: pl.DataFrame, names: list[str]) -> str:
    """A Vega expression for the chosen slice and its number of seeds, in words."""
    counts = dict(frame.group_by("slice").agg(pl.col("n").max()).iter_rows())
    texts = [" · ".join([*([name] if name != "all" else []), plural(counts[name], "seed")]) for name in names]
    return f"{json.dumps(texts, ensure_ascii=False)}[indexof({json.dumps(names, ensure_ascii=False)}, slice)]"


def _slices(table: pl.DataFrame) -> list[tuple[str, str, pl.DataFrame]]:
    """Name, the paper's panel and rows of everything that is drawn by itself; the design of Figure 3a comes first.

    One for each treatment (lambda left open), averaged over its sweeps; then one for each of its stage-3 rates. At
    most 16: the losses of all settings are in the lambda figure and in the table.
    """
    done = table.filter(pl.col("status").is_in(["done", "diverged"]))
    if done.height == 0:
        return []
    differing = differing_columns(done)
    columns = [name for name in treatment_columns(done) if name not in differing] + ["allocation"]
    said = [name for name in varying(done, setting_columns(done)) if name in columns]
    found = []
    for scope, rows, fractions in scopes(done, said, ["L_im"], 2):
        panels = rows["allocation"].unique().to_list()
        panel = "b" if panels == ["matched"] else "a"
        sweeps = [
            name for name in varying(rows, setting_columns(rows)) if name not in (*differing, *said, "post_tokens")
        ]
        rates = rows["finetune_lr"].unique().sort().to_list()
        key = (-len(fractions), panel, scope)
        mean = ("mean over " + ", ".join(word(name) for name in sweeps)) if sweeps else ""
        found.append(((*key, 0), _joined(scope, mean), panel, rows))
        if 1 < len(rates) <= MAX_RATES:
            rest = [name for name in sweeps if name != "finetune_lr"]
            for number, rate in enumerate(rates, 1):
                text = settings_text({"finetune_lr": rate}, ["finetune_lr"])
                mean = ("mean over " + ", ".join(word(name) for name in rest)) if rest else ""
                part = rows.filter(pl.col("finetune_lr") == rate)
                found.append(((*key, number), _joined(scope, text, mean), panel, part))
    found.sort(key=lambda one: one[0])
    if len(found) > MAX_SLICES:
        found = [one for one in found if one[0][-1] == 0]
    return [(name, panel, rows) for _, name, panel, rows in found[:MAX_SLICES]]


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part) or "all"


def _differences(rows: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Both losses at every lambda against lambda 0, of one slice and |D_post|."""
    column = pl.col("exposure_fraction")
    fractions = sorted(rows["exposure_fraction"].unique().to_list())
    if fractions[0] != 0:
        return []
    found: list[dict[str, Any]] = []
    for loss in LOSSES:
        zero = {"slice": name, "post_tokens": rows["post_tokens"][0], "loss": loss, "exposure_fraction": 0.0,
                "effect": 0.0, "low": None, "high": None, "n": None, "detectable": None,
                "verdict": "reference", "runs": ""}  # fmt: skip
        found.append(zero)
        for fraction in fractions[1:]:
            compared = compare_at_equal_settings(rows, column == 0, column == fraction, loss, differing_columns(rows))
            one = compared.result
            if one.effect is None:
                continue
            low, high = one.interval or (None, None)
            found.append({**zero, "exposure_fraction": fraction, "effect": one.effect, "low": low, "high": high,
                          "n": one.n, "detectable": one.detectable, "verdict": one.conclusion(),
                          "runs": ids_text(compared.finetune_ids)})  # fmt: skip
    return found


def _paper_differences(panels: list[str]) -> pl.DataFrame:
    curves = paper.lambda_curves().filter(pl.col("panel").is_in(panels)).sort("exposure_fraction")
    start = pl.col("value").first().over("panel", "loss", "post_tokens")
    return curves.select("panel", "loss", "post_tokens", "exposure_fraction", (pl.col("value") - start).alias("effect"))


def _view(data: str, keep: str, title: str, rows: pl.DataFrame, *, has_bars: bool) -> Chart:
    """``title`` is a Vega expression."""
    base = alt.Chart(alt.NamedData(data)).transform_filter(keep)
    places: list[float] = rows["x"].to_list()
    edge = MARGIN * max(rows["exposure_fraction"].to_list())
    ends = [min(places) - edge, max(places) + edge]
    x = alt.X(
        "x:Q", title="λ, part of D_post seen in pretraining", axis=lambda_axis(rows),
        scale=alt.Scale(domain=ends, nice=False, zero=False),
    )  # fmt: skip
    y = alt.Y("effect:Q", title="change, nats (solid L_ret, dashed L_im)")
    color, shape = size_channels(rows)
    tooltip = [alt.Tooltip("loss:N"), alt.Tooltip("exposure_fraction:Q", title="λ"),
               alt.Tooltip("size:N", title="|D_post|"), alt.Tooltip("effect:Q", format="+.4f")]  # fmt: skip
    if "n" in rows.columns:
        tooltip += [alt.Tooltip("low:Q", format="+.4f"), alt.Tooltip("high:Q", format="+.4f"),
                    alt.Tooltip("detectable:Q", format=".4f"), alt.Tooltip("n:Q", title="seeds"),
                    alt.Tooltip("verdict:N"), alt.Tooltip("runs:N")]  # fmt: skip
    zero = alt.Chart(alt.NamedData(data)).mark_rule(strokeWidth=1).encode(y=alt.datum(0))
    layers: list[Any] = [zero]
    for loss in LOSSES:
        is_main = loss == "L_ret"
        part = base.transform_filter(f"datum.loss == '{loss}'")
        look: dict[str, Any] = {"strokeWidth": 2.2} if is_main else {"strokeWidth": 1.3, "strokeDash": [4, 3]}
        layers.append(part.mark_line(**look).encode(x=x, y=y, color=color))
        if has_bars:
            bar = part.transform_filter(f"datum.n >= {MIN_SEEDS_FOR_BARS}")
            bar = bar.mark_rule(strokeWidth=2 if is_main else 1, opacity=1 if is_main else 0.65)
            layers.append(bar.encode(x=x, y=alt.Y("low:Q", title=""), y2="high:Q", color=color))
        dots = part.mark_point(filled=is_main, size=70 if is_main else 40, opacity=1, strokeWidth=1.5)
        layers.append(dots.encode(x=x, y=y, color=color, shape=shape, tooltip=tooltip))
    return alt.layer(*layers, title=alt.Title(text={"expr": title}), width=430, height=270)
