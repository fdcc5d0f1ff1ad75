"""One number for a frontier, and the paired comparison of two: hypervolume at a reference fixed before the runs.

The score of a set of chains in the plane (x, y) is the mean, over all bounds on x from 0 to the worst loss, of the
lowest y that is reached within the bound (the worst loss where none is). It is the worst loss minus the hypervolume
over the worst loss, so it is in nats per token and lower is better. It needs no range that two frontiers happen to
share, it is one number in every seed, and another chain can only lower it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy import special

from indelible.results.columns import setting_columns
from indelible.statistics.compare import complete_part
from indelible.statistics.divergence import with_worst
from indelible.statistics.frontier import Gap, Points, gap, lower_left_hull
from indelible.statistics.inference import Inference, Paired, paired


@dataclass(frozen=True)
class FrontierComparison:
    """Second arm against first."""

    result: Paired  # of the scores, nats per token; negative: the second arm has the better frontier
    num_chains: tuple[int, int]  # of each arm, the same for every seed
    best_of: int  # chains of each arm that a score is the best of, in the mean over choices where there are more
    num_seeds_left_out: int  # seeds of both arms with too few chains to be compared with the others
    gaps: dict[int, Gap]  # by seed, where the drawn hulls share a range: for drawing and reading, decides nothing
    finetune_ids: tuple[str, ...]
    num_diverged: int  # chains among them


def expected_hypervolume(blocks: Sequence[ArrayLike], draws: Sequence[int], reference: float) -> float:
    """The mean hypervolume over all choices of so many points of each block, exactly, in nats squared.

    A place of the box is reached by a choice unless all of a block's chosen points are among those that do not dominate
    the place, in every block. With d of a block's N points dominating it, that has the probability
    C(N - d, k) / C(N, k) in the block.

    Args:
        blocks: each (N, 2), lower is better; points at or beyond the reference are draws that reach nothing.
        draws: k of each block, 0 to its N; N of all gives the plain hypervolume.
        reference: both coordinates of the reference point.
    """
    clouds = [np.minimum(np.asarray(block, dtype=np.float64).reshape(-1, 2), reference) for block in blocks]
    every = np.concatenate([*clouds, [[reference, reference]]])
    x, y = np.unique(every[:, 0]), np.unique(every[:, 1])
    none_chosen = np.ones((len(x) - 1, len(y) - 1))
    for cloud, count in zip(clouds, draws, strict=True):
        is_below = [cloud[:, [axis]] <= edges[None, :-1] for axis, edges in enumerate((x, y))]
        dominating = np.einsum("ni,nj->ij", *is_below, dtype=np.int64)  # by cell, its lower left corner
        none_chosen *= 1.0 - _share_reached(len(cloud), count)[dominating]
    return float(np.diff(x) @ (1.0 - none_chosen) @ np.diff(y))


def score(blocks: Sequence[ArrayLike], draws: Sequence[int], reference: float) -> float:
    """Mean over the bounds on x of the lowest y reached, in nats per token (see the module); lower is better."""
    if list(draws) == [len(np.atleast_2d(block)) for block in blocks]:  # all of them: one cloud
        blocks = [np.concatenate([np.atleast_2d(block) for block in blocks])]
        draws = [len(np.atleast_2d(blocks[0]))]
    return reference - expected_hypervolume(blocks, draws, reference) / reference


def compare_frontiers(
    first: pl.DataFrame,
    second: pl.DataFrame,
    plane: tuple[str, str],
    inference: Inference,
    differing: Collection[str] = (),
) -> FrontierComparison:
    """Second arm's score minus the first's, paired over seeds, the best of as many chains in both arms.

    Each seed counts with the chains that all seeds have. The settings that both arms share make blocks; where one arm
    has more chains in a block (two dropouts where the other has none), its score is the mean over all choices of as
    many as the other has there. So both have the same sweep, and to have tried more is no advantage. Where the arms
    have no settings in common all chains make one block. A diverged chain is a choice, too, one that reaches nothing.

    Args:
        first: rows of the first arm in a results table.
        second: rows of the second arm.
        plane: the losses x and y.
        inference: level and the reference, ``worst_loss``.
        differing: setting columns in which the arms may differ; the others make the blocks.
    """
    arms = [_clouds(rows, plane, inference.worst_loss, differing) for rows in (first, second)]
    both = sorted(set(arms[0]) & set(arms[1]))
    settings = {seed: {(n, one.settings) for n, arm in enumerate(arms) for one in arm[seed]} for seed in both}
    seeds, kept = complete_part(settings)
    differences: dict[int, float] = {}
    gaps: dict[int, Gap] = {}
    used: list[_Chain] = []
    sizes, best_of = (0, 0), 0
    for seed in seeds:
        chains = [[one for one in arm[seed] if (n, one.settings) in kept] for n, arm in enumerate(arms)]
        if not all(chains):
            continue
        clouds, draws = _blocks(chains)
        scores = [score(side, draws, inference.worst_loss) for side in clouds]
        differences[seed] = scores[1] - scores[0]
        sizes, best_of = (len(chains[0]), len(chains[1])), sum(draws)
        hull, other = (lower_left_hull([one.point for one in side if not one.is_diverged]) for side in chains)
        if (drawn := gap(hull, other)) is not None:
            gaps[seed] = drawn
        used += [*chains[0], *chains[1]]
    return FrontierComparison(
        result=paired(differences, inference.level, inference.power),
        num_chains=sizes,
        best_of=best_of,
        num_seeds_left_out=len(both) - len(differences),
        gaps=gaps,
        finetune_ids=tuple(dict.fromkeys(one.finetune_id for one in used)),
        num_diverged=sum(one.is_diverged for one in used),
    )


def _blocks(chains: list[list["_Chain"]]) -> tuple[list[list[Points]], list[int]]:
    """Of each arm its points by block, in one order, and how many of each block are drawn: what both have."""
    common = {one.block for one in chains[0]} & {one.block for one in chains[1]}
    by_block: list[dict[object, list[tuple[float, float]]]] = [{}, {}]
    for side, found in zip(chains, by_block, strict=True):
        for one in side:
            if not common or one.block in common:
                found.setdefault(one.block if common else None, []).append(one.point)
    keys = list(by_block[0])
    draws = [min(len(found[key]) for found in by_block) for key in keys]
    return [[np.array(found[key]) for key in keys] for found in by_block], draws


class _Chain(NamedTuple):
    settings: tuple[object, ...]
    block: tuple[object, ...]  # those of the settings that both arms share
    point: tuple[float, float]
    is_diverged: bool
    finetune_id: str


def _clouds(
    rows: pl.DataFrame, plane: tuple[str, str], worst_loss: float, differing: Collection[str]
) -> dict[int, list[_Chain]]:
    """The chains of an arm by seed."""
    keys = [name for name in setting_columns(rows) if not name.endswith("_seed")]
    shared = [place for place, name in enumerate(keys) if name not in differing]
    own = rows.select(*keys, *plane, "status", "finetune_id", "seed")
    clouds: dict[int, list[_Chain]] = {}
    for *key, x, y, status, run_id, seed in with_worst(own, plane, worst_loss).drop_nulls(plane).rows():
        block = tuple(key[place] for place in shared)
        clouds.setdefault(seed, []).append(_Chain(tuple(key), block, (x, y), status == "diverged", run_id))
    return clouds


def _share_reached(num: int, best_of: int) -> NDArray[np.float64]:
    """For d = 0 to num dominating points, the part of the subsets that has one of them."""
    free = num - np.arange(num + 1)
    with np.errstate(invalid="ignore"):
        log_none = _log_choose(free, best_of) - _log_choose(np.array(num), best_of)
    return np.where(free >= best_of, 1.0 - np.exp(log_none), 1.0)


def _log_choose(n: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(np.maximum(n - k, 0) + 1)
