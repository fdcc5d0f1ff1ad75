"""The report page: one HTML file that opens from disk, with everything it needs inside."""

import json
import math
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from indelible import __version__
from indelible.claims.paper_figures import CITATION
from indelible.claims.wording import family_text, numbers_text
from indelible.report.charts_tradeoff import chain_columns
from indelible.report.contents import Contents
from indelible.report.figure import theme
from indelible.report.legend import legend_text
from indelible.report.methods import statistics_text
from indelible.report.seed_cost import hours_text
from indelible.report.settled import shipped_reference
from indelible.report.vega_bundle import vega_bundle
from indelible.results.columns import FORGOTTEN, MAIN_LOSSES, derived_settings, id_columns, view_columns


def report_html(contents: Contents) -> str:
    """The whole page as text. All text of the study is escaped; nothing is loaded from anywhere."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_template("report.html"))
    return template.render(
        contents=contents,
        legend=legend_text(has_exposure=contents.has_exposure),
        statistics=statistics_text(contents.inference),
        numbers=numbers_text,
        hours=lambda found: hours_text(found, contents.table),
        family=f"{family_text(contents.inference, is_corrected=True).capitalize()}.",
        looks=contents.looks,
        reference_seeds=shipped_reference()["L_ret"].num_seeds,
        worst_loss=f"{contents.inference.worst_loss:g}",
        citation=CITATION,
        version=__version__,
        style=Markup(_template("report.css")),
        script=Markup(_script(_template("report.js"))),
        vega=Markup(_script(vega_bundle())),
        payload=Markup(_json_for_script(_payload(contents))),
    )


def _payload(contents: Contents) -> dict[str, Any]:
    datasets: dict[str, Any] = {"table": packed(contents.table.select(_table_columns(contents.table)))}
    figures = []
    for figure in contents.figures.values():
        own = {name: frame for name, frame in figure.data.items() if name not in figure.shared}
        datasets.update({name: packed(frame) for name, frame in own.items()})
        description = f"{figure.title} {figure.caption}"
        figures.append({"name": figure.name, "description": description, "spec": figure.specification(),
                        "datasets": list(own), "shared": list(figure.shared), "is_dense": figure.is_dense})  # fmt: skip
    return {
        "figures": figures,
        "datasets": datasets,
        "columns": shown_columns(contents.table),
        "themes": {mode: theme(mode) for mode in ("light", "dark")},
    }


def shown_columns(table: pl.DataFrame) -> list[str]:
    """The columns of the page's table, in order; what no chain has is left out."""
    ids = [name for name in reversed(id_columns(table)) if name != "start"]
    seeds = [name for name in derived_settings(table) if name.endswith("_seed")]
    names = ["status", "settings", "seed", *seeds, *MAIN_LOSSES, FORGOTTEN, *view_columns(table), "L_pre_post",
             "posttrain_stop_reason", *ids, "start"]  # fmt: skip
    is_absent = {name for name in names if name in table.columns and table[name].null_count() == table.height > 0}
    return [name for name in names if name in table.columns and name not in is_absent]


def _table_columns(table: pl.DataFrame) -> list[str]:
    """What the page's table shows, and what the charts that share its rows need."""
    return list(dict.fromkeys([*shown_columns(table), *chain_columns(table)]))


def packed(frame: pl.DataFrame) -> dict[str, Any]:
    """A frame by columns, small: text as codes into its distinct values, floats to six decimals (report.js unpacks)."""
    columns: dict[str, Any] = {}
    for series in frame:
        if series.dtype == pl.String:
            distinct = series.unique(maintain_order=True).to_list()
            code = {value: position for position, value in enumerate(distinct)}
            columns[series.name] = {"values": distinct, "codes": [code[value] for value in series.to_list()]}
        elif series.dtype.is_float():
            columns[series.name] = [_rounded(value) for value in series.to_list()]
        else:
            columns[series.name] = series.to_list()
    return {"length": frame.height, "columns": columns}


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}")


def _json_for_script(value: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _script(source: str) -> str:
    """JavaScript whose strings cannot end the script element: `</` is the same as `<\\/` inside them."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def _template(name: str) -> str:
    return resources.files("indelible.report").joinpath("templates", name).read_text(encoding="utf-8")
