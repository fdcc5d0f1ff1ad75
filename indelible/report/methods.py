"""The methods paragraph: every switch of the study, and how the page's numbers were computed."""

from collections import Counter
from typing import Any

import polars as pl

from indelible.claims.wording import confidence_text
from indelible.results.columns import setting_columns, varying
from indelible.results.labels import value_text, word
from indelible.results.run_folder import StudyRun
from indelible.statistics.inference import Inference

_STATISTICS = (
    "Losses are mean next-token cross entropies on held-out splits, nats per token. The unit of inference is the "
    "seed: arms are paired at equal seed (same initialisation, same D_pre order) and equal settings, and the "
    "differences of one seed are averaged over settings first. Every claim is decided by one estimator, the two-sided "
    "paired t interval over seeds, at a stated level of {level}, which the findings of one claim share (Holm); within "
    "one finding, several steps, λ or ends are Bonferroni-corrected where one of them is enough. The interval shown "
    "is the one that decides, with its confidence; with one seed there is none and the verdict is inconclusive. The "
    "detectable effect is a planning number: the true mean difference that so many seeds, with the spread seen "
    "between them, find with power {power:g} at the level that decides. New seeds are given as a range that holds the "
    "number needed about half of the time. “Flat” means that at every λ the whole interval is within ±{flat_margin:g} "
    "nats. A diverged chain counts as the worst loss, {worst_loss:g} nats per token (a uniform guess over 262,144 "
    "tokens has 12.48), and no loss counts for more. Frontiers are compared by the lowest loss reached within a bound "
    "on the other, mean over all bounds up to the worst loss (a hypervolume at a reference fixed beforehand), the "
    "best of as many chains in both arms; what is drawn are lower-left convex hulls (what the paper draws) or Pareto "
    "sets (what it defines) of means over seeds. Matched comparisons interpolate between neighbouring chains and "
    "never extrapolate."
)


def statistics_text(inference: Inference) -> str:
    """How the page's numbers were computed, in a paragraph."""
    return _STATISTICS.format(
        level=confidence_text(inference.level),
        power=inference.power,
        flat_margin=inference.flat_margin,
        worst_loss=inference.worst_loss,
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
    for stage_run in run.plan.stage_runs:
        for key, value in _leaves(stage_run.spec):
            found.setdefault(f"{stage_run.stage}.{key}", {})[value] = None
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
        for key, value in {**result.environment, "precision": result.precision}.items():
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
