"""L2-SP: value and gradient by hand, added once a step, ranks, resumes, identity."""

import pytest
import torch
from guarded import (
    CURVES,
    HEADS,
    LORA,
    assert_same_gradients,
    cross_entropy,
    finetuned,
    gradients,
    guard_on_ranks,
    guarded_study,
    moved_loop,
    uneven_batch,
    whole_logits,
)
from resuming import (
    assert_killed_equals_uninterrupted,
    assert_stopped_equals_uninterrupted,
    assert_two_ranks_equal_one,
    weights_of,
)
from safetensors.torch import load_file
from tiny_engine import loop_of, losses_of, plan_of, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.errors import UserError
from indelible.objectives.l2sp import L2Sp
from indelible.study.cost import training_passes
from indelible.study.identity import without_tags
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec

L2SP = {"kind": "l2sp", "weight": 0.3}


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3])
@pytest.mark.parametrize("head", HEADS)
def test_value_and_gradient_by_hand_whatever_the_micro_batches(tmp_path, head, micro_batch_size):
    out = plan_on_arrays(tmp_path, guarded_study(L2SP, HEADS[head]), 512)
    loop = moved_loop(out, {"micro_batch_size": micro_batch_size})
    starts = {name: start.clone() for name, start in loop.context.guard._start.items()}
    batch, count = uneven_batch(loop)
    loss, held, found = gradients(loop, batch, count)
    weights = loop.program.trainable()
    assert weights.keys() == starts.keys()
    objective = cross_entropy(whole_logits(loop.program.model, batch), batch, count)
    penalty = 0.15 * sum(((weights[name] - start) ** 2).sum() for name, start in starts.items())
    expected = torch.autograd.grad(objective + penalty, list(weights.values()))
    assert loss == pytest.approx(objective.item(), abs=1e-6)
    assert held == pytest.approx(penalty.item(), rel=1e-5)
    assert penalty.item() > 0.1, "the weights have left their start"
    assert_same_gradients(found, dict(zip(weights, expected, strict=True)), atol=1e-6)


def test_an_update_logs_and_clips_what_was_added(tmp_path):
    loop = moved_loop(plan_on_arrays(tmp_path, guarded_study({"kind": "l2sp", "weight": 50.0}), 512))
    starts = {name: start.clone() for name, start in loop.context.guard._start.items()}
    distance = sum(((weight.detach() - starts[name]) ** 2).sum() for name, weight in loop.program.trainable().items())
    assert loop._update()
    assert loop._latest["guard"] == pytest.approx(25.0 * distance.item(), rel=1e-5)
    assert loop._latest["grad_norm"] == pytest.approx(50.0 * distance.item() ** 0.5, rel=0.1), "the pull is nearly all"


@pytest.mark.parametrize("adapt", [{}, {"finetune": {"adapt": LORA}}])
def test_the_start_is_where_the_stage_starts(tmp_path, adapt):
    out = plan_on_arrays(tmp_path, guarded_study(L2SP, adapt), 512)
    results = run_all(out, until="posttrain")
    loop = loop_of(out, "finetune")
    starts = loop.context.guard._start
    if not adapt:
        stored = load_file(out / "runs" / results["posttrain"].id / "checkpoint" / "model.safetensors")
        assert starts.keys() == stored.keys()
        assert all(torch.equal(starts[name], stored[name]) for name in stored)
    else:
        assert all(".lora_" in name for name in starts), "the adapters are what is trained"
        assert all((start == 0).all() for name, start in starts.items() if ".lora_B" in name)
    before = {name: start.clone() for name, start in starts.items()}
    assert loop.run() == "max_tokens"
    assert all(torch.equal(loop.context.guard._start[name], start) for name, start in before.items()), "it is frozen"
    guard = losses_of(loop.context.run_dir, "train/guard")
    assert guard[1] == 0.0
    assert guard[2] > 0.0


