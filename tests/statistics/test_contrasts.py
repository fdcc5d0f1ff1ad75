"""One setting's values against each other."""

import math

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.errors import UserError
from indelible.results.table import read_table
from indelible.statistics.contrasts import contrasts, gains, where


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    study = FakeStudy(noise=0.0, shared_noise=0.1, posttrain_lrs=(1e-3, 1e-2), is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))


def erased(rates=(1e-4, 3e-4, 1e-3)):
    return sum(0.25 * math.log10(rate / 1e-5) ** 1.5 for rate in rates) / len(rates)


def test_every_value_against_the_smallest_one(table):
    found = contrasts(table, "exposure_fraction")
    assert [(one.value, one.against, one.also) for one in found] == [(0.5, 0.0, ()), (1.0, 0.0, ())]
    for one in found:
        result = one.losses["L_ret"].result
        assert result.effect == pytest.approx(-0.4 * one.value * erased())
        assert (result.n, one.losses["L_ret"].num_blocks) == (3, 2 * 2 * 3)
        assert one.losses["L_im"].result.effect == pytest.approx(0)


def test_against_another_value_and_within_the_values_of_another_setting(table):
    found = contrasts(table, "exposure_fraction", "1", ["post_tokens", "finetune_lr"])
    assert [(one.within["post_tokens"], one.within["finetune_lr"], one.value) for one in found] == [
        (tokens, rate, value) for tokens in (10_000, 100_000) for rate in (1e-4, 3e-4, 1e-3) for value in (0.0, 0.5)
    ]
    for one in found:
        gain = 0.4 * (1 - one.value) * erased([one.within["finetune_lr"]])
        assert one.losses["L_ret"].result.effect == pytest.approx(gain)
        assert one.losses["L_ret"].num_blocks == 2


def test_what_differs_along_with_it_is_said_and_not_held_equal(table):
    mixed = pl.col("exposure_fraction") == 1
    named = table.filter(mixed | (pl.col("exposure_fraction") == 0)).with_columns(
        arm=pl.when(mixed).then(pl.lit("mixed")).otherwise(pl.lit("plain")),
        placement=pl.when(mixed).then(pl.lit("late")).otherwise(pl.lit("uniform")),
    )
    (found,) = contrasts(named, "arm", "plain")
    assert (found.value, found.also) == ("mixed", ("exposure_fraction", "placement"))
    assert found.losses["L_ret"].result.effect == pytest.approx(-0.4 * erased())


def test_a_setting_swept_by_one_side_alone_is_still_held_equal(table):
    swept = (pl.col("exposure_fraction") == 0) & (pl.col("finetune_lr") == 3e-4)
    found = contrasts(table.filter(swept | (pl.col("exposure_fraction") == 1)), "exposure_fraction")
    assert found[0].also == ()
    assert found[0].losses["L_ret"].result.effect == pytest.approx(-0.4 * erased([3e-4]))
    assert (found[0].losses["L_ret"].num_blocks, found[0].losses["L_ret"].num_left_out) == (4, 8)


def test_only_the_chosen_values_of_a_setting_are_compared(table):
    chosen = where(table, ["post_tokens=10000", "finetune_lr=0.0001", "finetune_lr=0.001"])
    assert set(chosen["post_tokens"]) == {10_000}
    assert set(chosen["finetune_lr"]) == {1e-4, 1e-3}
    assert where(table, []).equals(table)
    found = contrasts(chosen, "exposure_fraction")
    assert found[1].losses["L_ret"].result.effect == pytest.approx(-0.4 * erased([1e-4, 1e-3]))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("post_tokens", "expected SETTING=VALUE"),
        ("weather=good", "weather is no setting of this table"),
        ("finetune_lr=7", r"--where 7: finetune_lr has 0\.0001"),
    ],
)
def test_a_condition_that_names_nothing_is_refused(table, condition, message):
    with pytest.raises(UserError, match=message):
        where(table, [condition])


def test_one_value_is_nothing_to_compare(table):
    with pytest.raises(UserError, match=r"placement: uniform is all there is, and nothing to compare; .*finetune_lr"):
        contrasts(table, "placement")


def test_what_is_no_setting_is_refused(table):
    with pytest.raises(UserError, match="L_ret is no setting of this table; those that vary: exposure_fraction"):
        contrasts(table, "L_ret")
    with pytest.raises(UserError, match=r"--against 2: exposure_fraction has 0, 0\.5, 1"):
        contrasts(table, "exposure_fraction", "2")


def test_the_gain_of_exposure_is_compared_as_a_loss_is(table):
    changed = gains(table)
    assert changed.height == table.filter(pl.col("exposure_fraction") > 0).height
    (half, whole) = contrasts(changed, "finetune_lr", "0.0001", ["exposure_fraction"])[::2]
    for one in (half, whole):
        more = -0.4 * one.within["exposure_fraction"] * (erased([3e-4]) - erased([1e-4]))
        assert (one.value, one.losses["L_ret"].result.effect) == (3e-4, pytest.approx(more))


def test_without_lambda_0_there_is_no_gain(table):
    with pytest.raises(UserError, match="no finished chain with exposure has a partner at lambda 0"):
        gains(table.filter(pl.col("exposure_fraction") > 0))


def test_a_setting_that_some_chains_lack_has_its_own_group_and_its_own_gain(table):
    lacking = table.with_columns(dropout=pl.when(pl.col("finetune_lr") > 3e-4).then(None).otherwise(pl.lit(0.0)))
    found = contrasts(lacking, "exposure_fraction", within=["dropout"])
    assert [one.within["dropout"] for one in found] == [None, None, 0.0, 0.0]
    assert gains(lacking).height == lacking.filter(pl.col("exposure_fraction") > 0).height
