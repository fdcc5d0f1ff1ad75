"""Frontiers of two losses, both to be made small: Pareto set, lower-left convex hull, and what is measured on them."""

from dataclasses import dataclass

import moocore
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]  # (N, 2)


@dataclass(frozen=True)
class Gap:
    """The vertical distance from one frontier to another, second minus first, over the x range that both cover."""

    mean: float  # nats per token; negative: the second lies lower
    low: float  # the smallest distance
    high: float  # the largest
    start: float  # the x range
    end: float
    second_lower_share: float  # part of the range, 0 to 1, where the second lies strictly lower


@dataclass(frozen=True)
class EdgeFlag:
    """A frontier ends at a chain whose setting is the smallest or largest of the sweep: the frontier may go on."""

    end: str  # "low_x" or "low_y": the leftmost or the lowest end
    setting: str  # the swept column
    value: float
    side: str  # "smallest" or "largest"


def pareto_set(points: ArrayLike) -> Points:
    """The points that no other point beats or equals in both losses, sorted by x (paper, section 3.1).

    Args:
        points: (N, 2); lower is better in both columns. Equal points count once.

    Returns:
        (M, 2), x rising and y falling strictly.
    """
    sorted_points = _sorted(points)
    if len(sorted_points) == 0:
        return sorted_points
    best_before = np.minimum.accumulate(sorted_points[:, 1])
    keep = np.ones(len(sorted_points), dtype=bool)
    keep[1:] = sorted_points[1:, 1] < best_before[:-1]
    return sorted_points[keep]


def lower_left_hull(points: ArrayLike) -> Points:
    """The vertices of the convex hull that face lower left, sorted by x (what the paper's figures draw).

    It goes from the leftmost point (the lowest of these) to the lowest point (the leftmost of these). A point on the
    line between two vertices is not a vertex.

    Returns:
        (M, 2), x rising and y falling strictly, slopes rising strictly.
    """
    hull: list[NDArray[np.float64]] = []
    for point in pareto_set(points):
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    return np.array(hull).reshape(-1, 2)


def hypervolume(points: ArrayLike, reference: tuple[float, float]) -> float:
    """The area that the points dominate within the box below ``reference`` (moocore), in nats squared.

    Points that do not lie below the reference in both losses add nothing. Areas can be compared only at one reference.
    """
    array = _sorted(points)
    return float(moocore.hypervolume(array, ref=np.asarray(reference))) if len(array) else 0.0


def additive_epsilon(points: ArrayLike, other: ArrayLike) -> float:
    """The least that must be taken off both losses of ``points`` so that no point of ``other`` beats them (nats)."""
    return float(moocore.epsilon_additive(_sorted(points), ref=_sorted(other)))


def attainment(points: ArrayLike, seeds: ArrayLike, fractions: tuple[float, ...] = (0.0, 0.5, 1.0)) -> list[Points]:
    """Empirical attainment surfaces: what at least one, half, and all of the seeds attain (moocore, Fonseca's EAF).

    Args:
        points: (N, 2), lower is better.
        seeds: (N,) the seed that each point belongs to.
        fractions: part of the seeds; 0 stands for one seed at least.

    Returns:
        for each fraction the corners of its staircase, sorted by x.
    """
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    _, sets = np.unique(np.asarray(seeds), return_inverse=True)
    num_seeds = int(sets.max()) + 1
    surfaces: list[Points] = []
    for fraction in fractions:
        percentile = 100 * max(1, round(fraction * num_seeds + 1e-9)) / num_seeds
        surface = moocore.eaf(array[np.argsort(sets, kind="stable")], np.sort(sets) + 1, percentiles=[percentile])
        surfaces.append(_sorted(surface[:, :2]))
    return surfaces


def gap(first: ArrayLike, second: ArrayLike, start: float = -np.inf, end: float = np.inf) -> Gap | None:
    """Compares two frontiers as polylines: second minus first, exactly integrated between their vertices.

    For drawing, and for what the means say at face value. It decides nothing: the range is an outcome, and more chains
    may widen it.

    Args:
        first: (N, 2) vertices sorted by x.
        second: (M, 2) vertices sorted by x.
        start: compare from this x on, at the earliest.
        end: compare up to this x, at the latest.

    Returns:
        None when the frontiers have no x in common; nothing is extrapolated. Where they have but one (one of them is a
        single point), the distance there.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(one) == 0 or len(two) == 0:
        return None
    start, end = max(start, one[0, 0], two[0, 0]), min(end, one[-1, 0], two[-1, 0])
    if start > end:
        return None
    inner = np.concatenate([one[:, 0], two[:, 0]])
    x = np.unique(np.concatenate([[start, end], inner[(inner > start) & (inner < end)]]))
    distance = np.interp(x, two[:, 0], two[:, 1]) - np.interp(x, one[:, 0], one[:, 1])
    if start == end:  # one place alone
        value = float(distance[0])
        return Gap(value, value, value, float(start), float(end), float(value < 0))
    return Gap(
        mean=float(np.trapezoid(distance, x) / (end - start)),
        low=float(distance.min()),
        high=float(distance.max()),
        start=float(start),
        end=float(end),
        second_lower_share=_share_below_zero(x, distance),
    )


def edge_flags(table: pl.DataFrame, x: str, y: str, swept: list[str]) -> list[EdgeFlag]:
    """Looks at both ends of the frontier of ``table`` for settings at the edge of the swept grid.

    Args:
        table: chains of one arm, with the two losses and the swept columns.
        x: loss on the horizontal axis.
        y: loss on the vertical axis.
        swept: numeric setting columns; those with fewer than two values are skipped.
    """
    present = table.drop_nulls([x, y])
    if present.height == 0:
        return []
    ends = {"low_x": present.sort(x, y).row(0, named=True), "low_y": present.sort(y, x).row(0, named=True)}
    flags = []
    for name in swept:
        values = table[name].drop_nulls()
        if values.n_unique() < 2:
            continue
        smallest, largest = values.min(), values.max()
        for end, row in ends.items():
            if row[name] in (smallest, largest):
                flags.append(EdgeFlag(end, name, row[name], "smallest" if row[name] == smallest else "largest"))
    return flags


def _share_below_zero(x: NDArray[np.float64], distance: NDArray[np.float64]) -> float:
    """The part of [x[0], x[-1]] where the piecewise linear ``distance`` is negative."""
    total = 0.0
    for left, right, width in zip(distance[:-1], distance[1:], np.diff(x), strict=True):
        if left < 0 and right < 0:
            total += width
        elif left < 0 or right < 0:
            total += width * min(left, right) / (min(left, right) - max(left, right))
    return float(total / (x[-1] - x[0]))


def _sorted(points: ArrayLike) -> Points:
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return array[np.lexsort((array[:, 1], array[:, 0]))]


def _turn(origin: NDArray[np.float64], middle: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """Twice the signed area of the triangle; positive when the way from origin over middle to end turns left."""
    first, second = middle - origin, end - origin
    return float(first[0] * second[1] - first[1] * second[0])
