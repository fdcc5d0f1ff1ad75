"""Evaluations of a checkpoint that exists: the numbers of the training worker, for runs and for given checkpoints."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from heldout import nats_by_transformers, read_windows
from safetensors.torch import load_file, save_file
from tiny_engine import TINY, evaluated, evaluation_job_of, layered, plan_of, quiet, run_all
from tiny_models import tiny_model
from token_folder import plan_on_arrays, write_tokenizer

from indelible.errors import UserError
from indelible.records import Evaluation
from indelible.train.evaluation import run_evaluations

FP32 = layered(TINY, {"precision": "fp32"})
WITHOUT_TIMES = {"seconds", "environment"}


def made(folder) -> dict[str, dict]:
    """Evaluations of a folder by id, but for times."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        record = Evaluation.read(path)
        assert record is not None
        table = pq.read_table(folder / f"{record.id}.documents.parquet").to_pydict()
        found[path.stem] = {**record.model_dump(exclude=WITHOUT_TIMES), "documents": table}
    return found


@pytest.mark.parametrize(
    "stage",
    [{}, {"dropout": 0.3}, {"patience": 2, "lr": 0.3, "max_tokens": 6400}],
    ids=["plain", "dropout", "early stopping"],
)
def test_a_finished_checkpoint_gives_the_bits_of_the_training_worker(tmp_path, stage):
    out = plan_on_arrays(tmp_path, layered(FP32, {"posttrain": stage}), 512)
    for result in run_all(out).values():
        job = evaluation_job_of(out, result.id, tmp_path / "again" / result.id)
        run_evaluations(job, progress=quiet, guard=lambda: None)
        theirs = made(job.evaluations_dir)
        assert len(theirs) == 3
        assert theirs == made(out / "evaluations" / result.id)


def test_merged_adapters_give_the_numbers_of_the_training_worker_to_rounding(tmp_path):
    out = plan_on_arrays(tmp_path, layered(FP32, {"posttrain": {"method": "lora", "lora": {"r": 8, "alpha": 16}}}), 512)
    run_id = run_all(out, until="posttrain")["posttrain"].id
    job = evaluation_job_of(out, run_id, tmp_path / "again")
    run_evaluations(job, progress=quiet, guard=lambda: None)
    theirs, ours = made(job.evaluations_dir), made(out / "evaluations" / run_id)
    assert len(theirs) == len(ours) == 3
    for name, one in ours.items():
        assert theirs[name]["nats_per_token"] == pytest.approx(one["nats_per_token"], abs=2e-6)
        assert theirs[name]["standard_error"] == pytest.approx(one["standard_error"], abs=2e-6)


@pytest.fixture
def given(tmp_path):
    """A study that starts its second stage from a tiny Mistral model; its folder."""
    tiny_model("mistral").save_pretrained(tmp_path / "given")
    write_tokenizer(tmp_path / "given", 64)
    init = {"init": {"from": str(tmp_path / "given"), "at": "posttrain"}}
    return plan_on_arrays(tmp_path / "out", layered({**FP32, **init}, {"posttrain": {"lr": 1e-30}}), 64)


def test_a_given_checkpoint_is_evaluated_like_one_of_our_own(given, tmp_path):
    plan = plan_of(given)
    (start,) = plan.given
    assert start.startswith("given-")
    assert start in plan.evaluations, "the start of a chain is evaluated"
    run_evaluations(evaluation_job_of(given, start, tmp_path / "made"), progress=quiet, guard=lambda: None)
    before = made(tmp_path / "made")
    assert {one["corpus"] for one in before.values()} == {"pre", "post", "ft"}
    for one in before.values():
        windows = read_windows(given / "tokens" / plan.stores[one["corpus"]], 8, 8, 32)
        assert nats_by_transformers(tmp_path / "given", windows) == pytest.approx(one["nats_per_token"], abs=1e-6)
    result = run_all(given, until="posttrain")["posttrain"]  # a stage that moves no weight: the worker's own numbers
    after = evaluated(given, result.id)
    assert {one["corpus"]: one["nats_per_token"] for one in before.values()} == {
        corpus: one.nats_per_token for corpus, one in after.items()
    }


