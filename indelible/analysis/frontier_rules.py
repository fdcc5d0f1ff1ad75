"""Rules on frontiers: one arm's lower-left hull lies below another's wherever both are."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from indelible.analysis.arms import plural
from indelible.analysis.columns import setting_columns
from indelible.analysis.frontier import Gap, Points, continued_level, gap, lower_left_hull
from indelible.analysis.inference import paired
from indelible.analysis.scopes import EXPOSURE, scopes
from indelible.analysis.verdicts import CONTRADICTED, INCONCLUSIVE, SUPPORTED, Finding, Rule, finding, not_tested

NUM_LEVELS = 33  # places along the common range at which hulls are compared
TOLERANCE = 0.005  # nats per token: lines that touch do not cross
TOLERATED_SHARE = 0.05  # of the common range
_DIFFERING = (*EXPOSURE, "dropout", "replay_fraction", "method")  # the settings in which these arms may differ


@dataclass(frozen=True)
class Arm:
    """A series of the paper's figures as settings; ``mixed`` is the largest lambda of the table."""

    name: str
    is_mixed: bool
    has_dropout: bool = False
    has_replay: bool = False
    method: str = "full"

    def rows(self, table: pl.DataFrame, largest: float) -> pl.DataFrame:
        """The finished chains of this arm."""
        dropout, replay = pl.col("dropout").fill_null(0.0) > 0, pl.col("replay_fraction").fill_null(0.0) > 0
        return table.filter(
            pl.col("exposure_fraction") == (largest if self.is_mixed else 0.0),
            dropout == self.has_dropout,
            replay == self.has_replay,
            pl.col("method").fill_null("full") == self.method,
        )


UNMIXED, MIXED = Arm("unmixed", False), Arm("mixed", True)
MIXED_DROPOUT, MIXED_REPLAY = Arm("mixed+dropout", True, has_dropout=True), Arm("mixed+replay", True, has_replay=True)
DROPOUT, REPLAY = Arm("dropout alone", False, has_dropout=True), Arm("replay alone", False, has_replay=True)
LORA_UNMIXED, LORA_MIXED = Arm("LoRA unmixed", False, method="lora"), Arm("LoRA mixed", True, method="lora")


def frontier_below(x: str, y: str, arm: Arm, baseline: Arm) -> Rule:
    """The hull of ``arm`` in (x, y) lies below that of ``baseline`` over the x range that both cover, at one |D_post|.

    A hull of one point is compared at its place. Where two have no x in common, the one that ends first goes on level:
    to leave such a seed out would leave out the clearest case, a point that beats the whole of the other hull.

    At face value: contradicted when it lies more than 0.005 nats above on more than 5 % of the range, or on the whole;
    supported otherwise. Over seeds, paired: supported when the mean distance is found to be negative and at none of 33
    places a positive one is (Bonferroni over the places); contradicted when the mean or a place is found positive.
    """

    def judge_table(table: pl.DataFrame) -> list[Finding]:
        full = table.filter(pl.col("allocation").fill_null("full") == "full")
        found = []
        for scope, rows, fractions in scopes(full, ("scale", "pipeline", "post_tokens"), [x, y], 1, is_split=False):
            largest = fractions[-1]
            if largest == 0 and (arm.is_mixed or baseline.is_mixed):
                continue
            missing = full.filter(pl.col("status").is_in(["incomplete", "failed"]))
            missing = pl.concat([one.rows(missing, largest) for one in (baseline, arm)])
            first, second = (_without(one.rows(rows, largest), missing) for one in (baseline, arm))
            if _is_swept(first) and _is_swept(second):
                found.append(_judge_scope(scope, first, second, (x, y), (baseline.name, arm.name)))
        return found or [
            not_tested(f"Needs two finished chains a seed of {arm.name} and of {baseline.name}, allocation full.")
        ]

    return judge_table


