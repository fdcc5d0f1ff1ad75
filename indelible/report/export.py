"""Each chart of the report as files for a paper: PDF, SVG, PNG, and its data as CSV."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert

from indelible.files import atomic_write
from indelible.report.figure import Figure, theme
from indelible.report.vega_bundle import VEGA_LITE

PNG_PIXELS_PER_POINT = 3.0


def write_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Writes ``<name>.pdf``, ``.svg``, ``.png`` and ``<name>-<data set>.csv`` of every figure.

    The files come from the chart definitions of the page, in the light theme on white, with every menu at its first
    choice. CSV has full precision.

    Returns:
        the files, in the order of the figures.
    """
    written: list[Path] = []
    for figure in figures:
        specification = drawable(figure)
        svg = vl_convert.vegalite_to_svg(specification, vl_version=VEGA_LITE)
        images = {
            "svg": svg.encode(),
            "pdf": vl_convert.svg_to_pdf(svg),
            "png": vl_convert.svg_to_png(svg, scale=PNG_PIXELS_PER_POINT),
        }
        for ending, data in images.items():
            written.append(_write(folder / f"{figure.name}.{ending}", data))
        for name, frame in figure.data.items():
            path = folder / f"{figure.name}-{name}.csv"
            written.append(_write(path, frame.write_csv().encode()))
    return written


def drawable(figure: Figure) -> dict[str, Any]:
    """The figure's specification with its data and the light theme inside."""
    config = theme("light") | {"background": "white", "font": "DejaVu Sans, Helvetica, Arial, sans-serif"}
    datasets = {name: _records(frame) for name, frame in figure.data.items()}
    return json.loads(json.dumps({**figure.specification(), "config": config, "datasets": datasets}, allow_nan=False))


def _records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]


def _write(path: Path, data: bytes) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return path
