"""The spread between seeds, arm by arm."""

import numpy as np
import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.results.table import read_table
from indelible.statistics.noise import noise_floor


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
    assert floor["num_seeds"].to_list() == [12, 12]
    for fraction, sd in floor.select("exposure_fraction", "sd").iter_rows():
        arm = noisy.filter(exposure_fraction=fraction)
        variances = arm.group_by("post_tokens", "finetune_lr").agg(pl.col("L_ret").var())["L_ret"]
        assert sd == pytest.approx(np.sqrt(variances.mean()))
    assert floor["sd"][1] > 2 * floor["sd"][0]


def test_noise_floor_of_one_seed_is_empty(tmp_path):
    assert noise_floor(read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0,)))), "L_ret").height == 0


def test_each_arm_counts_its_own_seeds(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(fractions=(0.0, 1.0), seeds=range(5), is_traced=False)))
    floor = noise_floor(table.filter((pl.col("exposure_fraction") == 0) | (pl.col("seed") < 2)), "L_ret")
    assert floor.select("exposure_fraction", "num_seeds").rows() == [(0.0, 5), (1.0, 2)]