def test_a_larger_weight_holds_the_weights_nearer_to_their_start(tmp_path):
    moved = []
    for weight in (0, 1, 30, 1000):
        guard = {"kind": "l2sp", "weight": weight} if weight else {"kind": "none"}
        out = plan_on_arrays(tmp_path / str(weight), guarded_study(guard, {"finetune": {"tokens": 30 * 128}}), 512)
        parent = run_all(out)["posttrain"]
        start = load_file(out / "runs" / parent.id / "checkpoint" / "model.safetensors")
        moved.append(sum(((weights_of(out, "finetune")[name] - start[name]) ** 2).sum().item() for name in start))
    assert moved == sorted(moved, reverse=True)
    assert moved[3] < 0.05 * moved[0]


def test_the_next_run_of_a_kept_program_has_its_own_start(tmp_path):
    over = {"finetune": {"lr": [0.01, 0.02]}, "posttrain": {"lr": [0.002, 0.05]}}
    out = plan_on_arrays(tmp_path, guarded_study(L2SP, over), 512)
    run_all(out)
    runs = runs_of(out, "finetune")
    assert len(runs) == 4
    for run in runs:
        guard = losses_of(out / "runs" / run.id, "train/guard")
        assert guard[1] == 0.0
        assert guard[2] > 0.0


def test_stopped_and_continued_equals_uninterrupted(tmp_path, monkeypatch):
    study = guarded_study(L2SP, {"finetune": {"dropout": 0.1, "eval_interval": 2, "patience": 9}})
    assert_stopped_equals_uninterrupted(
        lambda name: plan_on_arrays(tmp_path / name, study, 512), "finetune", monkeypatch
    )


def test_it_costs_no_forward_and_one_copy(tmp_path):
    out = plan_on_arrays(tmp_path / "l2sp", guarded_study(L2SP), 512)
    free = plan_on_arrays(tmp_path / "free", guarded_study({"kind": "none"}), 512)
    held, alone = (run_all(one)["finetune"] for one in (out, free))
    assert (held.train_tokens, held.flops) == (alone.train_tokens, alone.flops)
    spec = StageSpec.model_validate(without_tags(runs_of(out, "finetune")[0].spec))
    assert (training_passes(spec), spec.guard.weight_copies) == (3.0, 1)


def test_it_is_another_run_and_the_table_has_its_columns(tmp_path):
    raw = guarded_study({"kind": "none"})
    raw["finetune"]["guard"] = [{"kind": "none"}, {"kind": "l2sp", "weight": 0.01}, {"kind": "l2sp", "weight": 1}]
    out = plan_on_arrays(tmp_path, raw, 512)
    assert len(runs_of(out, "pretrain")) == len(runs_of(out, "posttrain")) == 1
    ids = [run.id for run in runs_of(out, "finetune")]
    assert len(set(ids)) == 3
    assert "l2sp0.01" in ids[1], "its name shows in the id"
    columns = [chain.columns for chain in plan_of(out).chains]
    assert [one["finetune_guard"] for one in columns] == ["none", "l2sp", "l2sp"]
    assert [one["finetune_guard_weight"] for one in columns] == [None, 0.01, 1.0]
    assert L2Sp(weight=1) == L2Sp(weight=1.0)


@pytest.mark.parametrize("guard", [{"kind": "l2sp", "weight": -1}, {"kind": "l2sp"}, "l2sp"])
def test_settings_that_make_no_sense_are_refused(guard):
    with pytest.raises(UserError, match=r"guard.*weight"):
        resolve_study(guarded_study(guard))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return guard_on_ranks(L2SP, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["full", "lora"])
def test_two_ranks_equal_one(folders, name, parallel):
    assert_two_ranks_equal_one(folders, "finetune", name, parallel, CURVES)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["one", "ddp", "fsdp"])
def test_killed_and_resumed_equals_uninterrupted(folders, where):
    assert_killed_equals_uninterrupted(folders, "finetune", f"all {where}")


def test_the_guard_is_written_to_the_metrics_of_every_step(tmp_path):
    out = plan_on_arrays(tmp_path, guarded_study(L2SP), 512)
    run_all(out)
    assert list(losses_of(finetuned(out), "train/guard")) == list(losses_of(finetuned(out)))
