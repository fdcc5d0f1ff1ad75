"""What to run next: from the study's own state, with its price, as a command that can be copied."""

import shlex
from pathlib import Path

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.by_exposure import exposure_blocks
from indelible.claims.paper_claims import study_verdicts
from indelible.report.next_steps import next_steps, source_of
from indelible.results.run_folder import read_study_run
from indelible.results.table import results_table
from indelible.statistics.inference import Inference
from indelible.workflow.reading import open_runs

REFERENCE = Path(__file__).parents[2] / "reference"
ONE = {"post_tokens": (100_000,), "finetune_lrs": (1e-3,)}


def steps_of(table, run=None, places=()):
    verdicts = study_verdicts(table, Inference())
    return next_steps(table, verdicts, Inference(), source_of(table, run, places, []), exposure_blocks(table))


def test_open_after_two_seeds_asks_for_a_third_with_price_and_command(tmp_path):
    runs = open_runs(write_fake_study(tmp_path / "my run", FakeStudy(seeds=(0, 4), benefit=0.0, **ONE)))
    (step,) = runs.next_steps()
    assert step.text.startswith("Open: whether exposure lowers L_ret. Add 1 seed (fewer than 3 say next to nothing")
    assert "core-hours for all chains" in step.text
    folder = str(tmp_path / "my run")
    assert shlex.split(step.command) == [
        "indelible", "run", f"{folder}/study.yaml", "--out", folder, "--set", "seeds=[0,4,1]",
    ]  # fmt: skip


def test_the_price_is_that_of_the_seeds_that_are_there(tmp_path):
    run = read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=(0, 1), benefit=0.0, **ONE)))
    hours = sum(result.total_seconds for result in run.results.values()) / 3600 / 2
    (step,) = steps_of(results_table(run), run)
    assert f": {hours:.2g} core-hours for all chains" in step.text


def test_more_seeds_than_a_study_can_buy_are_not_advised(tmp_path):
    table = results_table(read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=range(6), **ONE))))
    noise = 0.5 * (-1) ** pl.col("seed") - 0.001
    flat = table.with_columns(L_ret=pl.col("L_im") + 1 + noise * pl.col("exposure_fraction"))
    step, *_ = steps_of(flat)
    assert "the effect found is small against the noise. Leave it" in step.text
    assert step.command == ""


def test_a_settled_study_says_so(tmp_path):
    table = results_table(read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=range(8), **ONE))))
    stays = table.with_columns(L_im=3.0 + 1e-4 * pl.col("seed") * pl.col("exposure_fraction"))
    assert [step.text for step in steps_of(stays)] == [
        "Settled: what this study asks of exposure is answered; nothing needs to be run."
    ]


def test_a_study_is_not_settled_while_it_is_open_whether_less_is_erased(tmp_path):
    table = results_table(read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=range(8), **ONE))))
    noise = 0.01 * (-1) ** pl.col("seed") * pl.col("exposure_fraction")
    early = table.with_columns(L_im=3.0 - (0.25 + 1e-4 * pl.col("seed")) * pl.col("exposure_fraction"))
    steps = steps_of(early.with_columns(L_ret=pl.col("L_im") + 1 + noise, forgotten=1 + noise))
    assert steps[0].text.startswith("Open: whether the fine-tune erases less with exposure.")
    assert not any("Settled" in step.text for step in steps)


def capped_study(folder, reasons, patience=3, passes=30):
    """A study whose stage-2 runs ended so, in turn, with 800 windows of 128 tokens of D_post."""
    run = read_study_run(write_fake_study(folder, FakeStudy(seeds=range(8), **ONE)))
    second = sorted(one for one in run.results if one.startswith("posttrain"))
    for place, one in enumerate(second):
        run.results[one] = run.results[one].model_copy(update={"stop_reason": reasons[place % len(reasons)]})
        run.specs[one]["training"] = {"patience": patience}
        run.specs[one]["data"] = {"total_windows": 800 * passes, "main": {"store": "music-0", "windows": 800}}
    stays = results_table(run).with_columns(L_im=3.0 + 1e-4 * pl.col("seed") * pl.col("exposure_fraction"))
    return stays, run


