"""Rules on frontiers: one arm's frontier is better than another's, by a score that is fixed before the runs."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from indelible.claims.evidence import (
    CONTRADICTED,
    MIXED_READING,
    SUPPORTED,
    Drawn,
    Evidence,
    directed,
    not_tested,
)
from indelible.claims.scopes import scopes
from indelible.claims.verdicts import Rule
from indelible.results.columns import setting_columns
from indelible.results.labels import differing_columns, paper_columns, plural
from indelible.statistics.frontier_score import FrontierComparison, compare_frontiers
from indelible.statistics.inference import Inference

TOLERANCE = 0.005  # nats per token: drawn lines that touch do not cross
TOLERATED_SHARE = 0.05  # of the common range


@dataclass(frozen=True)
class Arm:
    """A series of the paper's figures as settings; ``mixed`` is the largest lambda of the table."""

    name: str
    is_mixed: bool
    has_dropout: bool = False
    has_replay: bool = False
    method: str = "full"

    def rows(self, table: pl.DataFrame, largest: float) -> pl.DataFrame:
        """The chains of this arm among the rows of a table."""
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
    """The frontier of ``arm`` in (x, y) is better than that of ``baseline``, at one |D_post|.

    Over seeds, paired: the difference of the scores of `indelible.statistics.frontier_score`. At face value: where its
    mean points; mixed when the drawn hulls (lower-left, as the paper draws them) say something else, more than 0.005
    nats on more than 5 % of the range that both cover. Published values are read as they are drawn (`at_face_value`).
    """

    def judge_table(table: pl.DataFrame, inference: Inference) -> list[Evidence]:
        full = table.filter(pl.col("allocation").fill_null("full") == "full")
        unfinished = full.filter(pl.col("status").is_in(["incomplete", "failed"]))
        found = []
        parts = scopes(full, ("scale", "pipeline", "post_tokens"), [x, y], 1, is_split=False,
                       worst_loss=inference.worst_loss)  # fmt: skip
        for scope, rows, fractions in parts:
            largest = fractions[-1]
            if largest == 0 and (arm.is_mixed or baseline.is_mixed):
                continue
            first, second = baseline.rows(rows, largest), arm.rows(rows, largest)
            if unfinished.height:
                missing = pl.concat([one.rows(unfinished, largest) for one in (baseline, arm)])
                first, second = _without(first, missing), _without(second, missing)
            if _is_swept(first) and _is_swept(second):
                compared = compare_frontiers(first, second, (x, y), inference, _differing(rows))
                found.append(_judge_scope(scope, compared, (x, y), (baseline.name, arm.name)))
        return found or [
            not_tested(f"Needs two finished chains a seed of {arm.name} and of {baseline.name}, allocation full.")
        ]

    return judge_table


def _differing(table: pl.DataFrame) -> list[str]:
    """The settings in which these arms may differ: exposure, and the paper's treatments of stage 2."""
    return [*differing_columns(table), *paper_columns(table)]


def _is_swept(rows: pl.DataFrame) -> bool:
    """Whether some seed has two chains: one point alone is no frontier."""
    return max(rows["seed"].value_counts()["count"].to_list(), default=0) >= 2


def _without(rows: pl.DataFrame, missing: pl.DataFrame) -> pl.DataFrame:
    """Leaves out settings (and seeds) of which a chain of either arm is still missing: more chains reach lower.

    A diverged chain is not missing: it is what that setting gives.
    """
    keys = [name for name in setting_columns(rows) if name not in _differing(rows)]
    return rows.join(missing.select(*keys, "seed").unique(), on=[*keys, "seed"], how="anti", nulls_equal=True)


def _judge_scope(scope: str, compared: FrontierComparison, plane: tuple[str, str], names: tuple[str, str]) -> Evidence:
    x, y = plane
    if compared.result.effect is None:
        detail = f"No seed has finished chains of both {names[1]} and {names[0]}."
        return directed(scope, compared.result, "lower", detail, compared.finetune_ids)
    drawn = _drawing(compared)
    equal, k = compared.num_chains[0] == compared.num_chains[1], compared.best_of
    chances = (
        ""
        if equal
        else f", the best of {k} of {compared.num_chains[1]} against the best of {k} of {compared.num_chains[0]}"
    )
    left_out, bad = compared.num_seeds_left_out, compared.num_diverged
    detail = (
        f"{names[1]} minus {names[0]}: the lowest {y} within a bound on {x}, mean over all bounds{chances}. "
        + (drawn.text if drawn else "The drawn hulls share no range.")
        + (f" {plural(left_out, 'unfinished seed')} left out." if left_out else "")
        + (f" {plural(bad, 'diverged chain')} reached nothing." if bad else "")
    )
    found = directed(scope, compared.result, "lower", detail, compared.finetune_ids)
    if drawn is None:
        return found
    share, side = (drawn.below, "below") if found.is_against else (drawn.above, "above")
    if share > TOLERATED_SHARE:
        reason = f"{names[1]} is drawn {side} {names[0]} on {share:.0%} of the common range"
        found = replace(found, reading=MIXED_READING, reason=reason)
    return replace(found, drawn=_as_drawn(drawn, names))


def _as_drawn(drawn: "_Drawing", names: tuple[str, str]) -> Drawn:
    if drawn.mean > 0:
        return Drawn(drawn.mean, CONTRADICTED)
    if drawn.above > TOLERATED_SHARE:
        reason = f"{names[1]} is drawn above {names[0]} on {drawn.above:.0%} of the common range"
        return Drawn(drawn.mean, MIXED_READING, reason)
    return Drawn(drawn.mean, SUPPORTED)


@dataclass(frozen=True)
class _Drawing:
    """What the drawn hulls show over the ranges that both cover, the mean over seeds."""

    mean: float  # distance, second minus first, nats per token
    above: float  # part of the range on which the second lies above the first; 0 where it does by 0.005 at most
    below: float  # likewise
    text: str


def _drawing(compared: FrontierComparison) -> _Drawing | None:
    gaps = list(compared.gaps.values())
    if not gaps:
        return None
    share = float(np.mean([one.second_lower_share for one in gaps]))
    mean, low, high = float(np.mean([one.mean for one in gaps])), min(g.low for g in gaps), max(g.high for g in gaps)
    text = (f"Drawn hulls over their common range ({min(one.start for one in gaps):.2f} to "
            f"{max(one.end for one in gaps):.2f}): {mean:+.3f} in the mean, lower on {share:.0%} of it, distances "
            f"from {low:+.3f} to {high:+.3f}.")  # fmt: skip
    return _Drawing(mean, (1 - share) * (high > TOLERANCE), share * (low < -TOLERANCE), text)
