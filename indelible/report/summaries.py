"""The small tables of the page: verdicts by claim, noise floor by arm, frontiers by arm."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from indelible.claims.evidence import CONTRADICTED, INCONCLUSIVE, MIXED_READING, NOT_TESTED, SUPPORTED
from indelible.claims.paper_claims import paper_verdicts
from indelible.claims.verdicts import Verdict
from indelible.results.columns import setting_columns, varying
from indelible.results.labels import differing_columns, settings_text, treatment_columns, value_text, word
from indelible.statistics.compare import compare_at_equal_settings
from indelible.statistics.evaluation_error import UNKNOWN, error_sources
from indelible.statistics.frontier import (
    additive_epsilon,
    edge_flags,
    hypervolume,
    lower_left_hull,
    pareto_set,
)
from indelible.statistics.inference import WORST_LOSS
from indelible.statistics.noise import noise_floor
from indelible.statistics.planning import detectable_unpaired

_ORDER = (CONTRADICTED, SUPPORTED, MIXED_READING, INCONCLUSIVE, NOT_TESTED)

_MEASURES = ("sd", "num_settings", "num_seeds", "degrees_of_freedom")


@dataclass(frozen=True)
class ClaimRow:
    """One claim: what this study says, scope by scope, and what the paper's own values say."""

    claim: str
    source: str
    text: str
    overall: str  # the verdict of the scopes together; "mixed" where they differ
    scopes: tuple[Verdict, ...]
    paper: str  # e.g. "supported in 6 of 7"


def claim_rows(verdicts: Sequence[Verdict]) -> list[ClaimRow]:
    """Claims in the paper's order, untested ones last."""
    own: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        own.setdefault(verdict.claim, []).append(verdict)
    papers: dict[str, list[str]] = {}
    for verdict in paper_verdicts():
        papers.setdefault(verdict.claim, []).append(verdict.finding.verdict)
    rows = []
    for claim, group in own.items():
        kinds = {one.finding.verdict for one in group}
        overall = kinds.pop() if len(kinds) == 1 else "mixed"
        rows.append(ClaimRow(claim, group[0].source, group[0].text, overall, tuple(group), _tally(papers[claim])))
    return sorted(rows, key=lambda row: row.overall == NOT_TESTED)


def verdict_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Number of findings of each verdict, those without any left out."""
    counts = {kind: sum(one.finding.verdict == kind for one in verdicts) for kind in _ORDER}
    return {kind: count for kind, count in counts.items() if count}


def noise_rows(table: pl.DataFrame) -> list[dict[str, str]]:
    """The noise floor of L_im and L_ret by arm, and the paired effect that such noise would hide."""
    if table.filter(pl.col("status") == "done")["seed"].n_unique() < 2:
        return []
    floors = {loss: noise_floor(table, loss) for loss in ("L_im", "L_ret")}
    keys = [name for name in floors["L_ret"].columns if name not in _MEASURES]
    said = treatment_columns(table)
    names = [name for name in varying(floors["L_ret"], keys) if name in said] if floors["L_ret"].height else []
    joined = floors["L_ret"].join(
        floors["L_im"].select(*keys, pl.col("sd").alias("im_sd")), on=keys, how="left", nulls_equal=True,
        maintain_order="left",
    )  # fmt: skip
    rows = []
    for ret in joined.iter_rows(named=True):
        rows.append({
            "arm": settings_text(ret, names) or "all", "settings": str(ret["num_settings"]),
            "seeds": str(ret["num_seeds"]),
            "L_im sd": "-" if ret["im_sd"] is None else f"{ret['im_sd']:.4f}", "L_ret sd": f"{ret['sd']:.4f}",
            "unpaired detectable": f"{detectable_unpaired(ret['sd'], ret['num_seeds']):.4f}",
        })  # fmt: skip
    return rows


def error_note(table: pl.DataFrame) -> str:
    """Whether seeds or evaluation windows dominate the change of L_ret with exposure; empty where no one knows.

    Looks at the largest lambda against 0, pipeline by pipeline.
    """
    if "L_ret_se" not in table.columns:
        return ""
    fraction = pl.col("exposure_fraction")
    notes = []
    for part in table.partition_by("pipeline", maintain_order=True):
        largest = max(part.filter(fraction <= 1)["exposure_fraction"].drop_nulls().to_list(), default=0.0)
        if not largest:
            continue  # no exposure, so no change with it
        sides = (fraction == 0, fraction == largest)
        result = compare_at_equal_settings(part, *sides, "L_ret", differing_columns(part)).result
        found = error_sources(part, *sides, "L_ret", result)
        if found.buy != UNKNOWN:
            notes.append(f"{part['pipeline'].to_list()[0]}, L_ret at λ {largest:g} minus λ 0: {found.text}")
    return " ".join(notes)


def frontier_rows(labelled: pl.DataFrame) -> list[dict[str, str]]:
    """Frontier measures by arm in (L_ft, L_ret), for each pipeline and |D_post|.

    Only within one of these can losses be compared. Arms with fewer than three settings have no frontier to speak of
    and are left out.
    """
    done = labelled.filter(pl.col("status") == "done").drop_nulls(["L_ft", "L_ret"])
    parts = ["scale", "pipeline", "post_tokens"]
    names = varying(done, parts)
    return [
        {word(name): value_text(name, part[name][0]) for name in names} | row
        for part in done.partition_by(parts, maintain_order=True)
        for row in _comparable_frontiers(part)
    ]


def _comparable_frontiers(done: pl.DataFrame) -> list[dict[str, str]]:
    settings = setting_columns(done)
    means = done.group_by([*settings, "series"], maintain_order=True).agg(pl.col("L_ft", "L_ret").mean())
    clouds = {key[0]: part for key, part in means.group_by("series", maintain_order=True) if part.height >= 3}
    if not clouds:
        return []
    points = {key: part.select("L_ft", "L_ret").to_numpy() for key, part in clouds.items()}
    reference = (WORST_LOSS, WORST_LOSS)
    first = next(iter(points.values()))
    swept = [
        name for name in varying(done, settings) if done.schema[name].is_numeric() and name.endswith(("_lr", "_size"))
    ]
    rows = []
    for key, part in clouds.items():
        flags = edge_flags(part, "L_ft", "L_ret", swept)
        ends = {"low_x": "best L_ft", "low_y": "best L_ret"}
        rows.append({
            "arm": str(key), "settings": str(part.height), "Pareto": str(len(pareto_set(points[key]))),
            "hull": str(len(lower_left_hull(points[key]))), "hypervolume": f"{hypervolume(points[key], reference):.4f}",
            "ε to first arm": f"{additive_epsilon(points[key], first):+.4f}",
            "ends at the edge of the grid": "; ".join(
                f"{ends[flag.end]} at the {flag.side} {word(flag.setting)}" for flag in flags) or "no",
        })  # fmt: skip
    return rows


def _tally(kinds: Sequence[str]) -> str:
    tested = [kind for kind in kinds if kind != NOT_TESTED]
    if not tested:
        return NOT_TESTED
    if len(set(tested)) == 1:
        return tested[0] if len(tested) == 1 else f"{tested[0]} in all {len(tested)}"
    return ", ".join(f"{kind} in {tested.count(kind)}" for kind in _ORDER if kind in tested)
