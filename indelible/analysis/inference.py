"""Signal or noise: intervals over seeds, paired differences, and the smallest effect that a design can see.

A pair is two arms at one seed: the same initialisation and the same D_pre order, so that what a seed does to both
arms cancels. The unit of all inference is the seed: values of several settings at one seed are averaged first.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy import optimize, stats

from indelible.analysis.arms import TREATMENT
from indelible.analysis.columns import setting_columns

CONFIDENCE = 0.95
POWER = 0.8
NUM_RESAMPLES = 9_999
MIN_SEEDS_FOR_BARS = 3  # with two, t(0.975; 1) = 12.7: an interval wider than any picture
MIN_SEEDS_FOR_BCA = 10  # below, the acceleration of BCa rests on too few values: percentile
MAX_SEEDS_PLANNED = 999  # an effect that takes more is one to live with not knowing


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
    """The mean over seeds of second minus first, with everything that its conclusion rests on (nats per token)."""

    effect: float | None  # None: no seed has both
    bootstrap: tuple[float, float] | None  # of the mean difference, over seeds; None with one seed
    bootstrap_method: str  # "percentile" or "BCa"
    student: tuple[float, float] | None  # paired t interval
    sd: float | None  # of the differences, between seeds
    detectable: float | None  # smallest effect that n seeds with this sd show with the stated power
    num_same_sign: int  # seeds whose difference has the sign of the mean
    n: int  # seeds
    p: float | None  # paired t test, two-sided
    differences: dict[int, float]  # by seed

    def seeds_to_tell(self, distance: float | None = None) -> int | None:
        """About how many seeds would settle what these leave open, if their mean and their spread are the true ones.

        Args:
            distance: from what is to be excluded, nats per token; default: the effect's own, from zero.

        Returns:
            the fewest seeds whose detectable effect is no larger than ``distance``; None with less than two seeds, when
            as many as there are would do (so, too, where `conclusion` names a direction), or beyond 999.
        """
        if self.effect is None or self.sd is None:
            return None
        needed = seeds_needed(abs(self.effect) if distance is None else distance, self.sd)
        return needed if needed is not None and needed > self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The wider reading: from the lower of both lower ends to the higher of both higher ends.

        A bootstrap over three seeds cannot leave the range of three numbers and covers far less than it says, so that
        the t interval stands beside it and both must agree.
        """
        if self.bootstrap is None or self.student is None:
            return None
        return min(self.bootstrap[0], self.student[0]), max(self.bootstrap[1], self.student[1])

    def conclusion(self, p_adjusted: float | None = None, confidence: float = CONFIDENCE) -> str:
        """``lower``, ``higher`` (the second arm, against the first) or ``inconclusive``.

        A direction is named only if the interval leaves zero out, the effect is at least the detectable one and,
        where a family-wise p is given, it is at most 1 - confidence.
        """
        interval = self.interval
        if interval is None or self.effect is None or self.detectable is None:
            return "inconclusive"
        if interval[0] <= 0 <= interval[1] or abs(self.effect) < self.detectable:
            return "inconclusive"
        if p_adjusted is not None and p_adjusted > 1 - confidence:
            return "inconclusive"
        return "lower" if self.effect < 0 else "higher"


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean and Student t interval of independent values (one a seed); unit as given."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        return Estimate(None, None, None, None, 0)
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean, None, None, None, 1)
    sd = float(array.std(ddof=1))
    half = float(_t_quantile(0.5 + confidence / 2, len(array) - 1)) * sd / math.sqrt(len(array))
    return Estimate(mean, mean - half, mean + half, sd, len(array))


def paired(differences: Mapping[int, float], confidence: float = CONFIDENCE, power: float = POWER) -> Paired:
    """Summarises differences (second arm minus first), one a seed.

    The bootstrap (scipy, 9,999 resamples of the seeds, fixed stream) is BCa from ten seeds on and percentile below.
    """
    values = np.array(list(differences.values()), dtype=np.float64)
    n = len(values)
    method = "BCa" if n >= MIN_SEEDS_FOR_BCA and np.ptp(values) > 0 else "percentile"
    if n == 0:
        return Paired(None, None, method, None, None, None, 0, 0, None, {})
    effect = float(values.mean())
    same_sign = int((np.sign(values) == np.sign(effect)).sum())
    if n == 1:
        return Paired(effect, None, method, None, None, None, same_sign, 1, None, dict(differences))
    student = mean_interval(values, confidence)
    assert student.sd is not None
    assert student.low is not None
    assert student.high is not None
    return Paired(
        effect=effect,
        bootstrap=_bootstrap(values, confidence, method),
        bootstrap_method=method,
        student=(student.low, student.high),
        sd=student.sd,
        detectable=detectable_effect(student.sd, n, confidence, power),
        num_same_sign=same_sign,
        n=n,
        p=t_test_p(effect, student.sd, n),
        differences=dict(differences),
    )


