"""How much to show: the intervals are those of `compare`, and what is left out of the best is left out with cause."""

import numpy as np
import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.results.columns import COLUMNS
from indelible.results.table import read_table
from indelible.statistics.by_exposure import exposure_block
from indelible.statistics.compare import compare_at_equal_settings
from indelible.statistics.inference import Inference

FRACTION = pl.col("exposure_fraction")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    study = FakeStudy(seeds=(0, 1, 2, 3), post_tokens=(100_000,), fractions=(0.0, 0.5, 1.0), posttrain_lrs=(1e-3, 2e-3))
    table = read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))
    return table.filter(pl.col("finetune_lr") == 1e-3)


def table_of(losses):
    """A results table of L_ret by seed and lambda: (seeds, lambdas)."""
    chains = []
    for seed, row in enumerate(losses):
        for place, value in enumerate(row):
            chains.append({"seed": seed, "exposure_fraction": place / 4, "L_im": 3.0, "L_ret": value, "status": "done",
                           "forgotten": value - 3.0, "finetune_lr": 1e-3, "pretrain_flops": 1e9 * (4 + place),
                           "pretrain_id": f"p{seed}-{place}", "arm": "", "pipeline": "a>b>c"})  # fmt: skip
    found = pl.DataFrame(chains)
    absent = [pl.lit(None, column.dtype).alias(column.name) for column in COLUMNS if column.name not in found.columns]
    ordered = found.with_columns(absent).select(column.name for column in COLUMNS)
    return ordered.with_columns(pretrain_a_tokens=(pl.col("pretrain_flops") / 1e6).cast(pl.Int64))


def test_the_intervals_are_those_of_compare_with_the_level_shared(rows):
    block = exposure_block(rows, "", 1e-3, Inference())
    for row in block.rows[1:]:
        found = compare_at_equal_settings(
            rows, FRACTION == 0, row.fraction == FRACTION, "L_ret", ["exposure_fraction"], Inference(level=0.025)
        ).result
        numbers = (row.change.effect, row.change.low, row.change.high)
        assert numbers == pytest.approx((found.effect, found.low, found.high))
        assert row.change.level == 0.025
    assert block.num_settings == 2
    assert block.best.fraction == 1.0
    assert block.pays


def test_means_and_what_pretraining_took_beyond_lambda_0(rows):
    block = exposure_block(rows, "", 1e-3, Inference())
    for row in block.rows:
        own = rows.filter(row.fraction == FRACTION)
        assert row.losses["L_ret"] == pytest.approx(own["L_ret"].mean())
        assert row.losses["forgotten"] == pytest.approx((own["L_ret"] - own["L_im"]).mean())
        assert row.extra_tokens == 100_000 * row.fraction
        assert row.extra_share == pytest.approx(row.fraction / 20)


def test_a_lambda_that_another_beats_is_left_out_and_a_tie_is_not():
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 4))
    block = exposure_block(table_of(np.array([4.0, 3.5, 3.5, 3.8]) + noise), "", 1e-3, Inference())
    assert [row.may_be_best for row in block.rows] == [False, True, True, False]
    assert block.best.fraction in (0.25, 0.5)


def test_the_true_best_is_left_out_no_more_often_than_the_level_says():
    """Four lambdas of which one is hardly the best: the worst case. 150 studies, binomial bound at 1 in 1,000."""
    source, missed = np.random.default_rng(1), 0
    for _ in range(150):
        losses = 4.0 + source.normal(0, 0.1, (4, 1)) + source.normal(0, 0.05, (4, 4))
        losses[:, 2] -= 1e-6
        block = exposure_block(table_of(losses), "", 1e-3, Inference())
        missed += not block.rows[2].may_be_best
    assert missed <= 17


def test_one_seed_tells_nothing_apart():
    block = exposure_block(table_of([[4.0, 3.0, 2.0, 1.0]]), "", 1e-3, Inference())
    assert all(row.may_be_best for row in block.rows)
    assert block.best.fraction == 0.75
    assert block.best.change.low is None


def test_without_lambda_0_or_a_common_seed_there_is_no_block():
    table = table_of([[4.0, 3.0]])
    assert exposure_block(table.filter(FRACTION > 0), "", 1e-3, Inference()) is None
    apart = table.with_columns(seed=pl.Series([0, 1]))
    assert exposure_block(apart, "", 1e-3, Inference()) is None
