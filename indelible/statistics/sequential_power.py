"""What a sequential design finds, of claims of one comparison and of several: planning numbers, by simulation.

A claim of several comparisons is found less easily: all that must hold have to be found at the same look, and one stops
for futility while any of them looks hopeless. Both are in the simulation, which decides as `sequential.decide` does.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from indelible.statistics.planning import POWER
from indelible.statistics.sequential import Design, sequential_design

NUM_STUDIES = 20_000  # the power is known to 0.003
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Of what comparisons a claim is made."""

    num_parts: int = 1  # that must all hold
    num_looks: int = 1  # of which one is enough: each has a part of the level
    correlation: float = 0.0  # between differences: 0.5 where they have an arm in common
    is_margin: bool = False  # whether the intervals must lie within a margin, rather than beside zero


@cache
def detectable_in_looks(design: Design, shape: Shape, power: float = POWER, members: int = 1) -> float:
    """The true effect (of every part; of a margin: the margin, with no effect) that all looks together find.

    Args:
        design: the plan.
        shape: what must be found.
        power: probability of finding it, stops for futility included.
        members: findings that share the level of the design: this one is judged at its part, and given up by the
            limits of the whole.

    Returns:
        in standard deviations of the differences, which are normal and have the same in every part.
    """
    means, errors = _estimates(design, shape)
    low, high = 0.0, 40.0
    while high - low > 0.001 * (1 + low):
        middle = (low + high) / 2
        if _power(design, shape, means, errors, middle, members) < power:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _estimates(design: Design, shape: Shape) -> tuple[Array, Array]:
    """Means and standard errors of made-up differences without an effect, (looks, studies, parts)."""
    generator = np.random.default_rng(3)
    size = NUM_STUDIES, design.looks[-1], shape.num_parts
    own, common = generator.standard_normal(size), generator.standard_normal((*size[:2], 1))
    values = math.sqrt(1 - shape.correlation) * own + math.sqrt(shape.correlation) * common
    means = [values[:, :count].mean(axis=1) for count in design.looks]
    errors = [values[:, :count].std(axis=1, ddof=1) / math.sqrt(count) for count in design.looks]
    return np.stack(means), np.stack(errors)


def _power(design: Design, shape: Shape, means: Array, errors: Array, effect: float, members: int) -> float:
    num_against = shape.num_parts if shape.num_looks == 1 else 1
    limits = [_limits(design, num_looks, members) for num_looks in (shape.num_looks, num_against)]
    is_running = np.ones(means.shape[1], dtype=bool)
    num_found = 0
    for number in range(len(design.looks)):
        room = effect - np.abs(means[number]) if shape.is_margin else effect + means[number]
        statistics = room / errors[number]
        weakest = statistics.min(axis=1)
        # Of one among several that is enough, the opposite must hold for all: what is as claimed speaks for none.
        opposite = -weakest if shape.num_looks == 1 else np.full_like(weakest, -math.inf)
        (found_from, hopeless_to), (lost_from, no_loss_to) = limits[0][number], limits[1][number]
        is_found = is_running & (weakest >= found_from)
        num_found += int(is_found.sum())
        is_running &= ~(is_found | (opposite >= lost_from) | ((weakest <= hopeless_to) & (opposite <= no_loss_to)))
    return num_found / means.shape[1]


def _limits(design: Design, num_looks: int, members: int) -> list[tuple[float, float]]:
    """By look the t from which on one of ``num_looks`` comparisons is found, and up to which it is hopeless."""
    own = design if num_looks == 1 else sequential_design(design.looks, design.level / num_looks)
    part = design if members == 1 else sequential_design(design.looks, design.level / members)
    found = [float(-special.stdtrit(n - 1, p / num_looks / 2)) for n, p in zip(design.looks, part.nominal, strict=True)]
    futile = [-math.inf if p is None else float(-special.stdtrit(n - 1, p / 2))
              for n, p in zip(design.looks, own.futile, strict=True)]  # fmt: skip
    return list(zip(found, futile, strict=True))
