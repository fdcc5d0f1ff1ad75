"""theory.html: one self-contained page that needs no network, in light and dark, for a phone and for a projector."""

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import vl_convert
from markupsafe import Markup

from indelible.theory.chart_parts import data_sets
from indelible.theory.charts import all_charts
from indelible.theory.counterexamples import REPAIRED
from indelible.theory.overview import Survey, allocation_unit
from indelible.theory.theorems import Check

TEMPLATE = Path(__file__).parent / "templates" / "theory.html"
GREEK = {"alpha": "α", "beta": "β", "nu": "ν", "sigma": "σ", "theta": "θ", "Delta": "Δ", "lr": "η", "reg": "ρ"}
MAPS = (
    "alpha-beta-gain_ret",
    "alpha-beta-gain_delta",
    "times-gain_ret",
    "times-gain_delta",
    "allocation-map",
    "allocation-map-free",
)


def render(result: Survey) -> str:
    """The page as text: about 2 MB, of which 0.9 MB are the charts' library."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": number, "greek": greek}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        s=result.spec,
        repaired_spec=REPAIRED,
        mixed=result.chains["mixed"],
        unmixed=result.chains["unmixed"],
        window=result.window,
        theorems=list(zip(result.checks, result.repaired, strict=True)),
        retention=_numbers(result.checks, "5.3 / C.17"),
        hidden=_numbers(result.repaired, "5.3 / C.17"),
        counterexamples=result.counterexamples,
        slips=result.slips,
        agreement=result.agreement,
        broken=result.broken,
        map_errors=result.map_errors,
        facts=facts(result),
        bundle=_script(vl_convert.javascript_bundle()),  # type: ignore[call-arg]
        data=_json(data_sets(result)),
        charts=_json(all_charts(result)),
        maps=_json(MAPS),
    )


def facts(result: Survey) -> dict[str, float]:
    """Numbers that the page's sentences state, each computed from the tables."""
    times, pixels = result.tables["map_times"], result.tables["map_alpha_beta"]
    scale = float(result.chains["unmixed"].losses.L_ret)
    ordered = [row for row in pixels if float(row["order_margin"]) > 0]

    def interior(name: str) -> float:
        best = [float(row["best_fraction"]) for row in result.tables[name]]
        return _share([0 < value < 1 for value in best if np.isfinite(value)])

    curve = result.tables["samples"]
    largest = max(int(row["num_samples"]) for row in curve)

    def mean_gap(count: int) -> float:
        by_arm = {
            arm: np.mean([float(r["delta"]) for r in curve if r["arm"] == arm and r["num_samples"] == count])
            for arm in ("unmixed", "mixed")
        }
        return float(by_arm["unmixed"] - by_arm["mixed"])

    return {
        "equal_time_delta_share": _share([float(row["gain_delta"]) > 0.01 * scale for row in times]),
        "equal_time_delta_most": max(float(row["gain_delta"]) for row in times),
        "equal_time_ret_share": _share([float(row["gain_ret"]) > 0.01 * scale for row in times]),
        "equal_time_ret_harm": _share([float(row["gain_ret"]) < -0.01 * scale for row in times]),
        "ordered_delta_share": _share([float(row["gain_delta"]) > 0.01 * scale for row in ordered]),
        "unordered_delta_share": _share(
            [float(row["gain_delta"]) > 0.01 * scale for row in pixels if float(row["order_margin"]) <= 0]
        ),
        "interior_share": interior("map_allocation"),
        "interior_share_free": interior("map_allocation_free"),
        "unit": allocation_unit(result.spec),
        "gap_few_samples": mean_gap(1000),
        "gap_many_samples": mean_gap(largest),
        "most_samples": float(largest),
    }


def number(value: float) -> Markup:
    """Four significant digits; powers of ten only where the decimals would hide the number."""
    value = float(value)
    if not np.isfinite(value):
        return Markup("∞" if value > 0 else "−∞" if value < 0 else "none")
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.1e}".split("e")
        return Markup(f"{mantissa}·10<sup>{int(exponent)}</sup>".replace("-", "−"))
    return Markup((f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}").replace("-", "−"))


def greek(text: str) -> str:
    """Names of the code as the page's symbols: sigma_post -> σ_post, lr -> η, reg -> ρ, and minus signs."""
    symbols = re.sub(r"\b(" + "|".join(GREEK) + r")(?=_|\b)", lambda found: GREEK[found.group()], text)
    return symbols.replace(" - ", " − ").replace("n-k", "n − k")


def _share(flags: list[bool]) -> float:
    return 100.0 * sum(flags) / len(flags) if flags else 0.0


def _numbers(checks: list[Check], name: str) -> dict[str, float]:
    return next(check.numbers for check in checks if check.name == name)


def _json(value: Any) -> str:
    """JSON that cannot end a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script")
