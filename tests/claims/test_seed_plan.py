"""The next seeds to buy: half-widths, prices, what cannot be planned, and the command."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import typer
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

from indelible.claims.paper_claims import study_verdicts
from indelible.claims.seed_plan import plan_text, seed_plans
from indelible.cli.main import build_app
from indelible.errors import UserError
from indelible.results.core_hours import core_seconds, hours_unit
from indelible.results.run_folder import read_study_run
from indelible.results.table import read_table
from indelible.statistics.inference import Inference, t_quantile
from indelible.workflow.reading import open_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    fake = FakeStudy(fractions=(0.0, 0.5, 1.0), post_tokens=(10_000,), seeds=range(4), noise=0.05, is_traced=False)
    return write_fake_study(tmp_path_factory.mktemp("study") / "run", fake)


@pytest.fixture(scope="module")
def table(folder):
    hours = {"pretrain_seconds": 3600.0, "posttrain_seconds": 1800.0, "finetune_seconds": 600.0}
    return read_table(folder).with_columns(pl.lit(value).alias(name) for name, value in hours.items())


def nested(table, sds, num=3):
    """Every chain again with ``num`` fine-tuning seeds; the spread of L_ret at λ 1 is as given, by level."""
    generator = np.random.default_rng(0)
    first = {seed: generator.normal(0, sds[0]) for seed in table["seed"].unique()}
    rows = []
    for row in table.iter_rows(named=True):
        for again in range(num):
            change = first[row["seed"]] + generator.normal(0, sds[1])
            rows.append({**row, "finetune_seed": again, "L_ret": 4.0 + row["exposure_fraction"] * change,
                         "finetune_id": f"{row['finetune_id']}-{again}"})  # fmt: skip
    columns = list(table.columns)
    columns.insert(columns.index("L_im"), "finetune_seed")
    return pl.DataFrame(rows, schema_overrides=table.schema).select(columns)


def test_the_width_now_is_that_of_the_verdict(table):
    (plan,) = seed_plans(table, "L_ret", 0.001, None)
    found = next(one.finding for one in study_verdicts(table, is_corrected=False) if one.claim == "retained-lower")
    assert plan.now == pytest.approx((found.high - found.low) / 2)
    assert plan.scope == found.scope
    strict = seed_plans(table, "L_ret", 0.001, None, Inference(level=0.01))[0]
    assert strict.now > plan.now


def test_a_seed_costs_the_runs_of_both_arms_once(table):
    (plan,) = seed_plans(table, "L_ret", 0.001, None)
    (level,) = plan.levels
    rates = table["finetune_lr"].n_unique()
    assert level.hours == pytest.approx(2 * (1.0 + 0.5 + rates / 6)), "λ 0.5 is neither bought nor paid for"
    assert plan.best.hours == pytest.approx((plan.best.counts[0] - 4) * level.hours)
    assert plan.new_runs == (plan.best.counts[0] - 4,)


def test_the_width_is_reached_with_the_fewest_hours(table):
    (plan,) = seed_plans(table, "L_ret", 0.02, None)
    assert plan.best.is_reached
    assert plan.best.half_width <= 0.02
    (short,) = seed_plans(table, "L_ret", 0.02, plan.best.hours - 0.01)
    assert not short.best.is_reached
    assert short.best.counts[0] == plan.best.counts[0] - 1
    assert "±0.02 is not reached" in plan_text(short, "core-hours")


def test_hours_alone_buy_the_narrowest_and_nothing_is_called_missed(table):
    (plan,) = seed_plans(table, "L_ret", None, 30.0)
    assert plan.best.hours <= 30
    assert plan.best.hours + plan.levels[0].hours > 30
    text = plan_text(plan, "core-hours")
    assert "not reached" not in text
    assert f"buy up to {plan.best.counts[0]} seeds in all" in text


def test_a_width_that_is_there_costs_nothing(table):
    (plan,) = seed_plans(table, "L_ret", 1.0, None)
    assert plan.new_runs == (0,)
    assert "nothing to buy: the width is reached" in plan_text(plan, "core-hours")
    (poor,) = seed_plans(table, "L_ret", None, 0.1)
    assert "nothing: no hours for a seed more" in plan_text(poor, "core-hours")


def test_the_stage_that_makes_the_spread_is_bought(table):
    table = table.with_columns(finetune_seconds=60.0)
    cheap = seed_plans(nested(table, (0.0, 0.3)), "L_ret", 0.1, None)[0]
    assert [one.name for one in cheap.levels] == ["seed", "finetune_seed"]
    assert cheap.best.counts[1] > 3, "fine-tunes are cheap and make the spread"
    first = seed_plans(nested(table, (0.3, 0.0)), "L_ret", 0.1, None)[0]
    assert first.best.counts[1] == 3, "more fine-tunes of the same checkpoints would not help"
    assert first.best.counts[0] > cheap.best.counts[0]
    assert cheap.new_runs == (cheap.best.counts[0] - 4, cheap.best.counts[0] * cheap.best.counts[1] - 12)
    assert "finetune: 3 under each seed before" in plan_text(cheap, "core-hours")


def test_one_time_in_four_the_spread_is_larger_than_the_second_width_takes():
    generator = np.random.default_rng(1)
    fake = {"scale": "pico", "pipeline": "a>b>c", "post_tokens": 1, "arm": "", "allocation": "full", "status": "done",
            "exposure_mode": "add", "placement": "uniform", "posttrain_global_batch_size": 1, "L_im": 2.0,
            "L_ret_se": 0.0, "finetune_seconds": 3600.0}  # fmt: skip
    wider = 0
    for _ in range(200):
        rows = [{**fake, "seed": seed, "exposure_fraction": fraction, "finetune_id": f"{seed}-{fraction}",
                 "L_ret": 5.0 + fraction * generator.normal()}
                for seed in range(4) for fraction in (0.0, 1.0)]  # fmt: skip
        (plan,) = seed_plans(pl.DataFrame(rows), "L_ret", None, 20.0)
        n = plan.best.counts[0]
        wider += t_quantile(0.975, n - 1) / np.sqrt(n) > plan.wide  # the true spread is 1
    assert wider / 200 == pytest.approx(0.25, abs=0.09)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, None), "give --half-width .nats per token., --core-hours, or both"),
        ((0.0, None), "--half-width 0: expected a number above 0"),
        ((float("nan"), None), "--half-width nan: expected"),
        ((None, float("inf")), "--core-hours inf: expected"),
        ((None, -1.0), "--core-hours -1: expected"),
    ],
)
def test_widths_and_hours_that_are_none_are_refused(table, arguments, said):
    with pytest.raises(UserError, match=said):
        seed_plans(table, "L_ret", *arguments)


def test_what_cannot_be_planned_says_why(table):
    with pytest.raises(UserError, match="--loss L_x: no loss of this table; choose one of L_im, L_ret"):
        seed_plans(table, "L_x", 0.1, None)
    with pytest.raises(UserError, match="--loss seed: no loss"):
        seed_plans(table, "seed", 0.1, None)
    with pytest.raises(UserError, match="1 seed with both arms: the spread between seeds takes two or more"):
        seed_plans(table.filter(seed=0), "L_ret", 0.1, None)
    with pytest.raises(UserError, match="no pipeline has finished chains at λ 0 and a larger λ"):
        seed_plans(table.filter(exposure_fraction=0.0), "L_ret", 0.1, None)
    untimed = table.with_columns(pl.lit(None, pl.Float64).alias(f"{stage}_seconds")
                                 for stage in ("pretrain", "posttrain", "finetune"))  # fmt: skip
    with pytest.raises(UserError, match="no training times for the stages of seed, so seeds have no price"):
        seed_plans(untimed, "L_ret", 0.1, None)
    with pytest.raises(UserError, match="do not vary between seeds"):
        seed_plans(table.with_columns(L_ret=3.0 - pl.col("exposure_fraction")), "L_ret", 0.1, None)
    once = nested(table, (0.1, 0.1)).filter(finetune_seed=pl.col("seed") % 3)
    assert len(seed_plans(once, "L_ret", 0.1, None)[0].levels) == 1, "a stage seed that follows the first is no level"


def test_core_hours_are_the_runs_own_time_by_threads(folder):
    run = read_study_run(folder)
    name, result = next(iter(run.results.items()))
    changed = {
        **run.results,
        name: result.model_copy(update={"total_seconds": 100.0, "environment": {"device": "cpu", "threads": 4}}),
    }
    table = core_seconds(read_table(folder), replace(run, results=changed))
    stage = result.stage
    assert table.filter(pl.col(f"{stage}_id") == name)[f"{stage}_seconds"].unique().to_list() == [400.0]
    assert hours_unit(run) == "core-hours"
    on_gpu = {**run.results, name: result.model_copy(update={"environment": {"device": "X", "threads": 4}})}
    assert hours_unit(replace(run, results=on_gpu)) == "device-hours"
    alone = core_seconds(read_table(folder), replace(run, results=on_gpu))
    assert alone.filter(pl.col(f"{stage}_id") == name)[f"{stage}_seconds"][0] == pytest.approx(result.total_seconds)


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    return build_app("seeds")


def test_the_command_and_the_library_say_the_same(app, folder, table, tmp_path):
    done = CliRunner().invoke(app, ["seeds", str(folder), "--half-width", "0.02", "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)
    (plan,) = open_runs(folder).next_seeds(half_width=0.02)
    assert rows[0]["best"]["hours"] == plan.best.hours
    assert rows[0]["new_runs"] == list(plan.new_runs)
    text = CliRunner().invoke(app, ["seeds", str(folder), "--half-width", "0.02"], catch_exceptions=False).stdout
    assert plan_text(plan, "core-hours") in text
    assert "the parts of the stages cannot be told apart" in text
    assert "times its threads" in text
    table.write_parquet(tmp_path / "table.parquet")
    of_table = CliRunner().invoke(app, ["seeds", str(tmp_path / "table.parquet"), "--core-hours", "50"]).stdout
    assert "one core a stage run is assumed" in of_table
    with pytest.raises(UserError, match="give --half-width"):
        CliRunner().invoke(app, ["seeds", str(folder)], catch_exceptions=False)
