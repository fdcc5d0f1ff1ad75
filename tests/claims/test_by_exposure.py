"""How much to show in words: worth it, cannot be told apart, or nothing to save."""

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.by_exposure import answer, cells, default_rate, exposure_blocks, note
from indelible.errors import UserError
from indelible.results.table import read_table


def blocks_of(folder, rate=None, **study):
    return exposure_blocks(read_table(write_fake_study(folder, FakeStudy(post_tokens=(100_000,), **study))), rate=rate)


def test_what_pays_is_said_with_its_interval_its_price_and_what_ties(tmp_path):
    found = blocks_of(tmp_path, seeds=range(5))
    assert [block.rate for block in found] == [1e-4, 3e-4, 1e-3]
    text = answer(found[-1])
    assert text.startswith("It pays: λ 1 has the lowest L_ret, -0.")
    assert "(97.5 %) nats against λ 0 for 5 % more pretraining." in text
    assert "95 % (paired over seeds, t, Bonferroni over its λ)" in note(found)


def test_where_a_gain_comes_from_is_said(tmp_path):
    study = FakeStudy(post_tokens=(100_000,), seeds=range(5), benefit=0.0, noise=0.002, finetune_lrs=(1e-3,))
    moved = -0.25 * pl.col("exposure_fraction")
    table = read_table(write_fake_study(tmp_path, study))
    (block,) = exposure_blocks(table.with_columns(L_im=pl.col("L_im") + moved, L_ret=pl.col("L_ret") + moved))
    best = block.best
    assert (best.change_im, best.change_forgotten) == pytest.approx((-0.25, 0.0), abs=0.01)
    assert best.change_im + best.change_forgotten == pytest.approx(best.change.effect)
    source = f"Of this {best.change_im:+.4f} is in L_im at hand-over and {best.change_forgotten:+.4f} in what is forg"
    assert source in answer(block)


def test_a_lambda_that_is_not_told_from_none_is_not_recommended(tmp_path):
    study = FakeStudy(post_tokens=(100_000,), seeds=range(6), finetune_lrs=(1e-3,), fractions=(0.0, 0.25, 0.5, 1.0))
    table = read_table(write_fake_study(tmp_path, study))
    sign = (-1.0) ** pl.col("seed")
    gains = {
        0.0: pl.lit(0.0),
        0.25: 0.1 + 0.6 * sign,
        0.5: 0.29 + 0.02 * sign,
        1.0: 0.30 + 0.02 * sign.shift(1, fill_value=1.0),
    }
    gain = pl.coalesce(pl.when(pl.col("exposure_fraction") == one).then(value) for one, value in gains.items())
    (block,) = exposure_blocks(table.with_columns(L_ret=4.0 - gain))
    assert [row.fraction for row in block.candidates] == [0.25, 0.5, 1.0]
    assert answer(block).endswith("λ 0.25, 0.5; the least of them that is told from λ 0 is λ 0.5.")


def test_what_is_within_the_noise_cannot_be_told_apart(tmp_path):
    text = answer(blocks_of(tmp_path, seeds=(0, 1), benefit=0.0, noise=0.05)[0])
    assert "annot be told apart from showing none" in text or text.startswith("Showing none has the lowest mean")
    assert "It pays" not in text


def test_one_seed_has_no_interval(tmp_path):
    text = answer(blocks_of(tmp_path, seeds=(0,))[-1])
    assert "one seed has no interval" in text
    assert "told" not in text


def test_where_nothing_is_forgotten_no_gain_can_show_and_the_fix_is_named(tmp_path):
    folder = write_fake_study(tmp_path, FakeStudy(seeds=(0, 1, 2), post_tokens=(100_000,), benefit=0.0))
    table = read_table(folder).with_columns(L_ret=pl.col("L_im") + 0.01, forgotten=pl.lit(0.01))
    (block, *_) = exposure_blocks(table)
    assert block.is_nothing_forgotten
    assert answer(block).startswith(
        "Without exposure nothing is forgotten at this rate (+0.010 nats; up to 0.03 counts"
    )
    assert "so no gain can show: take a higher stage-3 rate, or more D_ft." in answer(block)


def test_the_rate_shown_first_is_the_lowest_that_forgets(tmp_path):
    found = blocks_of(tmp_path)
    assert default_rate(found) == 1e-4
    assert default_rate([]) is None


def test_a_rate_can_be_chosen_and_another_is_refused(tmp_path):
    assert [block.rate for block in blocks_of(tmp_path, rate=3e-4)] == [3e-4]
    table = read_table(tmp_path)
    with pytest.raises(UserError, match=r"--finetune-lr 0\.5: no chain has this stage-3 rate; there are 0\.0001"):
        exposure_blocks(table, rate=0.5)


def test_treatments_are_blocks_of_their_own_and_never_averaged(tmp_path):
    found = blocks_of(tmp_path, rate=1e-3, dropouts=(0.0, 0.1))
    assert [block.scope for block in found] == ["dropout 0", "dropout 0.1"]


def test_a_chain_that_diverged_counts_as_the_worst_and_is_shown(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(post_tokens=(100_000,), finetune_lrs=(1e-3,))))
    is_lost = (pl.col("exposure_fraction") == 1) & (pl.col("seed") == 0)
    lost = table.with_columns(
        status=pl.when(is_lost).then(pl.lit("diverged")).otherwise("status"),
        L_ret=pl.when(~is_lost).then("L_ret"), forgotten=pl.when(~is_lost).then("forgotten"),
    )  # fmt: skip
    (block,) = exposure_blocks(lost)
    assert cells(block)[-1]["seeds"] == "3 (1 diverged)"
    assert block.rows[-1].losses["L_ret"] > 12.5 / 3
    assert block.best.fraction == 0.5
    assert block.rows[-1].change_im is None, "the parts of a change that counts as the worst are not known"
