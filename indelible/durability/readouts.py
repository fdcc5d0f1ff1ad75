"""What one curve says: its loss at a gain, its half-life; and of many trials the worst of k. Pure numbers.

A curve is straight between two evaluations. Nothing is read off beyond its last one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """Where a curve first reaches a value: between point ``before`` and the next one."""

    before: int
    share: float  # 0 = at the point before, 1 = at the next one

    def read(self, values: ArrayLike) -> float:
        """What another quantity of the curve is there, on the straight line between the two points."""
        array = np.asarray(values, dtype=np.float64)
        if self.share == 0:
            return float(array[self.before])
        return float((1 - self.share) * array[self.before] + self.share * array[self.before + 1])


def first_reaching(values: ArrayLike, target: float) -> Crossing | None:
    """Where ``values`` first reach ``target`` from below; None where they never do."""
    array = np.asarray(values, dtype=np.float64)
    reached = np.flatnonzero(array >= target)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return Crossing(0, 0.0)
    low, high = array[at - 1], array[at]
    return Crossing(at - 1, float((target - low) / (high - low)))


def half_life(tokens: ArrayLike, kept: ArrayLike) -> float | None:
    """Tokens until half of the capability is left, None where more is left at the end.

    Between two points what is left falls by equal factors for equal tokens, which is exact for an exponential; where
    it falls to zero or below it falls along a straight line.

    Args:
        tokens: rising, from 0.
        kept: the share of the capability that is left, 1 at the start.
    """
    spent, left = np.asarray(tokens, dtype=np.float64), np.asarray(kept, dtype=np.float64)
    below = np.flatnonzero(left <= 0.5)
    if not len(below):
        return None
    at = int(below[0])
    if at == 0:
        return float(spent[0])
    high, low = left[at - 1], left[at]
    share = math.log(high / 0.5) / math.log(high / low) if low > 0 else (high - 0.5) / (high - low)
    return float(spent[at - 1] + share * (spent[at] - spent[at - 1]))


def worst_of(values: Sequence[float] | Numbers) -> Numbers:
    """The expected largest of k values drawn without replacement, for k = 1 .. n, exactly.

    The i-th smallest of n is the largest of k in C(i - 1, k - 1) of the C(n, k) draws. The weights follow from each
    other: from k to k + 1 the chance that the i-th is the largest is multiplied by (i - k) / (n - k) * (k + 1) / k.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    place = np.arange(1, n + 1, dtype=np.float64)
    weights = np.full(n, 1 / n) if n else np.zeros(0)
    found = np.empty(n)
    for k in range(1, n + 1):
        found[k - 1] = weights @ ordered
        if k < n:
            weights = weights * np.maximum(0.0, place - k) / (n - k) * (k + 1) / k
    return found


def share_kept(lost: ArrayLike, before: float, base: float) -> Numbers:
    """S = (L_base - L_ret) / (L_base - L_im), where ``lost`` is L_ret - L_im.

    Args:
        lost: nats per token.
        before: L_im, of the checkpoint itself.
        base: L_base, of the checkpoint before it had the capability; above ``before``.
    """
    return 1 - np.asarray(lost, dtype=np.float64) / (base - before)


def first_out_of_noise(low: Sequence[float | None], high: Sequence[float | None]) -> int | None:
    """The first point from which on the whole rest of a curve is out of the noise, by its intervals.

    The points are tested from the last to the first, each at the interval's level, and the first that is not out of
    zero ends it: in this fixed order the risk of naming any point wrongly is that one level.

    Args:
        low: lower ends by point; None where there is no interval.
        high: upper ends.

    Returns:
        index, None where even the last point is in the noise.
    """
    first = None
    for at in range(len(low) - 1, -1, -1):
        one, two = low[at], high[at]
        if one is None or two is None or one <= 0 <= two or (first is not None and (one > 0) != ((low[-1] or 0.0) > 0)):
            break
        first = at
    return first
