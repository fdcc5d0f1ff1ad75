"""The paired t interval, equivalence, Holm: against textbook values and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from indelible.errors import UserError
from indelible.statistics.inference import (
    WORST_LOSS,
    Inference,
    equivalence_p,
    holm,
    holm_levels,
    mean_interval,
    paired,
)


def test_mean_interval_by_hand():
    found = mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / np.sqrt(3)  # t(0.975; 2) times sd 1 over the root of 3
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


@pytest.mark.parametrize(("values", "n"), [([], 0), ([1.5], 1)])
def test_no_interval_without_two_seeds(values, n):
    found = mean_interval(values)
    assert (found.low, found.high, found.sd, found.n) == (None, None, None, n)
    result = paired(dict(enumerate(values)))
    assert result.interval is None
    assert result.detectable is None
    assert result.conclusion() == "inconclusive"
    assert result.n == n


@pytest.mark.parametrize("level", [0.05, 0.01, 0.05 / 13])
def test_paired_difference_by_hand(level):
    values = {0: -0.10, 1: -0.12, 2: -0.11}
    result = paired(values, level)
    reference = stats.ttest_1samp(list(values.values()), 0)
    assert result.effect == pytest.approx(-0.11)
    assert result.p == pytest.approx(reference.pvalue)
    assert result.interval == pytest.approx(tuple(reference.confidence_interval(1 - level)))
    assert (result.num_same_sign, result.num_other_sign, result.n) == (3, 0, 3)
    assert result.at(level) == result
    assert result.conclusion() == ("lower" if reference.pvalue <= level else "inconclusive")


def test_signs_are_counted_on_both_sides():
    result = paired({0: -0.1, 1: 0.2, 2: 0.0, 3: -0.4})
    assert (result.num_same_sign, result.num_other_sign) == (2, 1)
    assert paired({0: 0.0, 1: 0.0}).num_same_sign == 0


def test_equal_differences_are_not_an_error():
    for values in ({0: -0.5, 1: -0.5}, {0: 0.0, 1: 0.0}, {0: 3.3 - 3.2, 1: 3.4 - 3.3, 2: 3.5 - 3.4}):
        found = paired(values)
        assert found.conclusion() == "inconclusive", "what does not vary says nothing of the noise"
        assert (found.n, found.low, found.p, found.sd, found.detectable) == (len(values), None, None, None, None)
        assert equivalence_p(found, 1.0) is None


def test_a_difference_that_is_not_finite_is_refused():
    for value in (math.nan, math.inf):
        with pytest.raises(UserError, match="seed 4: a loss is not finite"):
            paired({3: 0.1, 4: value})


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.sampled_from([0.05, 0.01, 0.004]))
def test_the_interval_shown_is_what_decides(values, level):
    result = paired(dict(enumerate(values)), level)
    if result.low is None:
        assert np.ptp(values) < 1e-11, "only without any spread"
        return
    has_zero = result.low <= 0 <= result.high
    if abs(result.p - level) > 1e-9:  # rounding alone decides there
        assert (result.conclusion() == "inconclusive") == has_zero


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_direction_is_named_as_often_as_the_level_says(n):
    samples = np.random.default_rng(2).normal(0, 0.1, (4_000, n))
    wrong = [paired(dict(enumerate(row))).conclusion() != "inconclusive" for row in samples]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.01)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 0.2), max_size=7))
def test_the_levels_of_holm_decide_as_its_adjusted_p_do(p_values):
    levels = holm_levels(dict(enumerate(p_values)), lambda members: 0.05 / members)
    for place, (p, adjusted) in enumerate(zip(p_values, holm(p_values), strict=True)):
        if abs(adjusted - 0.05) > 1e-9:
            assert (p <= levels[place]) == (adjusted <= 0.05)


def test_the_levels_of_holm_by_hand():
    levels = holm_levels({"a": 0.03, "b": 0.001, "c": 0.04}, lambda members: 0.06 / members)
    assert levels == {"b": pytest.approx(0.02), "a": pytest.approx(0.03), "c": pytest.approx(0.06)}
    stopped = holm_levels({"a": 0.9, "b": 0.001, "c": 0.04}, lambda members: 0.06 / members)
    assert stopped == {"b": pytest.approx(0.02), "a": pytest.approx(0.03), "c": pytest.approx(0.03)}


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.0299, 0.05])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_equivalence_agrees_with_the_t_interval(shift, level):
    result = paired({0: shift - 0.004, 1: shift, 2: shift + 0.004, 3: shift}, level)
    inside, outside = equivalence_p(result, 0.03)
    assert (inside <= level) == (result.low >= -0.03 and result.high <= 0.03)
    assert (outside <= level) == (result.low > 0.03)
    assert equivalence_p(paired({0: shift}), 0.03) is None


def test_the_worst_loss_is_beyond_a_uniform_guess_over_any_vocabulary_in_use():
    assert np.log(2**18) < WORST_LOSS < np.log(2**19)


@pytest.mark.parametrize(("name", "value"), [("level", 0.0), ("level", 0.5), ("power", 1.0), ("flat_margin", -1.0)])
def test_what_a_study_cannot_state_is_refused(name, value):
    with pytest.raises(UserError, match=f"inference.{name} = .*expected a number between 0 and"):
        Inference(**{name: value})


def test_a_study_states_level_and_margin():
    assert Inference(level=0.01, flat_margin=0.02) == Inference(level=0.01, flat_margin=0.02)


def test_a_shift_is_inside_or_outside_of_the_margin_or_on_it():
    assert equivalence_p(paired({0: 0.25, 1: 0.25}), 0.25) is None  # without spread there is no evidence
    shift = paired({0: 0.249, 1: 0.251})
    assert equivalence_p(shift, shift.effect) == (1.0, 1.0)  # on the margin it is neither inside nor outside
    inside, outside = equivalence_p(shift, 0.35)
    assert inside < 0.01
    assert outside == 1.0
    inside, outside = equivalence_p(shift, 0.15)
    assert inside == 1.0
    assert outside < 0.01
