"""Planning numbers: what a number of seeds can detect, and how many new ones a question needs.

They describe the rule that decides (`indelible.statistics.inference`: the two-sided paired t test at a level), so that
an effect of the printed size is found with the printed power. They never decide anything.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.05  # two-sided, of each family of findings
POWER = 0.8
MAX_SEEDS_PLANNED = 999  # an effect that takes more is one to live with not knowing
_NUM_NODES = 200  # of the quadrature over the estimated spread
_NUM_POINTS = 101  # per axis, of the grid over what the seeds so far leave possible


@dataclass(frozen=True)
class NewSeeds:
    """How many seeds, beside those that are there, a question would need."""

    low: int | None  # None: with those that are there more than 999
    high: int | None  # likewise

    @property
    def text(self) -> str:
        """For people, e.g. ``4 to 40 new seeds``."""
        if self.low is None:
            return f"over {MAX_SEEDS_PLANNED} seeds"
        if self.high is None:
            return f"at least {self.low} new seed{'s' if self.low > 1 else ''}"
        if self.low == self.high:
            return f"{self.low} new seed{'s' if self.low > 1 else ''}"
        return f"{self.low} to {self.high} new seeds"


def detectable_effect(sd: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """The true mean difference that the two-sided paired t test over ``n`` seeds finds with ``power``.

    Args:
        sd: standard deviation of the differences between seeds.
        n: number of seeds, 2 or more.
        level: of the test, two-sided.
        power: probability of finding it.

    Returns:
        in the unit of ``sd``.
    """
    return sd / math.sqrt(n) * _shift_found(n - 1, level, power)


def detectable_margin(sd: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """The margin within which the interval over ``n`` seeds lies with ``power`` if nothing truly changes."""
    return sd / math.sqrt(n) * _margin_found(n - 1, level, power)


def detectable_unpaired(sd: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """`detectable_effect` of two arms of ``n`` seeds each, not paired, with standard deviation ``sd`` in each arm."""
    return sd * math.sqrt(2 / n) * _shift_found(2 * n - 2, level, power)


def seeds_needed(effect: float, sd: float, level: float = LEVEL, power: float = POWER) -> int | None:
    """The fewest seeds (2 or more) whose detectable effect is ``effect`` or smaller; None beyond 999.

    Args:
        effect: size of the true mean difference, 0 or more, in the unit of ``sd``.
        sd: true standard deviation of the differences between seeds.
        level: of the test, two-sided.
        power: probability of finding it.
    """
    if sd == 0:
        return 2 if effect > 0 else None
    counts = range(2, MAX_SEEDS_PLANNED + 1)
    # Power rises with every seed, so that the place can be found by halving.
    place = bisect_left(counts, True, key=lambda n: _power(effect / sd * math.sqrt(n), n - 1, level) >= power)
    return counts[place] if place < len(counts) else None


def new_seeds(distance: float, sd: float, n: int, level: float = LEVEL, power: float = POWER) -> NewSeeds:
    """How many new seeds would settle an effect, as the range that ``n`` seeds leave likely.

    Effect and spread are themselves estimates. Their ratio is taken at both quartiles of what the seeds so far leave
    possible (the distribution of the true ratio under a flat prior, which for normal differences is exact: mean over
    true spread is the observed ratio times chi / sqrt(n - 1), plus a normal of variance 1 / n). So the range holds the
    number needed about half of the time, and says no more than that.

    Args:
        distance: of the effect found from what would decide the question, e.g. from zero.
        sd: standard deviation of the differences found between seeds.
        n: seeds so far, 2 or more.
        level: of the rule that decides, two-sided.
        power: that the final number of seeds shall have.
    """
    if sd == 0:
        return NewSeeds(1, 1) if distance > 0 else NewSeeds(None, None)
    low, high = (_needed(ratio, level, power) for ratio in _likely_ratios(distance / sd, n))
    return NewSeeds(*(None if count is None else max(1, count - n) for count in (high, low)))


@cache
def part_power(power: float, num_parts: int, correlation: float = 0.0) -> float:
    """The power that each of several comparisons must have so that all are found with ``power``.

    Args:
        power: of all together.
        num_parts: comparisons that must all be found.
        correlation: between their estimates, 0 up to 1; comparisons with one common arm have 0.5. For normal ones.
    """
    if num_parts == 1:
        return power
    places = special.ndtri((np.arange(2_000) + 0.5) / 2_000)

    def missing(shift: float) -> float:
        each = special.ndtr((shift + math.sqrt(correlation) * places) / math.sqrt(1 - correlation))
        return float((each**num_parts).mean()) - power

    return float(special.ndtr(_root(missing, -5.0, 8.0)))


@cache
def _needed(ratio: float, level: float, power: float) -> int | None:
    return seeds_needed(ratio, 1.0, level, power)


def _likely_ratios(ratio: float, n: int) -> tuple[float, float]:
    """Quartiles of the true |effect| over the true sd."""
    places = (np.arange(_NUM_POINTS) + 0.5) / _NUM_POINTS
    scale = np.sqrt(_chi_square(places, n - 1) / (n - 1))
    possible = np.abs(ratio * scale[:, None] + special.ndtri(places)[None, :] / math.sqrt(n))
    low, high = np.quantile(possible, [0.25, 0.75])
    return float(low), float(high)


def _power(shift: float, degrees: int, level: float) -> float:
    """Of the two-sided t test where the true effect over its standard error is ``shift``."""
    weights, bound = _critical(degrees, level)
    return float(weights @ (special.ndtr(shift - bound) + special.ndtr(-bound - shift)))


@cache
def _shift_found(degrees: int, level: float, power: float) -> float:
    """The true effect over its standard error at which the two-sided t test has ``power``."""
    top = 10.0 + 2.0 * float(_critical(degrees, level)[1].max())
    return _root(lambda shift: _power(shift, degrees, level) - power, 0.0, top)


@cache
def _margin_found(degrees: int, level: float, power: float) -> float:
    """The margin over the standard error within which the whole interval lies with ``power`` at a true effect of 0."""
    weights, bound = _critical(degrees, level)

    def missing(margin: float) -> float:
        return float(weights @ (2 * special.ndtr(np.maximum(0.0, margin - bound)) - 1)) - power

    return _root(missing, 0.0, 20.0 + 2.0 * float(bound.max()))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is zero (regula falsi, Illinois); importing scipy.optimize takes longer than judging."""
    below, above = function(low), function(high)
    while high - low > 1e-10 * (1.0 + high):
        middle = low - below * (high - low) / (above - below)
        if not low < middle < high:
            middle = (low + high) / 2
        value = function(middle)
        if value == 0:
            return middle
        if value < 0:
            low, below, above = middle, value, above / 2
        else:
            high, above, below = middle, value, below / 2
        if high - low > 1e-10 * (1.0 + high) and abs(value) < 1e-13:
            return middle
    return (low + high) / 2


@cache
def _critical(degrees: int, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quadrature over the estimated spread: weights, and the critical value times estimated over true spread.

    (scipy's noncentral t gives NaN where one degree of freedom meets a small level.)
    """
    nodes, weights = _quadrature()
    critical = float(special.stdtrit(degrees, 1 - level / 2))
    return weights / 2, critical * np.sqrt(_chi_square((nodes + 1) / 2, degrees) / degrees)


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(_NUM_NODES)


def _chi_square(probabilities: NDArray[np.float64], degrees: int) -> NDArray[np.float64]:
    return np.asarray(2 * special.gammaincinv(degrees / 2, probabilities))
