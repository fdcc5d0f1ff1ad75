"""Intervals, paired differences, detectable effects, family-wise p: against textbook values and simulation."""

import numpy as np
import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study
from scipy import stats

from indelible.analysis.inference import (
    detectable_effect,
    detectable_unpaired,
    equivalence_p,
    holm,
    mean_interval,
    noise_floor,
    paired,
    seeds_needed,
)
from indelible.analysis.table import read_table


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


def test_paired_difference_by_hand():
    values = {0: -0.10, 1: -0.12, 2: -0.11}
    result = paired(values)
    reference = stats.ttest_1samp(list(values.values()), 0)
    assert result.effect == pytest.approx(-0.11)
    assert result.p == pytest.approx(reference.pvalue)
    assert result.student == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert (result.num_same_sign, result.n, result.bootstrap_method) == (3, 3, "percentile")
    assert result.bootstrap == (pytest.approx(-0.12), pytest.approx(-0.10))
    assert result.interval == result.student  # with three seeds the t interval is the wider one
    assert result.conclusion() == "lower"


def test_bca_from_ten_seeds_on():
    values = dict(enumerate(np.random.default_rng(1).normal(0.5, 1, 12)))
    result = paired(values)
    assert result.bootstrap_method == "BCa"
    expected = stats.bootstrap((list(values.values()),), np.mean, method="BCa", n_resamples=9999,
                               rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    assert result.bootstrap == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_equal_differences_are_not_an_error():
    assert paired({0: -0.5, 1: -0.5}).conclusion() == "lower"
    assert paired({0: 0.0, 1: 0.0}).conclusion() == "inconclusive"


def test_below_the_detectable_effect_nothing_is_concluded():
    # t = 5.2 with 2 degrees of freedom: the interval leaves zero out, but an effect of this size is found only by luck
    result = paired({0: -0.3, 1: -0.2, 2: -0.4})
    assert result.interval[1] < 0
    assert abs(result.effect) < result.detectable
    assert result.conclusion() == "inconclusive"


def test_detectable_effect_has_the_stated_power():
    n, sd = 5, 0.3
    effect = detectable_effect(sd, n, power=0.8)
    samples = np.random.default_rng(0).normal(effect, sd, (20_000, n))
    found = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.01)
    assert detectable_effect(sd, 20) < effect < detectable_effect(sd, 3)


def test_the_seeds_needed_are_the_fewest_that_detect_the_effect():
    for effect in (0.05, 0.1, 0.4):
        needed = seeds_needed(effect, 0.2)
        assert detectable_effect(0.2, needed) <= effect < detectable_effect(0.2, needed - 1)
    assert seeds_needed(1.0, 0.0) == 2
    assert seeds_needed(0.0, 0.2) is None
    assert seeds_needed(0.01, 0.2) is None  # over 999


def test_seeds_that_would_tell_are_more_than_there_are_or_unsaid():
    result = paired({0: -0.3, 1: -0.2, 2: -0.4})
    assert result.seeds_to_tell() == seeds_needed(0.3, 0.1) == 4
    assert result.seeds_to_tell(0.05) == seeds_needed(0.05, 0.1)
    assert paired({0: -0.3, 1: -0.31, 2: -0.3}).seeds_to_tell() is None
    assert paired({0: -0.3}).seeds_to_tell() is None


def test_detectable_without_pairing_has_the_stated_power():
    n, sd = 4, 0.2
    generator = np.random.default_rng(1)
    first = generator.normal(0, sd, (20_000, n))
    second = generator.normal(detectable_unpaired(sd, n), sd, (20_000, n))
    assert (stats.ttest_ind(first, second, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_the_wrong_call_rate_without_an_effect_is_below_five_percent():
    samples = np.random.default_rng(2).normal(0, 0.1, (300, 3))
    wrong = [paired(dict(enumerate(row))).conclusion() != "inconclusive" for row in samples]
    assert np.mean(wrong) < 0.05


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_a_family_wise_p_can_take_a_conclusion_back():
    result = paired({0: -0.10, 1: -0.12, 2: -0.11})
    assert result.conclusion(p_adjusted=0.04) == "lower"
    assert result.conclusion(p_adjusted=0.06) == "inconclusive"


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.0299, 0.05])
def test_equivalence_agrees_with_the_t_interval(shift):
    result = paired({0: shift - 0.004, 1: shift, 2: shift + 0.004, 3: shift})
    inside, outside = equivalence_p(result, 0.03)
    assert (inside <= 0.05) == (result.student[0] >= -0.03 and result.student[1] <= 0.03)
    assert (outside <= 0.05) == (result.student[0] > 0.03)
    assert equivalence_p(paired({0: shift}), 0.03) is None


def test_noise_floor_is_one_row_an_arm(tmp_path):
    study = FakeStudy(fractions=(0.0, 1.0), noise=0.02, shared_noise=0.05, seeds=tuple(range(12)), is_traced=False)
    table = read_table(write_fake_study(tmp_path, study))
    noisy = table.with_columns(
        pl.when(exposure_fraction=1.0).then(pl.col("L_ret") * 3).otherwise("L_ret").alias("L_ret")
    )
    floor = noise_floor(noisy, "L_ret")
    assert floor["exposure_fraction"].to_list() == [0.0, 1.0]
    assert floor["num_settings"].to_list() == [6, 6]
    assert floor["degrees_of_freedom"].to_list() == [66, 66]
    for fraction, sd in floor.select("exposure_fraction", "sd").iter_rows():
        arm = noisy.filter(exposure_fraction=fraction)
        variances = arm.group_by("post_tokens", "finetune_lr").agg(pl.col("L_ret").var())["L_ret"]
        assert sd == pytest.approx(np.sqrt(variances.mean()))
    assert floor["sd"][1] > 2 * floor["sd"][0]


def test_noise_floor_of_one_seed_is_empty(tmp_path):
    assert noise_floor(read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0,)))), "L_ret").height == 0
