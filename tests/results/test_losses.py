"""Losses long: every evaluation of every chain's checkpoints, and the derived files."""

import polars as pl
import pytest
from fake_files import diverge, forget, losses_of, set_loss
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study

from indelible.results.columns import setting_columns
from indelible.results.derived import write_derived
from indelible.results.losses import losses
from indelible.results.run_folder import read_study_run
from indelible.results.table import results_table

FIVE = {
    "name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0, 1],
    "finetune": {"lr": [1e-5, 1e-3]}, "stages": {"second": {"corpus": "instruction"}},
    "evaluation": {"corpora": ["art"]},
    "corpora": {"art": {"kind": "synthetic", "language": 3}},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return read_study_run(write_resolved_study(tmp_path, FIVE))


def test_a_row_for_each_chain_checkpoint_and_corpus(run):
    frame = losses(run)
    assert frame.height == 4 * 4 * 5  # chains, stages, corpora
    assert frame.select("chain", "stage", "corpus").n_unique() == frame.height
    assert frame["stage"].unique(maintain_order=True).to_list() == ["pretrain", "posttrain", "finetune", "second"]
    assert frame["status"].unique().to_list() == ["done"]
    for row in frame.sample(20, seed=0).to_dicts():
        assert row["checkpoint"] == run.plan.chains[row["chain"]].stages[row["stage"]]
        assert row["nats_per_token"] == losses_of(run.root, row["checkpoint"])[row["corpus"]]
        assert row["bits_per_byte"] == row["nats_per_token"] / 2.9
        assert (row["standard_error"], row["tokens"], row["documents"], row["windows"]) == (0.02, 16384, 64, 128)
        assert row["loss_on"] == "all"


def test_each_evaluation_is_first_once(run):
    first = losses(run).filter("is_first")
    assert first.height == first["evaluation"].n_unique() == len(run.evaluations)
    shared = first.filter(stage="pretrain")
    assert shared.height == 2 * 5  # two seeds: the chains of one share their pretraining


def test_settings_and_the_number_of_the_chain_are_those_of_the_table(run):
    frame, table = losses(run), results_table(run)
    settings = [*setting_columns(table), "seed"]
    for row in frame.select("chain", *settings).unique().to_dicts():
        assert {name: row[name] for name in settings} == table.select(settings).row(row["chain"], named=True)


def test_the_table_is_views_of_the_long_losses(run):
    frame, table = losses(run), results_table(run)
    for view, stage, corpus in (("L_im", "posttrain", "music"), ("L_ret", "finetune", "music"),
                                ("L_ft", "finetune", "chemistry"), ("L_pre", "finetune", "general")):  # fmt: skip
        own = frame.filter(stage=stage, corpus=corpus).sort("chain")
        assert own["nats_per_token"].to_list() == table[view].to_list()
        assert own["standard_error"].to_list() == table[f"{view}_se"].to_list()


def test_what_is_not_there_has_a_row_with_its_status(run):
    second, finetune = (run.plan.chains[0].stages[stage] for stage in ("second", "finetune"))
    diverge(run.root, finetune)
    forget(run.root, second)
    set_loss(run.root, run.plan.chains[0].stages["posttrain"], "art", status="diverged", nats_per_token=None)
    forget(run.root, run.plan.chains[1].stages["second"])
    frame = losses(read_study_run(run.root)).filter(chain=0)
    assert frame.filter(pl.col("stage").is_in(["finetune", "second"]))["status"].unique().to_list() == ["diverged"]
    assert frame.filter(stage="finetune")["nats_per_token"].null_count() == 5
    assert frame.filter(stage="posttrain").sort("status")["status"].to_list() == ["diverged", *["done"] * 4]
    later = losses(read_study_run(run.root)).filter(chain=1, stage="second")
    assert later["status"].unique().to_list() == ["incomplete"]


def test_a_given_checkpoint_is_the_start(tmp_path):
    study = FIVE | {"init": {"from": "/models/base", "at": "posttrain"}}
    frame = losses(read_study_run(write_resolved_study(tmp_path, study))).filter(chain=0)
    assert frame["stage"].unique(maintain_order=True).to_list() == ["start", "posttrain", "finetune", "second"]
    assert frame["checkpoint"][0].startswith("given-")


def test_the_derived_files(tmp_path):
    folder = write_fake_study(tmp_path / "run", FakeStudy(seeds=(0,), is_watched=True))
    run = read_study_run(folder)
    paths = write_derived(run)
    assert [path.name for path in paths] == ["results.parquet", "losses.parquet", "curves.parquet"]
    assert pl.read_parquet(paths[0]).equals(results_table(run))
    assert pl.read_parquet(paths[1]).equals(losses(run))
    elsewhere = write_derived(run, tmp_path / "other")
    assert [path.read_bytes() for path in elsewhere] == [path.read_bytes() for path in paths]
