"""Planning numbers are true for the rule that decides: checked by simulating that rule."""

import numpy as np
import pytest
from scipy import stats

from indelible.statistics.planning import (
    NewSeeds,
    detectable_effect,
    detectable_margin,
    detectable_unpaired,
    new_seeds,
    part_power,
    seeds_needed,
)


@pytest.mark.parametrize("n", [2, 3, 5, 16])
@pytest.mark.parametrize("level", [0.05, 0.05 / 4])
def test_the_detectable_effect_has_the_stated_power(n, level):
    sd = 0.3
    samples = np.random.default_rng(0).normal(detectable_effect(sd, n, level), sd, (40_000, n))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue <= level
    assert found.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_the_margin_shown_has_the_stated_power(n):
    sd, level = 0.3, 0.05
    samples = np.random.default_rng(1).normal(0, sd, (40_000, n))
    half = stats.t.ppf(1 - level / 2, n - 1) * samples.std(axis=1, ddof=1) / np.sqrt(n)
    is_inside = np.abs(samples.mean(axis=1)) + half <= detectable_margin(sd, n, level)
    assert is_inside.mean() == pytest.approx(0.8, abs=0.01)


def test_detectable_without_pairing_has_the_stated_power():
    n, sd = 4, 0.2
    generator = np.random.default_rng(1)
    first = generator.normal(0, sd, (20_000, n))
    second = generator.normal(detectable_unpaired(sd, n), sd, (20_000, n))
    assert (stats.ttest_ind(first, second, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_seeds_needed_are_the_fewest_that_detect_the_effect(level):
    for effect in (0.05, 0.1, 0.4):
        needed = seeds_needed(effect, 0.2, level)
        assert detectable_effect(0.2, needed, level) <= effect < detectable_effect(0.2, needed - 1, level)
    assert seeds_needed(1.0, 0.0) == 2
    assert seeds_needed(0.0, 0.2) is None
    assert seeds_needed(0.01, 0.2) is None  # over 999


def test_new_seeds_hold_the_number_needed_about_half_of_the_time():
    """With a flat prior over the true ratio, which is what the range is exact for."""
    generator = np.random.default_rng(3)
    n, hits = 5, []
    for ratio in generator.uniform(-6, 6, 400):
        values = generator.normal(ratio, 1.0, n)
        found = new_seeds(abs(values.mean()), values.std(ddof=1), n)
        needed = seeds_needed(abs(ratio), 1.0)
        more = None if needed is None else max(1, needed - n)
        low, high = (one if one is not None else 1_000 for one in (found.low, found.high))
        hits.append(low <= (more if more is not None else 1_000) <= high)
    assert 0.4 < np.mean(hits) < 0.95  # far-off effects need one seed more, and so says the range


def test_new_seeds_are_a_range_that_narrows_with_the_seeds_there_are():
    few, many = new_seeds(0.5, 1.0, 3), new_seeds(0.5, 1.0, 24)
    assert few.high - few.low > 2 * (many.high - many.low)
    assert many.low <= seeds_needed(0.5, 1.0) - 24 <= many.high
    assert few.low <= seeds_needed(0.5, 1.0) - 3 <= few.high


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (NewSeeds(4, 40), "4 to 40 new seeds"),
        (NewSeeds(1, 1), "1 new seed"),
        (NewSeeds(3, 3), "3 new seeds"),
        (NewSeeds(30, None), "at least 30 new seeds"),
        (NewSeeds(None, None), "over 999 seeds"),
    ],
)
def test_the_words_for_a_range(found, text):
    assert found.text == text


def test_seeds_that_do_not_differ_need_one_more_at_most():
    assert new_seeds(0.1, 0.0, 2) == NewSeeds(1, 1)


@pytest.mark.parametrize(("num_parts", "correlation"), [(1, 0.5), (2, 0.5), (4, 0.0), (4, 0.5)])
def test_all_parts_together_have_the_stated_power(num_parts, correlation):
    each = part_power(0.8, num_parts, correlation)
    generator = np.random.default_rng(4)
    common = generator.standard_normal((200_000, 1)) * np.sqrt(correlation)
    parts = common + generator.standard_normal((200_000, num_parts)) * np.sqrt(1 - correlation)
    assert (parts < stats.norm.ppf(each)).all(axis=1).mean() == pytest.approx(0.8, abs=0.005)
