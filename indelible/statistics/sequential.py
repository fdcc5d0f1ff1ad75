"""Seeds bought one block after the other, with the error of all looks under the stated level.

A design names the numbers of seeds at which one looks. At each look the claim's own p is compared with a nominal
level; supported or contradicted, one stops, and where the seeds still to come would hardly settle it, one stops, too
(futile). The nominal levels come from alpha spending (Lan and DeMets' Pocock-type function, over the seeds) and from
Jennison and Turnbull's significance-level approach: what is calibrated is the p of the t test, by simulation, so that
it holds for three seeds as for twenty-four, where boundaries for normal statistics do not. Under no effect the t
statistics of all looks have one joint distribution, whatever the spread, so that one simulation serves every study.

Everything here is pure: numbers in, numbers out. To run a study until a claim is settled::

    design = sequential_design(looks=(3, 5, 8, 12, 16, 24), level=0.05)
    for number, count in enumerate(design.looks):
        ...                                             # run the study with `count` seeds, and judge it
        if decide(design, number, p_support, p_against) != OPEN:
            break

`indelible.claims.looks` does the judging, keeps the record, and replays a finished table seed by seed.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from indelible.errors import UserError
from indelible.statistics.planning import LEVEL, POWER

LOOKS = (3, 5, 8, 12, 16, 24)  # seeds at which one looks
FUTILE_BELOW = 0.1  # stop where a later look settles the claim with less than this probability
MAX_SEEDS = 500  # of a design: each simulated study holds that many numbers
NUM_PATHS = 200_000  # simulated studies behind the nominal levels: the risk is known to 0.0005
_NUM_FUTURES = 4_000  # behind the limits of futility, which no error rests on
SUPPORTED, CONTRADICTED, FUTILE, OPEN = "supported", "contradicted", "futile", "open"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """When one looks, and what decides then."""

    looks: tuple[int, ...]  # seeds, rising; the last one is the most that is bought
    level: float  # two-sided, of all looks together
    nominal: tuple[float, ...]  # by look: the p at or below which the claim is settled
    futile: tuple[float | None, ...]  # by look: the p at or above which one stops; None: never, and at the last look


def sequential_design(looks: tuple[int, ...] = LOOKS, level: float = LEVEL) -> Design:
    """Calibrates a design; the same arguments give the same numbers.

    Args:
        looks: seeds at each look, rising, the first 2 or more.
        level: two-sided, that all looks together keep. For a member of a family of m findings ask for level / m.

    Raises:
        UserError: the looks do not rise, begin below 2 or end above `MAX_SEEDS`.
    """
    if not looks or looks[0] < 2 or any(one >= other for one, other in pairwise(looks)):
        raise UserError(f"looks {', '.join(map(str, looks))}: expected rising numbers of seeds, the first 2 or more.")
    if looks[-1] > MAX_SEEDS:
        raise UserError(f"looks {', '.join(map(str, looks))}: at most {MAX_SEEDS} seeds can be planned for.")
    return _calibrated(tuple(looks), level)


def seeds_wanted(design: Design, num_looks_done: int) -> int | None:
    """How many seeds the next look needs; None after the last one."""
    return design.looks[num_looks_done] if num_looks_done < len(design.looks) else None


def decide(
    design: Design,
    look: int,
    p_support: float | None,
    p_against: float | None,
    num_support: int = 1,
    num_against: int = 1,
) -> str:
    """What follows at a look: supported, contradicted, futile or open (go on; after the last look: not settled).

    Args:
        design: the plan.
        look: its number, from 0.
        p_support: of the claim, of the comparison by itself; None where there is none.
        p_against: of its opposite.
        num_support: comparisons, one of which is enough for the claim: each has a part of the level (Bonferroni).
        num_against: comparisons, one of which is enough against it.
    """
    sides = [(p_support, num_support, SUPPORTED), (p_against, num_against, CONTRADICTED)]
    for p, num_looks, decision in sides:
        if p is not None and p * num_looks <= design.nominal[look]:
            return decision
    known = [is_hopeless(design, look, p, num_looks) for p, num_looks, _ in sides if p is not None]
    return FUTILE if known and all(known) else OPEN


def is_hopeless(design: Design, look: int, p: float, num_looks: int = 1) -> bool:
    """Whether one of ``num_looks`` comparisons, of which one is enough, will hardly be found at a later look.

    It is judged by itself at its part of the level: a corrected p against the limit of one comparison would give up
    far too early (a p of 0.24, which is often found later, is 0.72 when it is corrected for three).
    """
    own = design if num_looks == 1 else sequential_design(design.looks, design.level / num_looks)
    limit = own.futile[look]
    return limit is not None and p >= limit


def detectable_shift(design: Design, power: float = POWER) -> float:
    """The true effect, in standard deviations of the differences, that the design finds with ``power``.

    Stops for futility included. From 50,000 simulated studies of normal differences: the power is known to 0.002.
    """
    return _detectable(design, power)


def simulate(design: Design, values: Array) -> tuple[Array, Array]:
    """Runs the design over many studies at once.

    Args:
        design: the plan.
        values: (studies, seeds) differences, at least as many seeds as the last look.

    Returns:
        for each study the sign of what was found (0: nothing), and the seeds bought.
    """
    statistics = _t_statistics(values, design.looks)
    found, bought = np.zeros(len(values)), np.full(len(values), float(design.looks[-1]))
    is_running = np.ones(len(values), dtype=bool)
    for number, count in enumerate(design.looks):
        p = _p_values(statistics[:, number], count)
        is_found = is_running & (p <= design.nominal[number])
        futile = design.futile[number]
        is_futile = is_running & ~is_found & (p >= (futile if futile is not None else np.inf))
        found[is_found] = np.sign(statistics[is_found, number])
        bought[is_found | is_futile] = count
        is_running &= ~(is_found | is_futile)
    return found, bought


@cache
def _calibrated(looks: tuple[int, ...], level: float) -> Design:
    paths = _paths(looks[-1])
    statistics = _t_statistics(paths, looks)
    is_running = np.ones(len(paths), dtype=bool)
    nominal: list[float] = []
    spent = 0.0
    for number, count in enumerate(looks):
        p = _p_values(statistics[:, number], count)
        due = _spent(count / looks[-1], level)
        # The first look needs no simulation, and a quantile of few paths would be rough.
        limit = due if number == 0 else _quantile_of_running(p, is_running, due - spent)
        nominal.append(limit)
        is_running &= p > limit
        spent = due
    futile = [_futile_p(looks, tuple(nominal), number) for number in range(len(looks) - 1)]
    return Design(looks, level, tuple(nominal), (*futile, None))


def _spent(information: float, level: float) -> float:
    """Lan and DeMets' Pocock-type spending function."""
    return level * math.log(1 + (math.e - 1) * information)


