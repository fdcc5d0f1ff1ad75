"""Signal or noise: one estimator for every claim, the paired t interval over seeds at one stated level.

A pair is two arms at one seed: the same initialisation and the same D_pre order, so that what a seed does to both
arms cancels. The unit of all inference is the seed: values of several settings at one seed are averaged first.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from indelible.errors import UserError
from indelible.statistics.planning import LEVEL, POWER, detectable_effect

Key = TypeVar("Key", bound=Hashable)
FLAT_MARGIN = 0.03  # nats per token, about 3 % of perplexity: a change within it is called flat
NO_SPREAD = 1e-12  # nats per token: differences that vary less are one number, up to the last bits
WORST_LOSS = 12.5  # nats per token; a uniform guess over 2**18 tokens has 12.48, and no vocabulary in use is larger


@dataclass(frozen=True)
class Inference:
    """What a study fixes before its runs about how it is judged.

    ``Inference(**mapping)`` takes the keys of a study file's ``inference``, e.g. ``{level: 0.05, flat_margin: 0.03}``.

    Raises:
        UserError: a value is out of its range.
    """

    level: float = LEVEL  # risk that a family of findings names anything wrong, two-sided
    power: float = POWER  # of detectable effects and of the seeds needed
    flat_margin: float = FLAT_MARGIN  # nats per token
    worst_loss: float = WORST_LOSS  # nats per token: what a diverged chain counts as, and the frontiers' reference

    def __post_init__(self) -> None:
        for name, top in (("level", 0.5), ("power", 1.0), ("flat_margin", math.inf), ("worst_loss", math.inf)):
            value = getattr(self, name)
            if not 0 < value < top:
                raise UserError(f"inference.{name} = {value:g}: expected a number between 0 and {top:g}.")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds. ``low`` and ``high`` are None when there is but one seed."""

    mean: float | None
    low: float | None
    high: float | None
    sd: float | None  # between seeds, n - 1 degrees of freedom
    n: int


@dataclass(frozen=True)
class Paired:
    """The mean over seeds of second minus first, with everything that its conclusion rests on (nats per token).

    Where the differences of all seeds are one and the same number (both arms diverged, losses were rounded, rows were
    copied) they say nothing of the noise between seeds: there is no interval and no p, as with one seed.
    """

    effect: float | None  # None: no seed has both
    low: float | None  # ends of the paired t interval at ``level``; None with one seed, and without spread
    high: float | None
    level: float  # two-sided; the interval covers with 1 - level
    p: float | None  # paired t test, two-sided
    sd: float | None  # of the differences, between seeds
    detectable: float | None  # planning number: the true effect that n seeds with this sd find with the stated power
    num_same_sign: int  # seeds whose difference has the sign of the mean
    num_other_sign: int  # seeds whose difference has the other one; a difference of zero has none
    n: int  # seeds
    differences: dict[int, float]  # by seed

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; None with one seed."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def standard_error(self) -> float | None:
        """Of the mean difference; None with one seed."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)

    def at(self, level: float, power: float = POWER) -> "Paired":
        """The same differences judged at another level."""
        return paired(self.differences, level, power)

    def conclusion(self) -> str:
        """``lower``, ``higher`` (the second arm, against the first) or ``inconclusive``: zero is in the interval."""
        if self.effect is None or self.p is None or self.p > self.level:
            return "inconclusive"
        return "lower" if self.effect < 0 else "higher"


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean and Student t interval, which covers with 1 - level, of independent values (one a seed); unit as given."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        return Estimate(None, None, None, None, 0)
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean, None, None, None, 1)
    sd = float(array.std(ddof=1))
    half = t_quantile(1 - level / 2, len(array) - 1) * sd / math.sqrt(len(array))
    return Estimate(mean, mean - half, mean + half, sd, len(array))


def paired(differences: Mapping[int, float], level: float = LEVEL, power: float = POWER) -> Paired:
    """Summarises differences (second arm minus first), one a seed, by the paired t test at ``level``.

    Raises:
        UserError: a difference is not finite.
    """
    values = np.array(list(differences.values()), dtype=np.float64)
    if not np.isfinite(values).all():
        seeds = ", ".join(str(seed) for seed, value in differences.items() if not math.isfinite(value))
        raise UserError(f"seed {seeds}: a loss is not finite; a chain whose loss is NaN or infinite is diverged.")
    found = mean_interval(values, level)
    if found.sd is not None and found.sd <= NO_SPREAD:
        found = Estimate(found.mean, None, None, None, found.n)
    signs = np.sign(values) * np.sign(found.mean or 0.0)
    p = detectable = None
    if found.sd is not None and found.mean is not None:
        p = t_test_p(found.mean, found.sd, found.n)
        detectable = detectable_effect(found.sd, found.n, level, power)
    return Paired(
        effect=found.mean, low=found.low, high=found.high, level=level, p=p, sd=found.sd, detectable=detectable,
        num_same_sign=int((signs > 0).sum()), num_other_sign=int((signs < 0).sum()), n=found.n,
        differences=dict(differences),
    )  # fmt: skip


def t_test_p(effect: float, sd: float, n: int) -> float:
    """Two-sided p of the one-sample t test that the mean is zero; 0 or 1 when the values do not differ at all."""
    if sd == 0:
        return float(effect == 0)
    return float(2 * special.stdtr(n - 1, -abs(effect) * math.sqrt(n) / sd))


def equivalence_p(result: Paired, margin: float) -> tuple[float, float] | None:
    """p values of "within ±margin" (two one-sided t tests) and of "outside of it"; None with one seed.

    Both are doubled, so that the first is at most the level just when the interval at that level lies within the
    margin: against the usual two one-sided tests at the same level this is the stricter rule.
    """
    if result.effect is None or result.sd is None:
        return None
    room = margin - abs(result.effect)
    statistic = room * math.sqrt(result.n) / result.sd
    inside = 2 * float(special.stdtr(result.n - 1, -statistic))
    return min(1.0, inside), min(1.0, 2 - inside)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: bounds the chance of one false finding in the family. None stays None."""
    known = [(p, position) for position, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, position) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[position] = highest
    return adjusted


def holm_levels(p_values: Mapping[Key, float], level_of: Callable[[int], float]) -> dict[Key, float]:
    """The level at which Holm's procedure judges each member of a family.

    The smallest p is judged at level / m, the next at level / (m - 1), and so on; from the first that fails on, all
    are judged at its level. So ``p <= level`` of a member says just what the procedure decides, and the interval at
    that level excludes zero just when it is found.

    Args:
        p_values: of the family's members, by any key.
        level_of: the level of one of m hypotheses, level / m; at a look of a sequential design, its nominal level.
    """
    levels: dict[Key, float] = {}
    left = len(p_values)
    has_failed = False
    for key, p in sorted(p_values.items(), key=lambda item: item[1]):
        levels[key] = level_of(left)
        has_failed = has_failed or p > levels[key]
        left -= 0 if has_failed else 1
    return levels


@cache
def t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Of Student's t distribution."""
    return float(special.stdtrit(degrees_of_freedom, probability))
