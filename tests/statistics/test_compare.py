"""Two arms at equal settings, at equal L_ft and at equal L_im."""

import numpy as np
import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.results.table import read_table
from indelible.statistics.compare import (
    compare_at_equal_loss,
    compare_at_equal_settings,
    complete_part,
    curve_gap,
    lower_branch,
)

UNMIXED, MIXED = pl.col("exposure_fraction") == 0, pl.col("exposure_fraction") == 1
TREATMENT = ["exposure_fraction"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    study = FakeStudy(noise=0.0, shared_noise=0.1, posttrain_lrs=(1e-3, 1e-2), is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))


def test_noise_that_seeds_share_cancels_in_pairs(table):
    found = compare_at_equal_settings(table, UNMIXED, MIXED, "L_ret", TREATMENT)
    erasure = np.mean([0.25 * np.log10(rate / 1e-5) ** 1.5 for rate in (1e-4, 3e-4, 1e-3)])
    assert found.result.effect == pytest.approx(-0.4 * erasure)
    assert np.ptp(list(found.result.differences.values())) == pytest.approx(0, abs=1e-9)
    assert (found.result.n, found.num_blocks, found.num_left_out) == (3, 2 * 2 * 3, 0)
    assert len(found.finetune_ids) == 2 * 12 * 3


def test_a_setting_that_one_seed_lacks_counts_for_none(table):
    hole = (pl.col("seed") == 1) & (pl.col("finetune_lr") == 1e-3) & MIXED
    holed = table.with_columns(pl.when(hole).then(None).otherwise("L_ret").alias("L_ret"))
    found = compare_at_equal_settings(holed, UNMIXED, MIXED, "L_ret", TREATMENT)
    assert (found.num_blocks, found.num_left_out) == (8, 4)
    assert np.ptp(list(found.result.differences.values())) == pytest.approx(0, abs=1e-9)


def test_a_seed_that_has_just_begun_does_not_cost_the_others_their_settings(table):
    begun = (pl.col("seed") < 2) | ((pl.col("finetune_lr") == 1e-4) & (pl.col("post_tokens") == 10_000))
    found = compare_at_equal_settings(table.filter(begun), UNMIXED, MIXED, "L_ret", TREATMENT)
    assert (found.result.n, found.num_blocks, found.num_seeds_left_out) == (2, 12, 1)
    assert len(found.finetune_ids) == 2 * 12 * 2


def test_the_complete_part_by_hand():
    assert complete_part({0: {1, 2, 3, 4}, 1: {1, 2, 3}, 2: {2, 3}, 3: {4}}) == ([0, 1, 2], {2, 3})
    assert complete_part({5: {1}, 3: {2}}) == ([3], {2})  # nothing in common: the first seed alone
    assert complete_part({}) == ([], set())


def test_unfinished_chains_do_not_count(table):
    unfinished = table.with_columns(pl.when(MIXED).then(pl.lit("incomplete")).otherwise("status").alias("status"))
    found = compare_at_equal_settings(unfinished, UNMIXED, MIXED, "L_ret", TREATMENT)
    assert (found.result.n, found.result.effect, found.num_blocks) == (0, None, 0)


def test_equal_l_ft_against_the_formula(table):
    # L_ft = 3.6 - 0.25 a + 0.02 lambda: at equal L_ft the mixed arm is 0.08 further in a
    found = compare_at_equal_loss(table, UNMIXED, MIXED, TREATMENT, equal="L_ft", loss="L_ret", axis="finetune_lr")
    assert (found.result.n, found.num_blocks) == (3, 4)

    def erased(a):
        grid = np.log10(np.array([1e-4, 3e-4, 1e-3]) / 1e-5)
        return np.interp(a, grid, 0.25 * grid**1.5)

    a = np.linspace(1, 1.92, 33)
    expected = (0.6 * erased(a + 0.08) - erased(a)).mean()
    assert found.result.effect == pytest.approx(expected, abs=1e-6)


def test_equal_l_im_shows_the_latent_benefit(table):
    found = compare_at_equal_loss(table, UNMIXED, MIXED, TREATMENT, equal="L_im", loss="L_ret", axis="post_tokens")
    settings = compare_at_equal_settings(table, UNMIXED, MIXED, "L_ret", TREATMENT)
    assert found.num_blocks == 2 * 3
    assert found.result.effect == pytest.approx(settings.result.effect)  # here exposure leaves L_im alone


def test_nothing_is_extrapolated(table):
    moved = table.with_columns(pl.when(MIXED).then(pl.col("L_ft") + 10).otherwise("L_ft").alias("L_ft"))
    found = compare_at_equal_loss(moved, UNMIXED, MIXED, TREATMENT, equal="L_ft", loss="L_ret", axis="finetune_lr")
    assert (found.result.effect, found.num_blocks, found.num_left_out) == (None, 0, 4)
    assert np.isnan(lower_branch([(0, 0), (1, 1)], [-0.1, 1.1])).all()
    assert curve_gap([(0, 0), (1, 1)], [(1, 5), (2, 6)]) is None


def test_the_lower_branch_of_a_curve_that_turns_back():
    curve = [(0, 4), (2, 2), (1, 0), (1, -1)]
    assert lower_branch(curve, [0.5, 1.5, 2.0]).tolist() == [3.5, 1.0, 2.0]
    assert lower_branch(curve, [1.0]).tolist() == [-1]
    assert curve_gap([(0, 0), (2, 2)], [(1, 2), (3, 4)]) == pytest.approx(1)


def test_arms_of_the_same_runs_are_said_to_be_the_same(table):
    low, high = pl.col("finetune_lr") == 1e-4, pl.col("finetune_lr") == 1e-3
    at_hand_over = compare_at_equal_settings(table, low, high, "L_im", ["finetune_lr"])
    assert at_hand_over.is_same_runs
    assert not compare_at_equal_settings(table, low, high, "L_ret", ["finetune_lr"]).is_same_runs
    assert not compare_at_equal_settings(table, UNMIXED, MIXED, "L_im", TREATMENT).is_same_runs


def test_seeds_of_single_stages_are_averaged_within_the_seed(table):
    more = table.with_columns(
        finetune_seed=pl.lit(1), L_ret=pl.col("L_ret") + 0.5, finetune_id=pl.col("finetune_id") + "b"
    )
    nested = pl.concat([table.with_columns(finetune_seed=pl.lit(0)), more.select(*table.columns, "finetune_seed")])
    plain = compare_at_equal_settings(table, UNMIXED, MIXED, "L_ret", TREATMENT)
    found = compare_at_equal_settings(nested, UNMIXED, MIXED, "L_ret", TREATMENT)
    assert found.result.differences == {seed: pytest.approx(v) for seed, v in plain.result.differences.items()}
    assert (found.result.n, found.num_blocks) == (plain.result.n, plain.num_blocks)
