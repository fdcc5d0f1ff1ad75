"""Held-out windows: none both stops a stage and is reported; errors and losses by document against hand counts."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from heldout import losses_by_transformers, read_windows
from tiny_engine import TINY, evaluated, job_of, layered, loop_of, losses_of, plan_of, quiet, run_all, runs_of
from token_folder import DOCUMENT_TOKENS, plan_on_arrays

from indelible.errors import UserError
from indelible.records import documents_path
from indelible.train.evaluate import DocumentLosses
from indelible.train.inputs import open_inputs
from indelible.train.stage import run_stage

FP32 = layered(TINY, {"precision": "fp32"})


def completions(size: int) -> np.ndarray:
    """Every eleventh token and the two after it belong to a completion."""
    return np.arange(size) % 11 < 3


def rows(tokens: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in tokens}


@pytest.mark.parametrize(
    ("stop_windows", "windows", "stop", "reported"), [(8, 8, 8, 8), (3, 20, 3, 20), (99, 99, 15, 16)]
)
def test_no_window_both_stops_a_stage_and_is_reported(tmp_path, stop_windows, windows, stop, reported):
    over = {"evaluation": {"stop_windows": stop_windows, "windows": windows}, "posttrain": {"patience": 2}}
    out = plan_on_arrays(tmp_path, layered(FP32, over), 512)
    run_all(out, until="pretrain")
    loop = loop_of(out, "posttrain")
    store = out / "tokens" / plan_of(out).stores["post"]
    job = job_of(out, runs_of(out, "posttrain")[0])
    shown = next(one for name, one in open_inputs(loop.spec, job).reported.items() if name.startswith("post-"))
    assert np.array_equal(loop.context.stop_rule.heldout.tokens, read_windows(store, 0, stop, 32))
    assert np.array_equal(shown.heldout.tokens, read_windows(store, stop, reported, 32))
    assert len(rows(shown.heldout.tokens)) == reported, "31 different windows are there"
    assert rows(shown.heldout.tokens).isdisjoint(rows(loop.context.stop_rule.heldout.tokens))


def test_reported_windows_are_the_same_whatever_stops(tmp_path):
    tables = []
    for name, over in (
        ("plain", {"posttrain": {"eval_interval": None, "patience": None}}),
        ("stops", {"posttrain": {"patience": 1, "min_improvement": 50.0}}),
        ("all stop", {stage: {"eval_interval": 1} for stage in ("pretrain", "posttrain", "finetune")}),
    ):
        out = plan_on_arrays(tmp_path / name, layered(FP32, over), 512)
        results = run_all(out)
        kinds = plan_of(out).heldout
        found = {}
        for result in results.values():
            for corpus, one in evaluated(out, result.id).items():
                table = pq.read_table(documents_path(out, result.id, one.id))
                found[result.stage, corpus] = (table["document"].to_pylist(), table["tokens"].to_pylist())
        tables.append((kinds, found))
    assert len(tables[0][1]) == 9
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("loss_on", ["all", "completion"])
def test_losses_by_document_and_their_standard_error_by_hand(tmp_path, loss_on):
    study = layered(FP32, {"data": {"loss_on": loss_on}, "pretrain": {"lr": 0.03}})
    out = plan_on_arrays(tmp_path, study, 512, completions=completions)
    run_id = run_all(out, until="pretrain")["pretrain"].id
    for corpus, loss in evaluated(out, run_id).items():
        windows = read_windows(out / "tokens" / plan_of(out).stores[corpus], 8, 8, 32)
        each = losses_by_transformers(out / "runs" / run_id / "checkpoint", windows)
        clusters: dict[int, list[float]] = {}
        for window in range(8):
            for target in range(32):
                place = (8 + window) * 32 + target + 1
                if loss_on == "all" or place % 11 < 3:
                    clusters.setdefault(place // DOCUMENT_TOKENS, []).append(each[window, target])
        tokens = sum(map(len, clusters.values()))
        mean = sum(map(sum, clusters.values())) / tokens
        squares = sum((sum(one) - mean * len(one)) ** 2 for one in clusters.values())
        error = (len(clusters) / (len(clusters) - 1) * squares) ** 0.5 / tokens
        assert loss.tokens == tokens == (256 if loss_on == "all" else 69)
        assert loss.documents == len(clusters) == 5
        assert loss.nats_per_token == pytest.approx(mean, abs=5e-7)
        assert loss.standard_error == pytest.approx(error, rel=1e-4)
        table = pq.read_table(documents_path(out, run_id, loss.id)).to_pydict()
        assert table["document"] == sorted(clusters)
        assert table["tokens"] == [len(clusters[number]) for number in sorted(clusters)]
        assert table["nats"] == pytest.approx([sum(clusters[number]) for number in sorted(clusters)], rel=1e-6)
        assert sum(table["nats"]) / sum(table["tokens"]) == pytest.approx(loss.nats_per_token, rel=1e-12)


def test_the_standard_error_is_that_of_a_bootstrap_over_documents():
    source = np.random.Generator(np.random.PCG64(0))
    tokens = source.integers(5, 200, 300)
    nats = tokens * (3 + source.normal(0, 0.5, 300))
    found = DocumentLosses(np.arange(300), tokens, nats)
    draws = source.integers(0, 300, (4000, 300))
    means = nats[draws].sum(1) / tokens[draws].sum(1)
    assert found.standard_error == pytest.approx(means.std(), rel=0.05)
    independent = 0.5 / np.sqrt(tokens.sum())  # as if every target were a document of its own
    assert found.standard_error > 5 * independent


def test_one_document_has_no_standard_error():
    assert DocumentLosses(np.array([3]), np.array([10]), np.array([20.0])).standard_error is None


def test_completion_targets_alone_are_trained_and_stop_a_stage(tmp_path):
    over = {"data": {"loss_on": "completion"}, "pretrain": {"eval_interval": 1}}
    out = plan_on_arrays(tmp_path, layered(FP32, over), 512, completions=completions)
    loop = loop_of(out)
    start = tmp_path / "start"
    loop.program.model.save_pretrained(start)
    order = [int(row) for row in loop.ledger.window[:4]]
    assert loop.run() == "max_tokens"
    store = out / "tokens" / plan_of(out).stores["pre"]
    tokens = np.load(store / "train-00000.npy").astype(np.int64)
    windows = np.stack([tokens[row * 32 : row * 32 + 33] for row in order])
    counts = np.stack([completions(len(tokens))[row * 32 + 1 : row * 32 + 33] for row in order])
    first = losses_by_transformers(start, windows)[counts].mean()
    assert losses_of(loop.context.run_dir)[1] == pytest.approx(first, abs=1e-6)
    stop = losses_by_transformers(start, read_windows(store, 0, 8, 32))[completions(257)[1:].reshape(8, 32)].mean()
    assert losses_of(loop.context.run_dir, "eval/pre/nats_per_token")[0] == pytest.approx(stop, abs=1e-6)
    shown = np.stack([completions(len(tokens))[row * 32 + 1 : row * 32 + 33] for row in loop.ledger.window.tolist()])
    assert loop.state.tokens == shown.sum() < shown.size / 3
    lines = (loop.context.run_dir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["tokens"] == shown.sum()


def test_held_out_windows_without_a_target_that_counts_are_refused_before_the_first_step(tmp_path):
    def late(size: int) -> np.ndarray:
        return np.arange(size) >= 600  # behind the windows that stop a stage and those that are reported

    study = layered(FP32, {"data": {"loss_on": "completion"}})
    out = plan_on_arrays(tmp_path, study, 512, completions=late)
    job = job_of(out, runs_of(out)[0])
    message = r"corpus 'pre': held-out windows 8 to 15 hold no token of a completion, .* or set data.loss_on: all"
    with pytest.raises(UserError, match=message):
        run_stage(job, progress=quiet, guard=lambda: None)
    assert not (job.run_dir / "metrics.jsonl").exists()


def test_a_split_of_one_window_is_refused_before_the_first_step(tmp_path):
    out = plan_on_arrays(tmp_path, layered(FP32, {"seq_len": 600}), 512)
    job = job_of(out, runs_of(out)[0])
    with pytest.raises(UserError, match=r"corpus 'pre': its held-out split holds 1 window of 600 tokens"):
        run_stage(job, progress=quiet, guard=lambda: None)
    assert not (job.run_dir / "metrics.jsonl").exists()
