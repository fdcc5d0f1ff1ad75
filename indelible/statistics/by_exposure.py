"""How much to show: what each lambda is at and costs, which is the best, and which cannot be told apart from it.

Two statements hold for a block, each with the stated risk. The intervals against lambda 0 hold together, so that the
one of the lambda with the lowest mean may be read by itself though it was chosen by what was seen. And a lambda is left
out of the best only where another one is told to be lower than it: with m of them each is compared with m - 1 others,
each at a part of the level, so that the true best is left out no more often than the level says (Bonferroni).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from indelible.results.columns import setting_columns, token_columns, varying
from indelible.results.labels import differing_columns
from indelible.statistics.compare import complete_part
from indelible.statistics.inference import Inference, Paired, paired

LOSSES = ("L_im", "L_ret", "forgotten")
_CLOSE = 1e-6  # nats: what rounding leaves between a change and the sum of its parts
_Values = Mapping[int, Mapping[object, float]]  # of one lambda: by seed and setting


@dataclass(frozen=True)
class ExposureRow:
    """One lambda."""

    fraction: float
    num_seeds: int  # with L_ret
    num_diverged: int  # chains among them that count as the worst loss
    losses: dict[str, float | None]  # L_im, L_ret, forgotten: mean over seeds, nats per token
    extra_tokens: float | None  # of pretraining beyond lambda 0, realised; None where the table does not say
    extra_share: float | None  # the same as a part of pretraining at lambda 0
    extra_flops: float | None
    change: Paired | None  # L_ret minus that at lambda 0, at the block's level; None at lambda 0
    may_be_best: bool  # no other lambda is told to be lower
    change_im: float | None = None  # the part of ``change`` that is in L_im: there at hand-over already
    change_forgotten: float | None = None  # and in what is forgotten; both None where the pairs do not have them


@dataclass(frozen=True)
class ExposureBlock:
    """All lambdas of one scope at one stage-3 rate."""

    scope: str
    rate: float | None  # peak learning rate of stage 3; None where the table does not say
    level: float  # risk of each of the two statements
    margin: float  # nats per token: what is forgotten within it is nothing
    rows: tuple[ExposureRow, ...]  # by lambda, the first is 0
    best: ExposureRow  # with the lowest mean L_ret
    num_settings: int  # averaged over within a seed

    @property
    def pays(self) -> bool:
        """Some lambda is told to be lower in L_ret than lambda 0."""
        return not self.rows[0].may_be_best

    @property
    def is_nothing_forgotten(self) -> bool:
        """Without exposure the last stage erases nothing, so that no gain can show."""
        lost = self.rows[0].losses["forgotten"]
        return lost is not None and lost <= self.margin

    @property
    def candidates(self) -> tuple[ExposureRow, ...]:
        """What may be the best."""
        return tuple(row for row in self.rows if row.may_be_best)


def exposure_block(rows: pl.DataFrame, scope: str, rate: float | None, inference: Inference) -> ExposureBlock | None:
    """The block of the chains of one scope at one stage-3 rate.

    Args:
        rows: chains with an outcome, diverged ones as the worst loss (`indelible.statistics.divergence.with_worst`).
        scope: what they have in common, in words.
        rate: their stage-3 rate.
        inference: level, margin and worst loss.

    Returns:
        None without lambda 0 and another one that some seed has both of.
    """
    fractions = sorted(rows["exposure_fraction"].drop_nulls().unique().to_list())
    if len(fractions) < 2 or fractions[0] != 0:
        return None
    held = [name for name in setting_columns(rows) if name not in differing_columns(rows)]
    settings = [name for name in varying(rows, held) if not name.endswith("_seed")]
    values = _by_fraction(rows, settings, "L_ret")
    level = inference.level / (len(fractions) - 1)
    compared = {
        (one, other): _paired(values[one], values[other], level, inference.power)
        for one in fractions
        for other in fractions
        if one < other
    }
    if all(compared[0, one].effect is None for one in fractions[1:]):
        return None
    beaten = {other for (one, other), found in compared.items() if found.conclusion() == "higher"}
    beaten |= {one for (one, _), found in compared.items() if found.conclusion() == "lower"}
    made = [_row(rows, one, None if one == 0 else compared[0, one], may_be_best=one not in beaten) for one in fractions]
    filled = _with_costs(_with_sources(made, rows, settings, inference.power), rows)
    known = [row for row in filled if row.fraction == 0 or (row.change is not None and row.change.effect is not None)]
    best = min(known, key=lambda row: 0.0 if row.change is None else row.change.effect or 0.0)
    count = rows.select(settings).unique().height if settings else 1
    return ExposureBlock(scope, rate, inference.level, inference.flat_margin, tuple(filled), best, count)


def _by_fraction(rows: pl.DataFrame, settings: list[str], loss: str) -> dict[float, _Values]:
    """A loss by lambda, seed and setting."""
    fractions = rows["exposure_fraction"].drop_nulls().unique().to_list()
    return {one: _values(rows.filter(pl.col("exposure_fraction") == one), settings, loss) for one in fractions}


def _values(rows: pl.DataFrame, settings: list[str], loss: str) -> _Values:
    """A loss by seed and setting; seeds of single stages are averaged within their seed."""
    known = rows.drop_nulls(loss)
    found: dict[int, dict[object, float]] = {}
    means = known.group_by([*settings, "seed"], maintain_order=True).agg(pl.col(loss).mean())
    for *setting, seed, value in means.select(*settings, "seed", loss).rows():
        found.setdefault(seed, {})[tuple(setting)] = value
    return found


def _paired(first: _Values, second: _Values, level: float, power: float) -> Paired:
    """Second minus first at equal settings, averaged within each seed."""
    common = {seed: set(first[seed]) & set(second[seed]) for seed in first if seed in second}
    seeds, settings = complete_part({seed: own for seed, own in common.items() if own})
    differences = {
        seed: sum(second[seed][one] - first[seed][one] for one in settings) / len(settings) for seed in seeds
    }
    return paired(differences, level, power)


def _row(rows: pl.DataFrame, fraction: float, change: Paired | None, *, may_be_best: bool) -> ExposureRow:
    own = rows.filter(pl.col("exposure_fraction") == fraction)
    seeds = own.group_by("seed").agg(pl.col(LOSSES).mean())
    return ExposureRow(
        fraction=fraction,
        num_seeds=seeds.drop_nulls("L_ret").height,
        num_diverged=int((own["status"] == "diverged").sum()),
        losses={loss: seeds[loss].mean() for loss in LOSSES},  # type: ignore[misc]
        extra_tokens=None,
        extra_share=None,
        extra_flops=None,
        change=change,
        may_be_best=may_be_best,
    )


def _with_sources(made: list[ExposureRow], rows: pl.DataFrame, settings: list[str], power: float) -> list[ExposureRow]:
    """The rows with the two parts of their change, where every pair has both (a diverged chain forgets no number)."""
    early, lost = (_by_fraction(rows, settings, loss) for loss in ("L_im", "forgotten"))
    found = []
    for row in made:
        if row.change is not None and row.change.effect is not None:
            own = (row.fraction, row.change.level, power)
            in_early, in_lost = _change(early, *own), _change(lost, *own)
            if in_early is not None and in_lost is not None:
                is_whole = math.isclose(in_early + in_lost, row.change.effect, abs_tol=_CLOSE)
                row = replace(row, change_im=in_early, change_forgotten=in_lost) if is_whole else row
        found.append(row)
    return found


def _change(values: Mapping[float, _Values], fraction: float, level: float, power: float) -> float | None:
    return _paired(values[0], values[fraction], level, power).effect


def _with_costs(made: list[ExposureRow], rows: pl.DataFrame) -> list[ExposureRow]:
    """The rows with what pretraining took beyond lambda 0, mean over its runs."""
    tokens = pl.sum_horizontal(pl.lit(0, pl.Int64), *token_columns(rows, "pretrain")).alias("tokens")
    runs = rows.select("exposure_fraction", "pretrain_id", "pretrain_flops", tokens).drop_nulls()
    runs = runs.unique("pretrain_id", keep="first", maintain_order=True)
    means = runs.group_by("exposure_fraction").agg(pl.col("tokens", "pretrain_flops").mean()).rows()
    costs = {fraction: (tokens, flops) for fraction, tokens, flops in means}
    if 0 not in costs:
        return made
    base_tokens, base_flops = costs[0]
    found = []
    for row in made:
        if row.fraction in costs:
            extra, flops = costs[row.fraction][0] - base_tokens, costs[row.fraction][1] - base_flops
            share = extra / base_tokens if base_tokens else None
            row = replace(row, extra_tokens=extra, extra_share=share, extra_flops=flops)
        found.append(row)
    return found
