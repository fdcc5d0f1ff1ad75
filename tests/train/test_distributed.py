"""Two processes over gloo train what one process trains: DDP and FSDP2, killed, resumed, on other numbers of ranks."""

from pathlib import Path

import numpy as np
import pytest
import tiny_engine
from gloo_ranks import run_tasks
from safetensors.torch import load_file
from tiny_engine import TINY, evaluated, layered, losses_of, runs_of
from token_folder import plan_on_arrays
from transformers import AutoModelForCausalLM

from indelible.data.loader import Batch
from indelible.records import StageResult
from indelible.train.distributed import World

STUDY = {
    "precision": "fp32",
    "exposure": {"fraction": 0.5},
    "model": {"num_layers": 2},
    "pretrain": {"tokens": 94 * 32, "global_batch_size": 5, "lr": 0.01, "eval_interval": 5},
    "posttrain": {
        "lr": 0.003,
        "patience": 2,
        "min_improvement": 0.1,
        "max_tokens": 3200,
        "global_batch_size": 5,
        "replay_fraction": 0.05,
    },
    "finetune": {"tokens": 22 * 32, "global_batch_size": 5},
}
ALTERED = {
    "plain": {},
    "lora": {"posttrain": {"method": "lora", "lora": {"r": 4, "alpha": 8}}},
    "dropout": {"pretrain": {"dropout": 0.1}, "posttrain": {"dropout": 0.1}},
}
TIMES = {"trained_seconds", "eval_seconds", "total_seconds", "tokens_per_second", "resumed"}


def result_of(out: Path, stage: str) -> StageResult:
    result = tiny_engine.result_of(out, runs_of(out, stage)[0].id)
    assert result is not None
    return result


def curve(out: Path, stage: str, key: str = "train/loss") -> np.ndarray:
    return np.array(list(losses_of(out / "runs" / runs_of(out, stage)[0].id, key).values()))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """All runs of these tests, by name; made by one process that forks the ranks."""
    root = tmp_path_factory.mktemp("ranks")
    found: dict[str, Path] = {}
    tasks = []

    def task(name: str, study: str, world: int, until: str = "finetune", **more) -> None:
        if name not in found:
            found[name] = plan_on_arrays(root / name, layered(TINY, layered(STUDY, ALTERED[study])), 512)
        tasks.append({"out": str(found[name]), "world": world, "until": until, "execution": {}, **more})

    ddp, fsdp = {"parallel": "ddp"}, {"parallel": "fsdp"}
    frugal = {"parallel": "fsdp", "micro_batch_size": 2, "activation_checkpointing": True}
    task("one", "plain", 1)
    task("ddp", "plain", 2, execution=ddp)
    task("fsdp", "plain", 2, execution=fsdp)
    task("frugal", "plain", 2, "pretrain", execution=frugal)
    task("compiled", "plain", 2, "pretrain", execution={**fsdp, "compile": "on"})
    task("three", "plain", 3, "pretrain", execution={**ddp, "micro_batch_size": 1})
    task("lora one", "lora", 1, "posttrain")
    task("lora ddp", "lora", 2, "posttrain", execution=ddp)
    task("lora fsdp", "lora", 2, "posttrain", execution=fsdp)
    for name, execution in (("ddp", ddp), ("fsdp", fsdp)):
        task(f"{name} whole", "dropout", 2, "posttrain", execution=execution)
        task(f"{name} killed", "dropout", 2, "pretrain", execution=execution, kill_at=7)
        task(f"{name} killed", "dropout", 2, "pretrain", execution=execution)
        task(f"{name} killed", "dropout", 2, "posttrain", execution=execution, kill_at=3)
        task(f"{name} killed", "dropout", 2, "posttrain", execution=execution)
    task("two then one", "plain", 2, "pretrain", execution=fsdp, kill_at=7)
    task("two then one", "plain", 1, "pretrain")
    task("one then two", "plain", 1, "pretrain", kill_at=7)
    task("one then two", "plain", 2, "pretrain", execution=fsdp)
    (root / "stdout.txt").write_text(run_tasks(tasks, root))
    return {**found, "stdout": root / "stdout.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp", "frugal", "three", "compiled"])
