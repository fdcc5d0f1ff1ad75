"""The methods paragraph: every switch of the study, and how the page's numbers were computed."""

from collections import Counter
from typing import Any

import polars as pl

from indelible.analysis.arms import value_text, word
from indelible.analysis.columns import setting_columns, varying
from indelible.analysis.inference import CONFIDENCE, MIN_SEEDS_FOR_BCA, NUM_RESAMPLES, POWER
from indelible.analysis.rules import FLAT_MARGIN
from indelible.analysis.runs import StudyRun

STATISTICS = (
    "Losses are mean next-token cross entropies on held-out splits, nats per token. The unit of inference is the "
    "seed: arms are paired at equal seed (same initialisation, same D_pre order) and equal settings, and the "
    f"differences of one seed are averaged over settings first. Intervals are {CONFIDENCE:.0%}: the wider of a "
    f"bootstrap over seeds ({NUM_RESAMPLES:,} resamples; percentile below {MIN_SEEDS_FOR_BCA} seeds, BCa from "
    "there on) and the paired Student t interval. The detectable effect is the smallest mean difference that a "
    f"two-sided t test over these seeds, with the spread seen between them, finds with power {POWER:g}. A "
    "direction is named when zero is outside of the interval and the effect is at least the detectable one; else, "
    "and always with one seed, the verdict is inconclusive. “Flat” means that at every λ the whole interval is "
    f"within ±{FLAT_MARGIN:g} nats. Each finding has its own 5 % risk; within one finding, several steps, λ or "
    "levels are Bonferroni-corrected where one of them is enough; indelible verdicts --family-wise bounds the "
    "risk over all findings (Holm). Frontiers are lower-left convex hulls (what the paper draws) or Pareto sets "
    "(what it defines) of means over seeds; hulls are compared over the range that both cover, and where there is "
    "none the one that ends first goes on level. Matched comparisons interpolate between neighbouring chains and "
    "never extrapolate."
)


def run_facts(run: StudyRun) -> dict[str, list[tuple[str, str]]]:
    """What the plan's specs say of each stage, and the environment, by heading."""
    return {"every stage's specification": _specification(run), "environment": _environment(run)}


def settings_facts(table: pl.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """Switches by heading: what was held fixed and what was swept."""
    settings = setting_columns(table)
    swept = varying(table, [*settings, "seed"]) if table.height else []
    fixed = (
        [(word(name), value_text(name, table[name][0])) for name in settings if name not in swept]
        if table.height
        else []
    )
    return {
        "held fixed": [(name, value) for name, value in fixed if value not in ("", "-")],
        "swept": [(word(name), _values(table, name)) for name in swept],
    }


def _values(table: pl.DataFrame, name: str) -> str:
    values = table[name].unique().sort(nulls_last=False).to_list()
    texts = [value_text(name, value) for value in values[:12]]
    return ", ".join(texts) + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def _specification(run: StudyRun) -> list[tuple[str, str]]:
    """Every leaf of the specs of the plan's stage runs: one value, or how many it takes."""
    found: dict[str, dict[str, None]] = {}
    for stage_run in run.plan.get("stage_runs", []):
        for key, value in _leaves(stage_run.get("spec") or {}):
            found.setdefault(f"{stage_run.get('stage')}.{key}", {})[value] = None
    facts = []
    for key, values in found.items():
        texts = list(values)
        facts.append((key, ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")))
    return facts


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [leaf for key, child in value.items() if key not in ("class", "stage")
                for leaf in _leaves(child, f"{prefix}.{key}" if prefix else str(key))]  # fmt: skip
    return [(prefix, "none" if value is None else str(value))]


def _environment(run: StudyRun) -> list[tuple[str, str]]:
    """What the results say of software and machines; a value with its number of runs where there are several."""
    counts: dict[str, Counter[str]] = {}
    for result in run.results.values():
        for key, value in {**(result.get("environment") or {}), "precision": result.get("precision")}.items():
            counts.setdefault(str(key), Counter())[str(value)] += 1
    return [
        (
            key,
            next(iter(values))
            if len(values) == 1
            else ", ".join(f"{text} ({n} runs)" for text, n in values.most_common(5)),
        )
        for key, values in counts.items()
    ]
