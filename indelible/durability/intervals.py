"""Intervals of an audit: over seeds of fine-tuning and held-out documents, or over checkpoints of a recipe.

With one checkpoint a side the statement is about these files: what varies is the seed of fine-tuning, and which
documents happen to be held out. With several it is about the recipe that made them, and the checkpoint is the unit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from indelible.durability.request import LEVEL
from indelible.statistics.inference import NO_SPREAD, mean_interval


@dataclass(frozen=True)
class Estimate:
    """A mean over units with its interval; the ends are None with one unit, and where the units do not differ at all.

    Units of one and the same value (all trials diverged, say) say nothing of the noise between them.
    """

    value: float
    low: float | None
    high: float | None
    n: int  # units
    se_units: float | None = None  # standard error between units
    se_documents: float = 0.0  # what the choice of held-out documents adds; 0 where it is not counted
    p: float | None = None  # of the test that the mean is zero, two-sided
    level: float = LEVEL


def estimate(values: ArrayLike, se_documents: float = 0.0, documents: int = 0, level: float = LEVEL) -> Estimate:
    """The mean of one value a unit, and its t interval.

    The two errors are independent: the halves of their own t intervals add in squares. (One quantile for the sum, with
    Satterthwaite's degrees of freedom, covers too rarely with three units: where these happen to lie close together,
    it takes the documents' many degrees for them as well.)

    Args:
        values: one a unit.
        se_documents: standard error of the mean by held-out documents, common to all units.
        documents: number of held-out documents behind it.
        level: two-sided; the interval covers with 1 - level.
    """
    array = np.asarray(values, dtype=np.float64)
    found = mean_interval(array, level)
    assert found.mean is not None, "an estimate needs a value"
    if found.sd is None or found.sd <= NO_SPREAD:
        return Estimate(found.mean, None, None, found.n, se_documents=se_documents, level=level)
    between = found.sd / math.sqrt(found.n)
    return _with_error(found.mean, between, found.n - 1, found.n, se_documents, documents, level)


def difference(
    first: ArrayLike, second: ArrayLike, se_documents: float = 0.0, documents: int = 0, level: float = LEVEL
) -> Estimate:
    """First minus second, with its t interval.

    Units are paired in their order where both sides have as many (the same seeds of fine-tuning, or checkpoints that
    are given in the order of their training seeds); else the sides are independent (Welch).
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(one) == len(two):
        return estimate(one - two, se_documents, documents, level)
    value = float(one.mean() - two.mean())
    if min(len(one), len(two)) < 2 or max(one.std(), two.std()) <= NO_SPREAD:
        return Estimate(value, None, None, min(len(one), len(two)), se_documents=se_documents, level=level)
    parts = [float(side.var(ddof=1)) / len(side) for side in (one, two)]
    degrees = _satterthwaite([(math.sqrt(part), len(side) - 1) for part, side in zip(parts, (one, two), strict=True)])
    count = min(len(one), len(two))
    return _with_error(value, math.sqrt(sum(parts)), degrees, count, se_documents, documents, level)


def _with_error(
    value: float, between: float, degrees: int, n: int, se_documents: float, documents: int, level: float
) -> Estimate:
    parts = [(between, degrees)]
    if se_documents > 0 and documents > 1:
        parts.append((se_documents, documents - 1))
    half = _half(parts, level)
    return Estimate(value, value - half, value + half, n, between, se_documents, _p(abs(value), parts), level)


def _half(parts: Sequence[tuple[float, int]], level: float) -> float:
    """Half the length of the interval: the halves of the parts, each with its own quantile, add in squares."""
    return math.hypot(*(float(special.stdtrit(degrees, 1 - level / 2)) * error for error, degrees in parts))


def _p(distance: float, parts: Sequence[tuple[float, int]]) -> float:
    """The level at which the interval just reaches zero."""
    if all(error == 0 for error, _ in parts):
        return float(distance == 0)
    if len(parts) == 1:
        ((error, degrees),) = parts
        return float(2 * special.stdtr(degrees, -distance / error))
    low, high = -700.0, 0.0  # of the level's logarithm; the half falls as it rises
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _half(parts, math.exp(middle)) > distance else (low, middle)
    return math.exp((low + high) / 2)


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> int:
    """Degrees of freedom of a sum of independent errors, each with its own, rounded down; at least 1."""
    total = sum(error**2 for error, _ in parts)
    if total == 0:
        return min(degrees for _, degrees in parts)
    return max(1, math.floor(total**2 / sum(error**4 / degrees for error, degrees in parts)))
