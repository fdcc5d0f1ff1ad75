"""Each chart of the report as files for a paper: PDF, SVG, PNG, and its data as CSV."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert

from indelible.errors import UserError
from indelible.files import atomic_write
from indelible.report.figure import Figure, theme
from indelible.report.vega_bundle import VEGA_LITE

PNG_PIXELS_PER_POINT = 3.0
NARROWEST = 160  # points
AXIS = 62  # points that axis, its labels and title take beside a view
SHAPE = 0.75  # height of a narrow view, of its width


@dataclass(frozen=True)
class PaperStyle:
    """How charts become files for a paper."""

    names: tuple[str, ...] = ()  # only these; empty: all
    width: int | None = None  # points, of the whole file: views stand below each other; None: as on the page
    has_paper: bool = True  # with the panels of the paper's own values


def write_figures(figures: Sequence[Figure], folder: Path, style: PaperStyle = PaperStyle()) -> list[Path]:
    """Writes ``<name>.pdf``, ``.svg``, ``.png`` and ``<name>-<data set>.csv`` of every figure.

    The files come from the chart definitions of the page, in the light theme on white, with every menu at its first
    choice. CSV has full precision.

    Returns:
        the files, in the order of the figures.

    Raises:
        UserError: there is no chart of a name, or a width in which nothing can be drawn.
    """
    written: list[Path] = []
    for figure in _chosen(figures, style):
        specification = drawable(figure, style)
        svg = vl_convert.vegalite_to_svg(specification, vl_version=VEGA_LITE)
        images = {
            "svg": svg.encode(),
            "pdf": vl_convert.svg_to_pdf(svg),
            "png": vl_convert.svg_to_png(svg, scale=PNG_PIXELS_PER_POINT),
        }
        for ending, data in images.items():
            written.append(_write(folder / f"{figure.name}.{ending}", data))
        for name, frame in figure.data.items():
            if name.endswith("_paper") and not style.has_paper:
                continue
            path = folder / f"{figure.name}-{name}.csv"
            written.append(_write(path, frame.write_csv().encode()))
    return written


def _chosen(figures: Sequence[Figure], style: PaperStyle) -> list[Figure]:
    known = [figure.name for figure in figures]
    if missing := [name for name in style.names if name not in known]:
        raise UserError(f"--figure {missing[0]}: no chart of this study; there are {', '.join(known)}.")
    if style.width is not None and style.width < NARROWEST:
        raise UserError(f"--width {style.width}: expected {NARROWEST} points or more; a column of two is about 240.")
    return [figure for figure in figures if not style.names or figure.name in style.names]


def drawable(figure: Figure, style: PaperStyle | None = None) -> dict[str, Any]:
    """The figure's specification with its data and the light theme inside."""
    style = style or PaperStyle()
    config = theme("light") | {"background": "white", "font": "DejaVu Sans, Helvetica, Arial, sans-serif"}
    datasets = {name: _records(frame) for name, frame in figure.data.items()}
    specification = figure.specification()
    if not style.has_paper and "concat" in specification:
        own = [view for view in specification["concat"] if not _is_of_the_paper(view)]
        specification["concat"] = own or specification["concat"]
    if style.width is not None:
        specification = fitted(specification, style.width)
        config = _narrow(config)
    return json.loads(json.dumps({**specification, "config": config, "datasets": datasets}, allow_nan=False))


def fitted(specification: dict[str, Any], width: int) -> dict[str, Any]:
    """A specification whose file is about ``width`` points wide: its views below each other, no wider than that."""
    views = specification.get("concat")
    if views is None:
        return {**specification, "width": width - 8, "autosize": {"type": "fit-x", "contains": "padding"}}
    inner = width - AXIS
    narrow = [
        {**view, "width": inner, "height": min(view.get("height", inner), round(SHAPE * inner))}
        if isinstance(view.get("width"), int | float) and isinstance(view.get("height", 0), int | float)
        else view
        for view in views
    ]
    return {**specification, "concat": narrow, "columns": 1}


def _narrow(config: dict[str, Any]) -> dict[str, Any]:
    """Letters of a paper's size, and legends in two columns."""
    axis = {**config["axis"], "labelFontSize": 8, "titleFontSize": 8.5}
    legend = {**config["legend"], "labelFontSize": 8, "titleFontSize": 8, "columns": 2, "symbolSize": 50}
    title = {**config["title"], "fontSize": 9, "offset": 5}
    return {**config, "axis": axis, "legend": legend, "title": title}


def _is_of_the_paper(view: dict[str, Any]) -> bool:
    """Whether all that a view draws are values of the paper."""
    names = {part["data"]["name"] for part in (view, *view.get("layer", ())) if "name" in part.get("data", {})}
    return bool(names) and all(name.endswith("_paper") for name in names)


def _records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]


def _write(path: Path, data: bytes) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return path
