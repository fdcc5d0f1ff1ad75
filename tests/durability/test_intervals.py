"""Intervals: the t interval where there are units alone, wider by documents, Welch where nothing is paired."""

import numpy as np
import pytest
from scipy import stats

from indelible.durability.intervals import difference, estimate
from indelible.statistics.inference import mean_interval


def test_without_documents_it_is_the_t_interval_of_the_statistics():
    values = [0.1, 0.4, 0.25, 0.3]
    found, expected = estimate(values), mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_one_unit_has_no_interval():
    assert estimate([0.3]).low is None
    assert difference([0.3], [0.1]).p is None


def test_documents_widen_it_and_never_narrow_it():
    values = [0.1, 0.12, 0.11]
    plain, wide = estimate(values), estimate(values, se_documents=0.05, documents=200)
    assert wide.high - wide.low > 0.15 > plain.high - plain.low
    little = estimate(values, se_documents=1e-12, documents=5)
    assert little.high == pytest.approx(plain.high)


def test_units_are_paired_where_both_sides_have_as_many():
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.9, 1.8, 2.9, 3.8])
    assert difference(first, second).p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    welch = difference(first, second[:3])
    assert welch.p == pytest.approx(stats.ttest_ind(first, second[:3], equal_var=False).pvalue, rel=0.1)
    assert welch.value == pytest.approx(first.mean() - second[:3].mean())


@pytest.mark.parametrize(("units", "documents", "ratio"), [(3, 60, 1.0), (3, 60, 0.1), (5, 200, 3.0)])
def test_the_interval_covers_as_often_as_it_says(units, documents, ratio):
    """Units of spread 1 around a centre that the documents have shifted, with the shift's size estimated."""
    rng = np.random.default_rng(1)
    covered = 0
    rounds = 2_000
    for _ in range(rounds):
        shift = ratio / np.sqrt(documents) * rng.standard_normal()
        known = ratio / np.sqrt(documents) * np.sqrt(rng.chisquare(documents - 1) / (documents - 1))
        found = estimate(shift + rng.standard_normal(units), known, documents)
        covered += found.low <= 0 <= found.high
    assert covered / rounds > 0.935
