"""A figure: one chart definition for the page and for the files, its data, and the two themes."""

from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

INK = {"light": "#1f2328", "dark": "#e6e8eb"}
MUTED = {"light": "#6a737d", "dark": "#9aa4af"}
GRID = {"light": "#e4e7eb", "dark": "#30363d"}
PAPER = {"light": "#ffffff", "dark": "#14171c"}
# Okabe and Ito's colours, darkened or lightened until they stand out from the background (contrast 3:1).
CATEGORY = {
    "light": ["#0072b2", "#d55e00", "#008a64", "#b8568f", "#8a6d00", "#3a8fc4", "#5b5b5b", "#b07400"],
    "dark": ["#56b4e9", "#ff9447", "#2fc79a", "#e3a3c7", "#f0e442", "#8fb8ff", "#c3c7cc", "#e6b800"],
}
# Ordered: the luminance is monotone, so that the order survives every kind of colour blindness and grey print.
ORDINAL = {"light": ["#d97a00", "#c2386b", "#3f0f72"], "dark": ["#ffe3a3", "#fb8a5e", "#b66be0"]}
HEAT = {"light": ["#eaf2f8", "#5fa8d3", "#084a7a"], "dark": ["#1d2833", "#2f7fb5", "#b9e2fb"]}
# Readable on both backgrounds; shapes say the same.
VERDICT_COLORS = {"supported": "#1a9870", "contradicted": "#d9662c", "inconclusive": "#8a939c"}
NEUTRAL = "#8a939c"
MIN_SEEDS_FOR_BARS = 3  # with two, t(0.975; 1) = 12.7: an interval wider than any picture
PLACES = ("summary", "effects", "tradeoff", "runs", "cost")  # parts of the page that show figures, in order
Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.ConcatChart


@dataclass(frozen=True)
class Figure:
    """One figure. The chart names its data sets (`alt.NamedData`); ``data`` holds them."""

    name: str  # file name stem, [a-z0-9_]
    title: str
    caption: str  # what is drawn, how it was computed, on how many seeds
    chart: Chart
    data: dict[str, pl.DataFrame] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # shown under the caption, e.g. what was left out
    shared: tuple[str, ...] = ()  # data sets that are the finished chains of the page's own table
    is_dense: bool = False  # thousands of marks at once: drawn on a canvas instead of as SVG
    place: str = "runs"  # part of the page, one of PLACES
    rows: tuple[dict[str, str], ...] = ()  # the numbers as a small table below the chart

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"figure {self.name}: place {self.place!r} is none of {', '.join(PLACES)}")

    def specification(self) -> dict[str, Any]:
        """The Vega-Lite specification without data and theme."""
        specification = self.chart.to_dict()
        specification.pop("$schema", None)
        specification.pop("config", None)
        return specification


def independent(*channels: str, shared: tuple[str, ...] = ()) -> alt.Resolve:
    """Channels whose scales each view has for itself, and channels whose scale all views share.

    To be given when the views are put together: each later change of a chart of charts copies all of its parts again.
    """
    modes: dict[str, Any] = {**dict.fromkeys(channels, "independent"), **dict.fromkeys(shared, "shared")}
    return alt.Resolve(scale=alt.ScaleResolveMap(**modes))


def theme(mode: str) -> dict[str, Any]:
    """The Vega-Lite config of ``light`` or ``dark``."""
    ink, muted, grid = INK[mode], MUTED[mode], GRID[mode]
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "title": {"color": ink, "fontSize": 13, "anchor": "start", "fontWeight": 600, "offset": 8},
        "axis": {
            "labelColor": muted, "titleColor": ink, "gridColor": grid, "domainColor": muted, "tickColor": muted,
            "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": 500, "gridWidth": 1,
        },
        "axisY": {"minExtent": 34, "domain": False, "ticks": False, "labelLimit": 440},
        "legend": {
            "orient": "top", "labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12,
            "symbolBaseFillColor": ink, "symbolBaseStrokeColor": ink, "symbolOpacity": 1,
            "titleFontWeight": 500, "symbolSize": 90, "labelLimit": 340, "columns": 5,
        },
        "range": {
            "category": CATEGORY[mode],
            "ordinal": {"scheme": ORDINAL[mode]},
            "ramp": {"scheme": HEAT[mode]},
            "heatmap": {"scheme": HEAT[mode]},
        },
        "mark": {"color": CATEGORY[mode][0]},
        "rule": {"color": muted},
        "text": {"color": ink, "fontSize": 11},
    }  # fmt: skip