def _quantile_of_running(p: Array, is_running: NDArray[np.bool_], share: float) -> float:
    """The p that ``share`` of all paths have at most, among those that run still."""
    running = np.sort(p[is_running])
    return float(running[min(len(running) - 1, max(0, round(share * len(p)) - 1))])


def _futile_p(looks: tuple[int, ...], nominal: tuple[float, ...], number: int) -> float | None:
    """The p from which on a later look settles the claim with a probability below `FUTILE_BELOW`, by halving."""
    low, high = 0.0, 12.0  # |t|
    if _chance_later(low, looks, nominal, number) >= FUTILE_BELOW:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        if _chance_later(middle, looks, nominal, number) < FUTILE_BELOW:
            low = middle
        else:
            high = middle
    return float(2 * special.stdtr(looks[number] - 1, -low))


def _chance_later(statistic: float, looks: tuple[int, ...], nominal: tuple[float, ...], number: int) -> float:
    """How likely a later look settles it, given t so far: the true effect and spread as far as they are known."""
    count = looks[number]
    generator = np.random.default_rng(1)
    sigma = np.sqrt((count - 1) / generator.chisquare(count - 1, _NUM_FUTURES))  # the spread so far is 1
    mean = statistic / math.sqrt(count) + sigma * generator.standard_normal(_NUM_FUTURES) / math.sqrt(count)
    future = mean[:, None] + sigma[:, None] * generator.standard_normal((_NUM_FUTURES, looks[-1] - count))
    sums = statistic * math.sqrt(count) + future.cumsum(axis=1)
    squares = (count - 1) + statistic**2 + (future**2).cumsum(axis=1)
    is_found = np.zeros(_NUM_FUTURES, dtype=bool)
    for later, limit in zip(looks[number + 1 :], nominal[number + 1 :], strict=True):
        place = later - count - 1
        is_found |= _p_values(_t_of_sums(sums[:, place], squares[:, place], later), later) <= limit
    return float(is_found.mean())


@cache
def _detectable(design: Design, power: float) -> float:
    paths = _paths(design.looks[-1])[:50_000]
    low, high = 0.0, 20.0
    for _ in range(16):
        middle = (low + high) / 2
        if (simulate(design, paths + middle)[0] > 0).mean() < power:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@cache
def _paths(num_seeds: int) -> Array:
    return np.random.default_rng(0).standard_normal((NUM_PATHS, num_seeds))


def _t_statistics(values: Array, looks: tuple[int, ...]) -> Array:
    """(studies, looks)"""
    sums, squares = values.cumsum(axis=1), (values**2).cumsum(axis=1)
    return np.column_stack([_t_of_sums(sums[:, n - 1], squares[:, n - 1], n) for n in looks])


def _t_of_sums(sums: Array, squares: Array, count: int) -> Array:
    variance = np.maximum(squares - sums**2 / count, 1e-300) / (count - 1)
    return sums / np.sqrt(count * variance)


def _p_values(statistics: Array, count: int) -> Array:
    return np.asarray(2 * special.stdtr(count - 1, -np.abs(statistics)))
