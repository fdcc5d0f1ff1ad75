"""A diverged chain can lose a comparison for its arm and never win one by dropping out."""

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.results.table import read_table
from indelible.statistics.compare import compare_at_equal_loss, compare_at_equal_settings
from indelible.statistics.contrasts import contrasts, gains
from indelible.statistics.divergence import with_worst
from indelible.statistics.frontier_score import compare_frontiers
from indelible.statistics.inference import WORST_LOSS, Inference

UNMIXED, MIXED = pl.col("exposure_fraction") == 0, pl.col("exposure_fraction") == 1
TREATMENT = ["exposure_fraction"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    study = FakeStudy(fractions=(0.0, 1.0), noise=0.05, post_tokens=(10_000,), is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))


def diverge(table, run_id):
    """As the table would have it: the losses after the last stage are absent."""
    is_bad = pl.col("finetune_id") == run_id
    losses = [pl.when(is_bad).then(None).otherwise(loss).alias(loss) for loss in ("L_ret", "L_ft", "L_pre")]
    return table.with_columns(*losses, status=pl.when(is_bad).then(pl.lit("diverged")).otherwise("status"))


def effects(table):
    """Second minus first, negative where the mixed arm is better, by every comparison there is."""
    frontier = compare_frontiers(table.filter(UNMIXED), table.filter(MIXED), ("L_ft", "L_ret"), Inference(), TREATMENT)
    general = compare_frontiers(table.filter(UNMIXED), table.filter(MIXED), ("L_ret", "L_pre"), Inference(), TREATMENT)
    return [
        compare_at_equal_settings(table, UNMIXED, MIXED, "L_ret", TREATMENT).result.effect,
        compare_at_equal_settings(table, UNMIXED, MIXED, "L_im", TREATMENT).result.effect,
        compare_at_equal_loss(
            table, UNMIXED, MIXED, TREATMENT, equal="L_ft", loss="L_ret", axis="finetune_lr"
        ).result.effect,
        contrasts(table, "exposure_fraction")[0].losses["L_pre"].result.effect,
        gains(table)["L_ret"].mean(),
        frontier.result.effect,
        general.result.effect,
    ]


def test_marking_any_one_chain_diverged_never_moves_an_effect_in_favour_of_its_arm(table):
    before = effects(table)
    moved = 0
    for run_id, fraction in table.select("finetune_id", "exposure_fraction").rows():
        is_bad = pl.col("finetune_id") == run_id
        word_alone = table.with_columns(status=pl.when(is_bad).then(pl.lit("diverged")).otherwise("status"))
        for marked in (diverge(table, run_id), word_alone):
            after = effects(marked)
            for old, new in zip(before, after, strict=True):
                assert (new - old) * (1 if fraction == 1 else -1) >= -1e-12
                moved += new != old
    assert moved > 4 * 2 * table.height  # and nearly always it moves against its arm


def test_the_worst_chain_of_all_is_no_exception(table):
    """Were a divergence the largest loss seen, to lose the largest one would be a gain."""
    worst = table.filter(MIXED).sort("L_ret")["finetune_id"][-1]
    assert effects(diverge(table, worst))[0] > effects(table)[0]


def test_two_diverged_chains_of_one_setting_do_not_differ(table):
    chains = table.filter((pl.col("seed") == 0) & (pl.col("finetune_lr") == 1e-3))["finetune_id"]
    both = diverge(diverge(table, chains[0]), chains[1])
    found = compare_at_equal_settings(both, UNMIXED, MIXED, "L_ret", TREATMENT)
    assert (found.num_diverged, found.num_blocks, found.num_left_out) == (2, 3, 0)
    rest = table.filter((pl.col("seed") == 0) & (pl.col("finetune_lr") != 1e-3))
    pairs = rest.filter(MIXED)["L_ret"].sum() - rest.filter(UNMIXED)["L_ret"].sum()
    assert found.result.differences[0] == pytest.approx(pairs / 3)


def test_what_was_measured_before_the_divergence_stays(table):
    run_id = table["finetune_id"][0]
    rows = with_worst(diverge(table, run_id), ["L_im", "L_ret"]).filter(finetune_id=run_id)
    assert rows["L_im"].item() == table["L_im"][0]
    assert rows["L_ret"].item() == WORST_LOSS
    lost = diverge(table, run_id).with_columns(
        L_im=pl.when(pl.col("finetune_id") == run_id).then(None).otherwise("L_im")
    )
    assert with_worst(lost, ["L_im"]).filter(finetune_id=run_id)["L_im"].item() == WORST_LOSS


def test_no_loss_counts_for_more_than_the_worst(table):
    rows = with_worst(table.with_columns(L_ret=pl.lit(99.0)), ["L_ret"])
    assert rows["L_ret"].unique().to_list() == [WORST_LOSS]
    assert (
        with_worst(table.with_columns(L_ret=None, status=pl.lit("done")), ["L_ret"])["L_ret"].null_count()
        == table.height
    )


def test_what_is_not_finished_has_no_outcome(table):
    unfinished = table.with_columns(status=pl.lit("incomplete"))
    assert with_worst(unfinished, ["L_ret"]).height == 0
    assert with_worst(table.with_columns(status=pl.lit("failed")), ["L_ret"]).height == 0