def t_test_p(effect: float, sd: float, n: int) -> float:
    """Two-sided p of the one-sample t test that the mean is zero; 0 or 1 when the values do not differ at all."""
    if sd == 0:
        return float(effect == 0)
    return float(2 * stats.t.sf(abs(effect) * math.sqrt(n) / sd, n - 1))


def equivalence_p(result: Paired, margin: float) -> tuple[float, float] | None:
    """p values of "within ±margin" (two one-sided t tests) and of "outside of it"; None with one seed.

    Both are doubled, so that the first is at most 0.05 just when the 95 % t interval lies within the margin.
    """
    if result.effect is None or result.sd is None:
        return None
    room = margin - abs(result.effect)
    if result.sd == 0:
        return (0.0, 1.0) if room >= 0 else (1.0, 0.0)
    statistic = room * math.sqrt(result.n) / result.sd
    inside = 2 * float(stats.t.sf(statistic, result.n - 1))
    return min(1.0, inside), min(1.0, 2 - inside)


def detectable_effect(sd: float, n: int, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The smallest true mean difference that a two-sided paired t test over ``n`` seeds finds with ``power``.

    Args:
        sd: standard deviation of the differences between seeds.
        n: number of seeds, 2 or more.
    """
    return sd / math.sqrt(n) * _detectable_shift(n - 1, confidence, power)


def seeds_needed(effect: float, sd: float, confidence: float = CONFIDENCE, power: float = POWER) -> int | None:
    """The fewest seeds (2 or more) whose detectable effect is ``effect`` or smaller; None beyond 999.

    Args:
        effect: size of the true mean difference, 0 or more, in the unit of ``sd``.
        sd: standard deviation of the differences between seeds.
    """
    counts = range(2, MAX_SEEDS_PLANNED + 1)
    # What can be detected shrinks with every seed, so that the place can be found by halving.
    place = bisect_left(counts, True, key=lambda n: detectable_effect(sd, n, confidence, power) <= effect)
    return counts[place] if place < len(counts) else None


def detectable_unpaired(sd: float, n: int, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The same for two arms of ``n`` seeds each that are not paired, with standard deviation ``sd`` in each arm."""
    return sd * math.sqrt(2 / n) * _detectable_shift(2 * n - 2, confidence, power)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: bounds the chance of one false finding in the family. None stays None."""
    known = [(p, position) for position, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, position) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[position] = highest
    return adjusted


def noise_floor(table: pl.DataFrame, loss: str) -> pl.DataFrame:
    """The spread between seeds, arm by arm: nothing is pooled over arms, for the noise depends on the mixture.

    Returns:
        one row an arm that has settings with two seeds or more: the treatment columns, ``sd`` (root of the mean
        variance over the arm's settings, nats per token), ``num_settings``, ``degrees_of_freedom``.
    """
    settings = setting_columns(table)
    done = table.filter(pl.col("status") == "done").drop_nulls(loss)
    per_setting = (
        done.group_by(settings, maintain_order=True)
        .agg(pl.col(loss).var().alias("variance"), pl.len().alias("n"))
        .filter(pl.col("n") >= 2)
    )
    degrees = pl.col("n") - 1
    return (
        per_setting.group_by([name for name in TREATMENT if name in settings], maintain_order=True)
        .agg(
            ((pl.col("variance") * degrees).sum() / degrees.sum()).sqrt().alias("sd"),
            pl.len().cast(pl.Int64).alias("num_settings"),
            degrees.sum().cast(pl.Int64).alias("degrees_of_freedom"),
        )
    )  # fmt: skip


def _bootstrap(values: np.ndarray, confidence: float, method: str) -> tuple[float, float]:
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=NUM_RESAMPLES,
        method=method, rng=np.random.default_rng(0), vectorized=True,
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@cache
def _t_quantile(probability: float, degrees_of_freedom: int) -> float:
    return float(stats.t.ppf(probability, degrees_of_freedom))


@cache
def _detectable_shift(degrees: int, confidence: float, power: float) -> float:
    """The true effect over its standard error at which the two-sided t test has ``power``."""
    critical = _t_quantile(0.5 + confidence / 2, degrees)
    # The estimated sd over the true one, at evenly spaced probabilities: scipy's noncentral t gives NaN out here.
    probabilities = (np.arange(20_000) + 0.5) / 20_000
    bound = critical * np.sqrt(stats.chi2.ppf(probabilities, degrees) / degrees)

    def missing(shift: float) -> float:
        found = stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)
        return float(found.mean()) - power

    return float(optimize.brentq(missing, 0.0, 10.0 + 10.0 * critical))
