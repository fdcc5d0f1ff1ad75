"""Curves long: training, stopping and watched points of every stage run."""

import json

import polars as pl
import pytest
from fake_files import losses_of
from fake_study import FakeStudy, write_fake_study

from indelible.results.curves import curves
from indelible.results.run_folder import read_study_run


@pytest.fixture
def folder(tmp_path):
    return write_fake_study(tmp_path, FakeStudy(seeds=(0,), fractions=(0.0,), post_tokens=(10_000,), is_watched=True))


def test_each_run_stands_once_with_its_points_by_kind_and_corpus(folder):
    run = read_study_run(folder)
    frame = curves(run)
    assert set(frame["run"]) == set(run.results)
    assert frame.select("run", "step", "kind", "corpus").n_unique() == frame.height
    assert set(frame.filter(kind="watch")["stage"]) == {"finetune"}
    assert frame.filter(kind="train")["corpus"].null_count() == frame.filter(kind="train").height
    assert frame.filter(kind="train")["lr"].unique().to_list() == [1e-3]
    stop = frame.filter(kind="stop", stage="posttrain")
    assert stop["corpus"].unique().to_list() == ["music"]
    assert stop["standard_error"].null_count() == stop.height


def test_a_watched_run_has_its_way_from_start_to_end(folder):
    run = read_study_run(folder)
    chain = run.plan.chains[0].stages
    way = curves(run).filter(run=chain["finetune"], kind="watch").pivot("corpus", index="step", values="nats_per_token")
    first, last = way.sort("step").row(0, named=True), way.sort("step").row(-1, named=True)
    assert (first.pop("step"), last.pop("step")) == (0, 100)
    assert first == pytest.approx(losses_of(folder, chain["posttrain"]))
    assert last == pytest.approx(losses_of(folder, chain["finetune"]))
    assert curves(run).filter(kind="watch")["standard_error"].unique().to_list() == [0.02]


def test_losses_that_are_not_finite_and_unknown_groups_do_no_harm(folder):
    run = read_study_run(folder)
    name = run.plan.chains[0].stages["finetune"]
    path = folder / "runs" / name / "metrics.jsonl"
    line = {"step": 101, "tokens": 7, "watch/music/nats_per_token": None, "watch/music/standard_error": None,
            "speed/tokens_per_second": 3.0, "train/guard": 0.5}  # fmt: skip
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    points = curves(run).filter(run=name, step=101)
    assert points.filter(kind="watch").row(0, named=True)["nats_per_token"] is None
    assert points.filter(kind="train")["guard"].to_list() == [0.5]
    assert points.height == 2


def test_runs_without_metrics_have_no_points(tmp_path):
    frame = curves(read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=(0,), is_traced=False))))
    assert frame.height == 0
    assert frame.schema["nats_per_token"] == pl.Float64