def test_losses_are_those_of_one_process(folders, name):
    ours, alone = curve(folders[name], "pretrain"), curve(folders["one"], "pretrain")
    assert len(ours) == len(alone) >= 20
    assert np.abs(ours - alone)[:20].max() < 1e-5
    norms = curve(folders[name], "pretrain", "train/grad_norm") - curve(folders["one"], "pretrain", "train/grad_norm")
    assert np.abs(norms)[:20].max() < 1e-4
    evaluated = curve(folders[name], "pretrain", "eval/pre/nats_per_token")
    assert np.abs(evaluated - curve(folders["one"], "pretrain", "eval/pre/nats_per_token")).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_all_stages_end_as_with_one_process(folders, name):
    for stage in ("pretrain", "posttrain", "finetune"):
        ours, alone = result_of(folders[name], stage), result_of(folders["one"], stage)
        for key in ("stop_reason", "best_step", "steps", "train_tokens", "tokens_seen", "ledger_sha256", "flops"):
            assert getattr(ours, key) == getattr(alone, key), (stage, key)
        found, expected = evaluated(folders[name], ours.id), evaluated(folders["one"], alone.id)
        assert found.keys() == expected.keys() == {"pre", "post", "ft"}
        for corpus, loss in expected.items():
            assert found[corpus].nats_per_token == pytest.approx(loss.nats_per_token, abs=1e-4)
            assert found[corpus].standard_error == pytest.approx(loss.standard_error, abs=1e-5)
            assert (found[corpus].tokens, found[corpus].documents) == (loss.tokens, loss.documents)
    assert result_of(folders[name], "posttrain").stop_reason == "patience"
    assert result_of(folders[name], "posttrain").environment["world_size"] == 2
    checkpoint = folders[name] / "runs" / result_of(folders[name], "finetune").id / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    alone = folders["one"] / "runs" / result_of(folders["one"], "finetune").id / "checkpoint" / "model.safetensors"
    expected = load_file(alone)
    for key, weight in model.named_parameters():
        assert weight.shape == expected[key].shape
        assert (weight - expected[key]).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora ddp", "lora fsdp"])
def test_adapters_are_trained_and_merged_as_by_one_process(folders, name):
    assert np.abs(curve(folders[name], "posttrain") - curve(folders["lora one"], "posttrain")).max() < 1e-5
    runs = [folders[key] / "runs" / runs_of(folders[key], "posttrain")[0].id for key in (name, "lora one")]
    ours, alone = (load_file(run / "checkpoint" / "model.safetensors") for run in runs)
    assert ours.keys() == alone.keys()
    assert max((ours[key] - alone[key]).abs().max().item() for key in ours) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_killed_and_resumed_on_as_many_ranks_is_bitwise_the_same(folders, parallel):
    whole, broken = folders[f"{parallel} whole"], folders[f"{parallel} killed"]
    for stage in ("pretrain", "posttrain"):
        one, other = result_of(whole, stage), result_of(broken, stage)
        assert (one.resumed, other.resumed) == (0, 1)
        assert one.model_dump(exclude=TIMES) == other.model_dump(exclude=TIMES)
        assert one.weights_sha256 == other.weights_sha256
        for corpus, loss in evaluated(whole, one.id).items():
            assert evaluated(broken, other.id)[corpus].nats_per_token == loss.nats_per_token
        assert (curve(whole, stage) == curve(broken, stage)).all()
        assert not (broken / "runs" / other.id / "resume").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two then one", "one then two"])
def test_another_number_of_ranks_goes_on_with_the_same_data(folders, name):
    assert result_of(folders[name], "pretrain").resumed == 1
    assert np.abs(curve(folders[name], "pretrain") - curve(folders["one"], "pretrain")).max() < 2e-5
    assert "the data order is the same, sums are added up in another order" in folders["stdout"].read_text()


@pytest.mark.slow
def test_a_run_on_several_ranks_says_so(folders):
    said = folders["stdout"].read_text()
    assert "3 sequence(s) at a time on each of 2 processes (ddp)" in said
    assert "1 sequence(s) at a time on each of 3 processes (ddp)" in said


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ranks_share_a_batch_without_overlap_or_loss(size):
    tokens = np.arange(5 * 4).reshape(5, 4)
    batch = Batch(tokens, np.ones((5, 3), bool))
    worlds = [World(rank, size) for rank in range(size)]
    parts = [world.slice_of(batch, world.share_of(5)) for world in worlds]
    assert np.array_equal(np.concatenate([part.tokens for part in parts]), tokens)
    equal = [world.equal_slice_of(batch) for world in worlds]
    assert len({len(part.tokens) for part in equal}) == 1, "equally many forwards on all ranks"
    assert sum(part.valid.sum() for part in equal) == batch.valid.sum()


def test_a_single_process_agrees_with_itself():
    world = World.current("fsdp")
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    assert world.sum(1.5) == 1.5
    assert world.any(True, False) == (True, False)
    assert world.broadcast("x") == "x"
