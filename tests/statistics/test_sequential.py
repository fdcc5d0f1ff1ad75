"""Seeds bought in blocks: the risk of all looks, power as printed, and when one stops."""

import numpy as np
import pytest
from scipy import stats

from indelible.errors import UserError
from indelible.statistics.planning import detectable_effect
from indelible.statistics.sequential import (
    LOOKS,
    decide,
    detectable_shift,
    seeds_wanted,
    sequential_design,
    simulate,
)

NUM_STUDIES = 40_000


@pytest.fixture(scope="module")
def design():
    return sequential_design()


def differences(shift, seed=11, num_seeds=24):
    return np.random.default_rng(seed).normal(shift, 1, (NUM_STUDIES, num_seeds))


@pytest.mark.parametrize(
    ("looks", "level"), [(LOOKS, 0.05), (LOOKS, 0.01), ((3, 4, 5), 0.05), ((2, 6), 0.05), ((8,), 0.05)]
)
def test_the_error_of_all_looks_is_at_most_the_level(looks, level):
    found, _ = simulate(sequential_design(looks, level), differences(0))
    assert (found != 0).mean() <= level + 0.003
    assert (found != 0).mean() >= 0.75 * level  # stopping for futility costs a little of it


def test_looking_at_the_plain_level_would_not_keep_it(design):
    values = differences(0)
    plain = [stats.ttest_1samp(values[:, :n], 0, axis=1).pvalue <= 0.05 for n in LOOKS]
    assert np.any(plain, axis=0).mean() > 0.12


def test_the_power_is_as_printed(design):
    found, _ = simulate(design, differences(detectable_shift(design), seed=5))
    assert (found > 0).mean() == pytest.approx(0.8, abs=0.01)
    assert detectable_effect(1.0, 24) < detectable_shift(design) < detectable_effect(1.0, 16)


def test_a_large_effect_is_bought_cheaply_and_none_is_left_early(design):
    large, none = simulate(design, differences(2.0)), simulate(design, differences(0))
    assert large[1].mean() < 7
    assert (large[0] > 0).mean() > 0.999
    assert none[1].mean() < 14


def test_one_look_is_the_plain_test():
    single = sequential_design((8,), 0.05)
    assert single.nominal == (pytest.approx(0.05),)
    values = differences(0.5, num_seeds=8)[:2_000]
    expected = stats.ttest_1samp(values, 0, axis=1).pvalue <= 0.05
    assert (simulate(single, values)[0] != 0).tolist() == expected.tolist()


def test_the_simulation_decides_as_the_function_does(design):
    for values, found, bought in zip(differences(0.6)[:300], *(one[:300] for one in simulate(design, differences(0.6))),
                                     strict=True):  # fmt: skip
        for number, count in enumerate(design.looks):
            test = stats.ttest_1samp(values[:count], 0)
            sides = (test.pvalue, 1.0) if test.statistic > 0 else (1.0, test.pvalue)
            decision = decide(design, number, *sides)
            if decision != "open":
                break
        assert bought == count
        assert {"supported": 1, "contradicted": -1}.get(decision, 0) == found


def test_what_follows_at_a_look(design):
    assert decide(design, 0, design.nominal[0], 1.0) == "supported"
    assert decide(design, 0, 1.0, design.nominal[0]) == "contradicted"
    assert decide(design, 0, 0.9, 1.0) == "open"  # three seeds say too little to give up
    assert decide(design, 2, design.futile[2], 1.0) == "futile"
    assert decide(design, 2, design.futile[2] * 0.99, 1.0) == "open"
    assert decide(design, 5, 0.5, 1.0) == "open"  # the last look: not settled
    assert decide(design, 0, None, None) == "open"


def test_seeds_are_wanted_until_the_last_look(design):
    assert [seeds_wanted(design, number) for number in range(7)] == [3, 5, 8, 12, 16, 24, None]


@pytest.mark.parametrize("looks", [(), (1, 3), (3, 3), (5, 3)])
def test_looks_that_are_no_plan_are_refused(looks):
    with pytest.raises(UserError, match="expected rising numbers of seeds, the first 2 or more"):
        sequential_design(looks)
