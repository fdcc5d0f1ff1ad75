"""Planning numbers of sequential designs: an effect of the printed size is found with the printed power."""

import numpy as np
import pytest
from scipy import stats

from indelible.statistics.sequential import decide, detectable_shift, sequential_design
from indelible.statistics.sequential_power import Shape, detectable_in_looks


@pytest.fixture(scope="module")
def design():
    return sequential_design((3, 5, 8))


def test_of_one_comparison_it_is_the_shift_of_the_design(design):
    assert detectable_in_looks(design, Shape()) == pytest.approx(detectable_shift(design), rel=0.02)


def test_what_must_be_found_in_more_parts_takes_more(design):
    one, two, four = (detectable_in_looks(design, Shape(parts)) for parts in (1, 2, 4))
    assert one < two < four
    assert detectable_in_looks(design, Shape(), members=4) > one
    assert detectable_in_looks(design, Shape(), power=0.5) < one


def share_supported(design, support, against, num_against):
    """By p of both sides, (looks, studies), look by look with the function that decides."""
    supported = 0
    for one in range(support.shape[1]):
        for number in range(len(design.looks)):
            decision = decide(design, number, support[number, one], against[number, one], 1, num_against)
            if decision != "open":
                break
        supported += decision == "supported"
    return supported / support.shape[1]


def test_steps_that_must_all_be_found_have_the_printed_power(design):
    """Three independent steps, each with the printed effect."""
    steps = np.random.default_rng(0).normal(-detectable_in_looks(design, Shape(3)), 1, (2_000, 8, 3))
    tests = [stats.ttest_1samp(steps[:, :count], 0, axis=1) for count in design.looks]
    falls = [np.where(test.statistic < 0, test.pvalue, 1.0).max(axis=1) for test in tests]
    rises = [np.where(test.statistic > 0, test.pvalue, 1.0).min(axis=1) for test in tests]
    assert share_supported(design, np.array(falls), np.array(rises), 3) == pytest.approx(0.8, abs=0.025)


def test_a_margin_holds_no_effect_with_the_printed_power(design):
    margin, generator = detectable_in_looks(design, Shape(2, correlation=0.5, is_margin=True)), np.random.default_rng(0)
    values = (generator.normal(size=(2_000, 8, 2)) - generator.normal(size=(2_000, 8, 1))) / np.sqrt(2)  # a common arm
    inside = []
    for count in design.looks:
        room = margin - abs(values[:, :count].mean(axis=1))
        inside.append(2 * stats.t.sf(room / stats.sem(values[:, :count], axis=1), count - 1))
    support = np.minimum(1.0, inside).max(axis=2)
    against = np.minimum(1.0, 2 - np.array(inside)).min(axis=2)
    assert share_supported(design, support, against, 2) == pytest.approx(0.8, abs=0.025)


def test_a_corrected_p_is_not_given_up_by_the_limit_of_one_comparison(design):
    """One of three is enough: p by itself, which is often found later, would be beyond the limit when corrected."""
    of_one, of_three = design.futile[1], sequential_design(design.looks, 0.05 / 3).futile[1]
    p = 0.99 * of_three
    assert 3 * p > of_one
    assert decide(design, 1, min(1.0, 3 * p), 1.0) == "futile"
    assert decide(design, 1, p, 1.0, 3, 2) == "open"
    assert decide(design, 1, of_three, 1.0, 3, 2) == "futile"
    assert decide(design, 1, design.nominal[1], 1.0, 3, 2) == "open"
    assert decide(design, 1, design.nominal[1] / 3, 1.0, 3, 2) == "supported"
    assert decide(design, 1, 1.0, design.nominal[1] / 2, 3, 2) == "contradicted"