def test_stage_2_cut_short_is_told_first_with_twice_the_budget_and_is_not_settled(tmp_path):
    first, *others = steps_of(*capped_study(tmp_path, ["max_tokens", "max_tokens", "patience"]))
    assert first.text.startswith(
        "Stage 2 ended at posttrain.max_tokens in 16 of 24 runs before early stopping: raise it."
    )
    assert first.command.endswith("--set posttrain.max_tokens=6140000")
    assert not any("Settled" in step.text for step in others)


@pytest.mark.parametrize(
    ("reasons", "settings"),
    [
        (["max_tokens", "patience"], {}),
        (["patience"], {}),
        (["max_tokens"], {"patience": None}),
        (["max_tokens"], {"passes": 1}),
    ],
)
def test_stage_2_that_ended_as_it_should_is_not_told(tmp_path, reasons, settings):
    (step,) = steps_of(*capped_study(tmp_path, reasons, **settings))
    assert step.text.startswith("Settled")


def test_a_table_knows_of_patience_where_it_ended_a_run(tmp_path):
    table, _ = capped_study(tmp_path, ["max_tokens", "max_tokens", "patience"])
    first, *_ = steps_of(table)
    assert first.text.startswith("Stage 2 ended at posttrain.max_tokens in 16 of 24 runs")
    assert first.command == ""
    (matched,) = steps_of(table.with_columns(allocation=pl.lit("matched")))
    assert "Stage 2" not in matched.text
    (unknown,) = steps_of(table.with_columns(posttrain_stop_reason=pl.lit("max_tokens")))
    assert unknown.text.startswith("Settled")


def test_what_is_not_finished_comes_first(tmp_path):
    folder = write_fake_study(tmp_path, FakeStudy(seeds=(0, 1, 2), **ONE))
    next(folder.glob("runs/finetune*/result.json")).unlink()
    first = open_runs(folder).next_steps()[0]
    assert first.text == "1 chain not finished: the same command goes on where it stopped."
    assert first.command == f"indelible run {folder}/study.yaml --out {folder}"


def test_where_nothing_is_forgotten_a_higher_rate_is_priced(tmp_path):
    run = read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=(0, 1, 2), **ONE)))
    table = results_table(run).with_columns(L_ret=pl.col("L_im") + 0.01, forgotten=pl.lit(0.01))
    first = steps_of(table, run)[0]
    assert first.text.startswith("Nothing is forgotten at any stage-3 rate of this study, so no gain can show.")
    assert "core-hours" in first.text
    assert first.command.endswith("--set 'finetune.lr=[0.001, 0.003]'")


def test_of_a_table_there_is_no_command_that_it_could_not_run(tmp_path):
    table = results_table(read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=(0, 1), benefit=0.0, **ONE))))
    (step,) = steps_of(table, places=[tmp_path / "t.parquet"])
    assert step.command == ""
    assert "--until-settled" not in step.text


def test_seeds_of_single_stages_are_planned_by_the_command_that_can(tmp_path):
    fake = FakeStudy(seeds=(0, 1, 2), benefit=0.0, noise=0.2, **ONE)
    table = results_table(read_study_run(write_fake_study(tmp_path, fake)))
    place = table.columns.index("L_im")
    nested = [table.with_columns(L_ret=pl.col("L_ret") + 0.05 * one * pl.col("exposure_fraction"),
                                 finetune_id=pl.col("finetune_id") + f"-{one}")
              .insert_column(place, pl.Series("finetune_seed", [one] * table.height)) for one in (0, 1)]  # fmt: skip
    steps = steps_of(pl.concat(nested), places=[tmp_path / "t.parquet"])
    assert "seeds in all" in steps[0].text or "nothing" in steps[0].text
    assert steps[0].command.startswith(f"indelible seeds {tmp_path}/t.parquet --half-width")


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_every_study_has_a_next_step(tmp_path, seeds):
    assert open_runs(write_fake_study(tmp_path, FakeStudy(seeds=seeds, fractions=(0.5,), **ONE))).next_steps()


def test_behind_a_claim_out_of_reach_comes_one_that_seeds_would_settle():
    first, second, in_reach = open_runs(REFERENCE / "central.parquet").next_steps()
    assert first.text.startswith("Open: whether exposure lowers L_ret. It would take 38 to 587 new seeds")
    assert second.text.startswith("Open: whether the fine-tune erases less with exposure. It would take at least 73")
    assert in_reach.text.startswith("Open: whether exposure lowers L_ret at equal L_ft in")
    assert "core-hours for all chains" in in_reach.text