def _is_swept(rows: pl.DataFrame) -> bool:
    """Whether some seed has two chains: one point alone is no frontier."""
    return rows.height > 0 and rows["seed"].value_counts()["count"].max() >= 2  # type: ignore[operator]


def _without(rows: pl.DataFrame, missing: pl.DataFrame) -> pl.DataFrame:
    """Leaves out settings (and seeds) of which a chain of either arm is still missing: more chains make a lower hull.

    A diverged chain is not missing: it is what that setting gives.
    """
    keys = [name for name in setting_columns(rows) if name not in _DIFFERING]
    return rows.join(missing.select(*keys, "seed").unique(), on=[*keys, "seed"], how="anti", nulls_equal=True)


def _judge_scope(
    scope: str, first: pl.DataFrame, second: pl.DataFrame, plane: tuple[str, str], names: tuple[str, str]
) -> Finding:
    x, y = plane
    hulls = {seed: (_hull(first, seed, plane), _hull(second, seed, plane))
             for seed in sorted(set(first["seed"]) & set(second["seed"]))}  # fmt: skip
    apart = [seed for seed, pair in hulls.items() if gap(*pair) is None]
    hulls |= {seed: continued_level(*hulls[seed]) for seed in apart}
    gaps = {seed: one for seed, pair in hulls.items() if (one := gap(*pair)) is not None}
    result = paired({seed: one.mean for seed, one in gaps.items()})
    ids = [*first["finetune_id"], *second["finetune_id"]]
    if not gaps:
        return finding(scope, result, verdict=INCONCLUSIVE, reading=INCONCLUSIVE, run_ids=ids,
                       detail=f"No seed has finished chains of both {names[1]} and {names[0]}.")  # fmt: skip
    higher = _levels_found_higher(hulls, gaps)
    conclusion = result.conclusion()
    verdict, p = INCONCLUSIVE, result.p
    if conclusion == "higher":
        verdict = CONTRADICTED
    elif higher:
        verdict, p = CONTRADICTED, min(higher)
    elif conclusion == "lower":
        verdict = SUPPORTED
    lower_share = float(np.mean([one.second_lower_share for one in gaps.values()]))
    highest = max(one.high for one in gaps.values())
    is_crossing = highest > TOLERANCE and 1 - lower_share > TOLERATED_SHARE
    reading = CONTRADICTED if is_crossing or (result.effect or 0.0) > 0 else SUPPORTED
    detail = (
        f"{names[1]} minus {names[0]} in {y} at equal {x}, mean over the common range "
        f"({min(one.start for one in gaps.values()):.2f} to {max(one.end for one in gaps.values()):.2f}); lower on "
        f"{lower_share:.0%} of it, distances from {min(one.low for one in gaps.values()):+.3f} to {highest:+.3f}."
    )
    if apart:
        detail += f" At {plural(len(apart), 'seed')} they share no range, and the hull that ends first goes on level."
    return finding(scope, result, verdict=verdict, reading=reading, detail=detail, run_ids=ids, p=p)


def _hull(rows: pl.DataFrame, seed: int, plane: tuple[str, str]) -> Points:
    return lower_left_hull(rows.filter(pl.col("seed") == seed).select(plane).to_numpy())


def _levels_found_higher(hulls: dict[int, tuple[Points, Points]], gaps: dict[int, Gap]) -> list[float]:
    """p values (Bonferroni) of those of 33 places along the common range where the second hull is found higher.

    The places are equally spaced in each seed's own range: a seed can move both hulls sideways together.
    """
    rows = []
    for seed, (one, two) in hulls.items():
        levels = np.linspace(gaps[seed].start, gaps[seed].end, NUM_LEVELS)
        rows.append(np.interp(levels, two[:, 0], two[:, 1]) - np.interp(levels, one[:, 0], one[:, 1]))
    results = [paired(dict(enumerate(column))) for column in np.array(rows).T]
    corrected = [(result, min(1.0, result.p * NUM_LEVELS)) for result in results if result.p is not None]
    return [p for result, p in corrected if result.conclusion(p) == "higher"]
