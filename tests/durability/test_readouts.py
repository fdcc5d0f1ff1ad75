"""What one curve says, where the answer is known by hand; the worst of k against every draw."""

import itertools
import math

import numpy as np
import pytest
from fake_trials import curve, trial
from hypothesis import given
from hypothesis import strategies as st

from indelible.durability.readouts import first_out_of_noise, first_reaching, half_life, share_kept, worst_of
from indelible.durability.sides import lost_at


def test_the_loss_at_a_gain_lies_on_the_line_between_two_points():
    one = trial([0.0, 0.2, 0.6], [0.0, 0.1, 0.5])
    assert lost_at(one, 0.2) == pytest.approx(0.1)
    assert lost_at(one, 0.3) == pytest.approx(0.1 + 0.25 * 0.4)  # a quarter of the way
    assert lost_at(one, 0.6) == pytest.approx(0.5)


def test_a_curve_that_comes_back_is_read_where_it_gets_there_first():
    one = trial([0.0, 0.4, 0.1, 0.8], [0.0, 0.3, 0.2, 0.9])
    assert lost_at(one, 0.2) == pytest.approx(0.15)
    assert lost_at(one, 0.5) == pytest.approx(0.2 + 4 / 7 * 0.7)


def test_nothing_is_read_beyond_the_last_point():
    assert lost_at(trial([0.0, 0.2], [0.0, 0.1]), 0.21) is None


def test_a_trial_that_diverged_counts_as_the_worst_loss_unless_it_got_there_before():
    one = trial([0.0, 0.2], [0.0, 0.1], has_diverged=True)
    assert lost_at(one, 0.1) == pytest.approx(0.05)
    assert lost_at(one, 0.5) == pytest.approx(12.5 - 2.0)


def test_another_quantity_is_read_at_the_same_place():
    crossing = first_reaching([0.0, 1.0, 3.0], 2.0)
    assert crossing is not None
    assert crossing.read([0.0, 512.0, 1024.0]) == pytest.approx(768.0)
    assert first_reaching([0.5, 1.0], 0.2).read([7.0, 9.0]) == 7.0, "reached at the start"


@pytest.mark.parametrize("tau", [300.0, 1_000.0, 7_777.0])
def test_the_half_life_of_an_exponential_is_exact(tau):
    tokens = np.array([0, 512, 1024, 2048, 4096, 8192, 16384])
    assert half_life(tokens, np.exp(-tokens / tau)) == pytest.approx(tau * math.log(2))


def test_a_half_life_beyond_the_trial_is_not_made_up():
    assert half_life([0, 100, 200], [1.0, 0.9, 0.51]) is None
    assert half_life([0, 100], [1.0, -1.0]) == pytest.approx(25.0), "through zero: along a straight line"


def test_the_share_kept_is_one_at_the_start_and_zero_at_the_base():
    one = curve([0.0, 0.1, 0.2], [0.0, 0.5, 1.0])
    assert share_kept(one.lost, before=2.0, base=3.0) == pytest.approx([1.0, 0.5, 0.0])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7))
def test_the_worst_of_k_is_the_mean_over_every_draw(values):
    found = worst_of(values)
    for k in range(1, len(values) + 1):
        draws = [max(draw) for draw in itertools.combinations(values, k)]
        assert found[k - 1] == pytest.approx(np.mean(draws), abs=1e-9)


def test_the_worst_of_many_neither_overflows_nor_loses_its_ends():
    values = np.random.default_rng(0).normal(size=3_000)
    found = worst_of(values)
    assert found[0] == pytest.approx(values.mean())
    assert found[-1] == pytest.approx(values.max())
    assert (np.diff(found) >= -1e-12).all()


def test_the_first_step_out_of_the_noise_is_counted_from_the_end():
    low, high = [-0.1, 0.1, -0.2, 0.1, 0.2], [0.1, 0.3, 0.2, 0.3, 0.4]
    assert first_out_of_noise(low, high) == 3, "an earlier point outside by chance does not count"
    assert first_out_of_noise([-0.1], [0.1]) is None
    assert first_out_of_noise([None, 0.1], [None, 0.2]) == 1
    assert first_out_of_noise([-0.4, 0.1], [-0.2, 0.2]) == 1, "the other side of zero is not the same finding"