def test_only_what_is_missing_is_evaluated(tmp_path):
    out = plan_on_arrays(tmp_path, FP32, 512)
    run_id = run_all(out, until="pretrain")["pretrain"].id
    folder = out / "evaluations" / run_id
    kept, *gone = sorted(folder.glob("*.json"))
    before, stamp = made(folder), kept.stat().st_mtime_ns
    for path in gone:
        path.unlink()
    run_evaluations(evaluation_job_of(out, run_id, folder), progress=quiet, guard=lambda: None)
    assert made(folder) == before
    assert kept.stat().st_mtime_ns == stamp
    (out / "runs" / run_id / "checkpoint").rename(tmp_path / "elsewhere")
    run_evaluations(evaluation_job_of(out, run_id, folder), progress=quiet, guard=lambda: None)  # nothing is to be done
    kept.unlink()
    with pytest.raises(UserError, match=rf"checkpoint: the checkpoint that {run_id} is evaluated by is not there"):
        run_evaluations(evaluation_job_of(out, run_id, folder), progress=quiet, guard=lambda: None)


def test_an_evaluation_is_there_once_its_record_is_there(tmp_path, monkeypatch):
    out = plan_on_arrays(tmp_path, FP32, 512)
    run_id = run_all(out, until="pretrain")["pretrain"].id

    def crash(self: Evaluation, path) -> None:
        assert path.with_name(f"{self.id}.documents.parquet").exists(), "the losses by document come first"
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "write", crash)
        with pytest.raises(OSError, match="the disk is full"):
            run_evaluations(evaluation_job_of(out, run_id, tmp_path / "made"), progress=quiet, guard=lambda: None)
    assert not list((tmp_path / "made").glob("*.json"))
    run_evaluations(evaluation_job_of(out, run_id, tmp_path / "made"), progress=quiet, guard=lambda: None)
    assert made(tmp_path / "made") == made(out / "evaluations" / run_id)


def test_no_evaluation_is_written_after_the_guard_objects(tmp_path):
    out = plan_on_arrays(tmp_path, FP32, 512)
    run_id = run_all(out, until="pretrain")["pretrain"].id

    def guard() -> None:
        raise PermissionError("the lease is lost")

    with pytest.raises(PermissionError):
        run_evaluations(evaluation_job_of(out, run_id, tmp_path / "made"), progress=quiet, guard=guard)
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_whose_loss_is_not_a_number_is_a_result(tmp_path):
    out = plan_on_arrays(tmp_path, FP32, 512)
    run_id = run_all(out, until="pretrain")["pretrain"].id
    file = out / "runs" / run_id / "checkpoint" / "model.safetensors"
    state = load_file(file)
    state["model.norm.weight"] = torch.full_like(state["model.norm.weight"], torch.nan)
    save_file(state, file, {"format": "pt"})
    run_evaluations(evaluation_job_of(out, run_id, tmp_path / "made"), progress=quiet, guard=lambda: None)
    found = made(tmp_path / "made")
    assert len(found) == 3
    for name, one in found.items():
        assert (one["status"], one["nats_per_token"], one["standard_error"]) == ("diverged", None, None)
        assert (one["bits_per_byte"], one["tokens"], one["windows"]) == (None, 256, 8)
        assert np.isnan(one["documents"]["nats"]).all()
        assert json.loads((tmp_path / "made" / f"{name}.json").read_text())["nats_per_token"] is None


def test_a_given_checkpoint_with_other_tokens_is_refused(given, tmp_path):
    write_tokenizer(tmp_path / "given", 64, prefix="x")
    (start,) = plan_of(given).given
    with pytest.raises(UserError, match=r"its tokenizer is not the study's: 64 of the study's 64 tokens"):
        run_evaluations(evaluation_job_of(given, start, tmp_path / "made"), progress=quiet, guard=lambda: None)


def test_progress_may_stop_an_evaluation(tmp_path):
    out = plan_on_arrays(tmp_path, FP32, 512)
    run_id = run_all(out, until="pretrain")["pretrain"].id
    phases = []

    def stop(now) -> None:
        phases.append(now.phase)
        if len(phases) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_evaluations(evaluation_job_of(out, run_id, tmp_path / "made"), progress=stop, guard=lambda: None)
    assert phases == ["loading", "evaluating", "evaluating"]
    assert not (tmp_path / "made").exists()


def test_bits_per_byte_and_the_time_it_took(tmp_path):
    out = plan_on_arrays(tmp_path, layered(TINY, {"precision": "fp32"}), 512)  # four bytes a token
    found = evaluated(out, run_all(out, until="pretrain")["pretrain"].id)
    assert len(found) == 3
    for one in found.values():
        assert one.bits_per_byte == pytest.approx(one.nats_per_token / math.log(2) / 4, rel=1e-12)
        assert 0 <= one.seconds < 60
