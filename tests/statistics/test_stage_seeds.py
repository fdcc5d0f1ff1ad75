"""Variance by stage from nested seeds, and the cheapest seeds that narrow an interval."""

import numpy as np
import polars as pl
import pytest

from indelible.errors import UserError
from indelible.statistics.inference import mean_interval
from indelible.statistics.stage_seeds import (
    SeedLevel,
    cheapest_seeds,
    half_width,
    nested_differences,
    seed_columns,
    seed_levels,
    stage_hours,
    variance_components,
)


def nested(num, sds, generator, keep=1.0):
    """Values with a part for every level of seeds; ``keep``: the share of them that is there."""
    rows = []
    for seed in range(num[0]):
        first = generator.normal(0, sds[0])
        for second_seed in range(num[1]):
            second = generator.normal(0, sds[1])
            for third_seed in range(num[2]):
                value = 0.5 + first + second + generator.normal(0, sds[2])
                if generator.random() < keep:
                    rows.append((seed, second_seed, third_seed, value))
    return pl.DataFrame(rows, schema=["seed", "posttrain_seed", "finetune_seed", "difference"], orient="row")


def test_two_levels_by_hand():
    frame = pl.DataFrame({"seed": [0, 0, 1, 1], "finetune_seed": [0, 1, 0, 1], "difference": [1.0, 3.0, 5.0, 7.0]})
    within = 2.0  # (1 - 2)^2 + (3 - 2)^2 over one degree of freedom, the same for the second seed
    between = 2 * 8.0  # two values a seed, seed means 2 and 6 with variance 8
    assert variance_components(frame) == pytest.approx([(between - within) / 2, within])


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_the_parts_are_found_in_the_mean_also_with_unequal_numbers(keep):
    generator = np.random.default_rng(0)
    sds = (0.4, 0.2, 0.3)
    found = np.mean([variance_components(nested((8, 3, 3), sds, generator, keep)) for _ in range(300)], axis=0)
    assert found == pytest.approx([sd**2 for sd in sds], rel=0.1)


def test_a_part_below_zero_is_none():
    frame = pl.DataFrame({"seed": [0, 0, 1, 1], "finetune_seed": [0, 1, 0, 1], "difference": [1.0, 3.0, 3.0, 1.0]})
    assert variance_components(frame)[0] == 0.0


def test_a_level_without_two_seeds_cannot_be_told():
    frame = pl.DataFrame({"seed": [0, 1], "finetune_seed": [0, 0], "difference": [1.0, 2.0]})
    with pytest.raises(UserError, match="finetune_seed: nowhere two seeds under one"):
        variance_components(frame)


LEVELS = [SeedLevel("seed", 0.04, 1.0, 3), SeedLevel("finetune_seed", 0.36, 0.05, 2)]


def test_the_half_width_to_expect_is_that_of_the_interval():
    generator = np.random.default_rng(1)
    widths = []
    for _ in range(2_000):
        frame = nested((5, 4, 1), (0.2, 0.6, 0.0), generator)
        means = frame.group_by("seed").agg(pl.col("difference").mean())["difference"]
        found = mean_interval(means)
        widths.append(((found.high - found.low) / 2) ** 2)
    levels = [SeedLevel("seed", 0.04, 1.0, 5), SeedLevel("posttrain_seed", 0.36, 0.05, 4)]
    assert np.sqrt(np.mean(widths)) == pytest.approx(half_width(levels, (5, 4), 0.05), rel=0.03)


def test_cheap_seeds_of_a_noisy_last_stage_are_bought_first():
    found = cheapest_seeds(LEVELS, wanted=0.3)
    assert found.is_reached
    assert found.half_width <= 0.3
    assert found.counts[1] > 2
    every = [(i, j) for i in range(3, 60) for j in range(2, 33) if half_width(LEVELS, (i, j), 0.05) <= 0.3]
    hours = {(i, j): i * 1.0 + i * j * 0.05 - (3 * 1.0 + 3 * 2 * 0.05) for i, j in every}
    assert found.hours == pytest.approx(min(hours.values()))
    only_new = min(i for i in range(3, 200) if half_width(LEVELS, (i, 2), 0.05) <= 0.3)
    assert found.hours < (only_new - 3) * 1.1


def test_where_the_first_stage_makes_the_spread_only_its_seeds_help():
    levels = [SeedLevel("seed", 0.36, 1.0, 3), SeedLevel("finetune_seed", 0.0, 0.05, 2)]
    assert cheapest_seeds(levels, wanted=0.3).counts[1] == 2


def test_a_budget_that_does_not_reach_it_buys_the_narrowest():
    found = cheapest_seeds(LEVELS, wanted=0.01, budget_hours=2.0)
    assert not found.is_reached
    assert found.hours <= 2.0
    others = [(i, j) for i in range(3, 6) for j in range(2, 33) if i + 0.05 * i * j - 3.3 <= 2.0]
    assert found.half_width == pytest.approx(min(half_width(LEVELS, one, 0.05) for one in others))
    with pytest.raises(UserError, match="buy no second seed"):
        cheapest_seeds([SeedLevel("seed", 0.04, 1.0, 1)], wanted=0.1, budget_hours=0.5)


def table():
    rows = [
        {"scale": "pico", "exposure_fraction": fraction, "seed": seed, "finetune_seed": again, "status": "done",
         "posttrain_global_batch_size": 1, "L_im": 2.0, "L_ret": 3.0 - fraction * (1 + seed) + 0.1 * again,
         "pretrain_id": f"p{seed}-{fraction}", "posttrain_id": f"q{seed}-{fraction}",
         "finetune_id": f"f{seed}-{again}-{fraction}",
         "pretrain_seconds": 3600.0, "posttrain_seconds": 1800.0, "finetune_seconds": 360.0}
        for seed in range(3) for again in range(2) for fraction in (0.0, 1.0)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_each_run_is_paid_once_and_by_its_own_level():
    assert seed_columns(table()) == ["seed", "finetune_seed"]
    assert stage_hours(table()) == {"seed": pytest.approx(3.0), "finetune_seed": pytest.approx(0.2)}
    plain = table().filter(finetune_seed=0).drop("finetune_seed")
    assert seed_columns(plain) == ["seed"]
    assert stage_hours(plain) == {"seed": pytest.approx(3.2)}


def test_a_seed_column_that_follows_another_is_no_level():
    assert seed_columns(table().with_columns(finetune_seed=pl.col("seed"))) == ["seed"]


def test_differences_are_paired_at_equal_seeds_of_every_stage():
    first, second = pl.col("exposure_fraction") == 0, pl.col("exposure_fraction") == 1
    found = nested_differences(table(), first, second, "L_ret", ["exposure_fraction"])
    assert found.columns == ["seed", "finetune_seed", "difference"]
    assert found["difference"].to_list() == pytest.approx([-1, -1, -2, -2, -3, -3])
    levels = seed_levels(table(), found)
    assert [(one.name, one.count) for one in levels] == [("seed", 3), ("finetune_seed", 2)]
    assert levels[0].variance == pytest.approx(1.0)
    assert levels[1].variance == pytest.approx(0.0)


def test_a_setting_that_all_chains_lack_is_no_reason_to_pair_none():
    first, second = pl.col("exposure_fraction") == 0, pl.col("exposure_fraction") == 1
    lacking = table().with_columns(placement=pl.lit(None, pl.String))
    assert nested_differences(lacking, first, second, "L_ret", ["exposure_fraction"]).height == 6
