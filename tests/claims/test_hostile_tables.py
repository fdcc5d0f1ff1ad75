"""What a referee would try: ties, lone seeds, arms that diverged, copied and missing seeds. Only honest answers."""

import json
import math
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.looks import replay
from indelible.claims.paper_claims import claim_named, study_verdicts
from indelible.claims.wording import numbers_text
from indelible.errors import UserError
from indelible.results.table import read_table
from indelible.statistics.compare import compare_at_equal_loss, compare_at_equal_settings
from indelible.statistics.contrasts import contrasts
from indelible.statistics.evaluation_error import error_sources
from indelible.statistics.inference import Inference, paired
from indelible.statistics.sequential import OPEN, sequential_design

LOSSES = ["L_im", "L_ret", "L_ft", "L_pre", "L_pre_post"]
LAMBDA, SEED = pl.col("exposure_fraction"), pl.col("seed")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    study = FakeStudy(post_tokens=(100_000,), posttrain_lrs=(1e-3, 1e-2), benefit=0.0, noise=0.02, is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))


def diverged(table: pl.DataFrame, which: pl.Expr, losses: list[str] = LOSSES) -> pl.DataFrame:
    """The table with these chains diverged, so that they lack the losses."""
    return table.with_columns(
        pl.when(which).then(pl.lit("diverged")).otherwise("status").alias("status"),
        *(pl.when(which).then(None).otherwise(loss).alias(loss) for loss in losses),
    )


def named(table: pl.DataFrame) -> dict[str, str]:
    """The claims that are supported or contradicted; every finding must be JSON, and sayable."""
    found = study_verdicts(table)
    json.dumps([asdict(one.finding) for one in found], allow_nan=False)
    assert all(isinstance(numbers_text(one.finding), str) for one in found)
    return {one.claim: one.finding.verdict for one in found if one.finding.verdict in ("supported", "contradicted")}


def test_where_nothing_differs_between_seeds_nothing_is_named(table):
    tied = table.with_columns(pl.lit(3.0).alias(loss) for loss in LOSSES)
    rounded = table.with_columns(pl.col(loss).round(1) for loss in LOSSES)
    shifted = tied.with_columns(pl.when(LAMBDA == 1).then(2.0).otherwise("L_ret").alias("L_ret"))
    for one in (tied, rounded, shifted):
        assert named(one) == {}
    found = {one.claim: one.finding for one in study_verdicts(shifted)}["retained-lower"]
    assert (found.effect, found.low, found.new_seeds, found.reading) == (-1.0, None, None, "supported")
    assert "n=3, signs 3 / 0, all seeds have the same difference, so no interval" in numbers_text(found)


def test_arms_that_both_diverged_are_not_called_alike(table):
    assert named(diverged(table, pl.lit(value=True))) == {}
    some = named(diverged(table, SEED > 0))
    assert "hand-over-flat" not in some, "one seed is left, and the others are no evidence of flatness"


def test_what_diverged_after_the_hand_over_leaves_it_as_it_is(table):
    last = diverged(table, LAMBDA == 1, ["L_ret", "L_ft", "L_pre"])
    plain = compare_at_equal_settings(table, LAMBDA == 0, LAMBDA == 1, "L_im", ["exposure_fraction"])
    found = compare_at_equal_settings(last, LAMBDA == 0, LAMBDA == 1, "L_im", ["exposure_fraction"])
    assert (found.result, found.num_diverged) == (plain.result, 0)
    assert named(last)["retained-lower"] == "contradicted"


@pytest.mark.parametrize(("exposure", "verdict"), [(1, "contradicted"), (0, "supported")])
def test_an_arm_whose_seeds_all_diverged_has_lost(table, exposure, verdict):
    assert named(diverged(table, LAMBDA.eq(exposure)))["retained-lower"] == verdict


def test_one_seed_and_seeds_without_a_partner_name_nothing(table):
    assert named(table.filter(SEED == 0)) == {}
    assert named(table.filter(((SEED == 0) & (LAMBDA == 0)) | ((SEED > 0) & (LAMBDA > 0)))) == {}
    assert named(table.head(0)) == {}
    partly = table.filter((SEED < 2) | (LAMBDA > 0))  # seed 2 has not begun its arm without exposure
    found = {one.claim: one.finding for one in study_verdicts(partly)}
    assert found["retained-lower"].num_seeds == 2


def test_an_empty_table_has_nothing_to_compare(table):
    with pytest.raises(UserError, match="the table has no chains"):
        contrasts(table.head(0), "exposure_fraction")


def test_more_fine_tunes_of_one_arm_do_not_lower_its_curve(table):
    """Nested seeds with missing cells: the arm with exposure has eight fine-tunes a checkpoint, the other one."""
    noise = np.random.default_rng(0).normal(0, 0.2, (7, table.height, 2))
    more = [
        table.with_columns(
            finetune_seed=pl.lit(number + 1),
            finetune_id=pl.col("finetune_id") + f"-{number}",
            L_ft=pl.col("L_ft") + noise[number, :, 0],
            L_ret=pl.col("L_ret") + noise[number, :, 1],
        ).filter(LAMBDA == 1)
        for number in range(7)
    ]
    place = table.columns.index("L_im")
    order = [*table.columns[:place], "finetune_seed", *table.columns[place:]]
    nested = pl.concat(
        [table.with_columns(finetune_seed=pl.lit(0)).select(order), *(one.select(order) for one in more)]
    )
    treatment, arms = ["exposure_fraction"], (LAMBDA == 0, LAMBDA == 1)
    for equal in ("L_ft", "L_im"):
        axis = "finetune_lr" if equal == "L_ft" else "posttrain_lr"
        plain = compare_at_equal_loss(table, *arms, treatment, equal=equal, loss="L_ret", axis=axis)
        found = compare_at_equal_loss(nested, *arms, treatment, equal=equal, loss="L_ret", axis=axis)
        assert found.num_blocks == plain.num_blocks
        assert abs(found.result.effect - plain.result.effect) < 0.15, "the mean of eight, not the lowest of them"
    assert compare_at_equal_settings(nested, *arms, "L_ret", treatment).result.n == 3


@pytest.mark.parametrize(
    "settings", [{"flat_margin": 0.0}, {"level": 0.99}, {"level": 0.0}, {"power": 1.0}, {"worst_loss": math.nan}]
)
def test_a_rule_that_is_none_is_refused(settings):
    with pytest.raises(UserError, match=f"inference.{next(iter(settings))} = "):
        Inference(**settings)


def test_at_a_level_near_one_half_a_coin_is_as_often_wrong_as_it_says():
    rng = np.random.default_rng(3)
    wrong = [paired(dict(enumerate(rng.normal(size=4))), 0.49).conclusion() != "inconclusive" for _ in range(3_000)]
    assert np.mean(wrong) == pytest.approx(0.49, abs=0.03)


def test_one_window_has_no_error_of_evaluation_and_says_so(table):
    one = table.with_columns(pl.lit(None, pl.Float64).alias("L_ret_se"))
    result = compare_at_equal_settings(one, LAMBDA == 0, LAMBDA == 1, "L_ret", ["exposure_fraction"]).result
    assert error_sources(one, LAMBDA == 0, LAMBDA == 1, "L_ret", result).buy == "unknown"


def test_looks_at_a_table_without_spread_stay_open(table):
    tied = table.with_columns(pl.lit(3.0).alias(loss) for loss in LOSSES)
    looks = replay(claim_named("retained-lower"), tied, sequential_design((2, 3)), [0, 1, 2])
    assert {one.decision for one in looks} == {OPEN}
