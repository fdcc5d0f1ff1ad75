"""KL to the start of the stage: value and gradient by hand, a reference that stays frozen, ranks, resumes, identity."""

import copy

import pytest
import torch
from guarded import (
    CURVES,
    HEADS,
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
from tiny_engine import evaluated, layered, loop_of, losses_of, plan_of, result_of, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.errors import UserError
from indelible.objectives.kl import Kl
from indelible.study.cost import training_passes
from indelible.study.identity import without_tags
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec

KL = {"kind": "kl", "weight": 0.7}


def divergence(now: torch.Tensor, start: torch.Tensor, valid: torch.Tensor, num_valid: int) -> torch.Tensor:
    """KL(start || now) at the targets that count, over their number."""
    log_now, log_start = now.log_softmax(-1), start.log_softmax(-1)
    each = torch.nn.functional.kl_div(log_now, log_start, reduction="none", log_target=True).sum(-1)
    return each[valid].sum() / num_valid


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3])
@pytest.mark.parametrize("head", HEADS)
def test_value_and_gradient_by_hand(tmp_path, head, micro_batch_size):
    out = plan_on_arrays(tmp_path, guarded_study(KL, HEADS[head]), 512)
    loop = moved_loop(out, {"micro_batch_size": micro_batch_size})
    assert loop.program.has_plain_head == (head != "lora")
    batch, count = uneven_batch(loop)
    loss, held, found = gradients(loop, batch, count)

    start = copy.deepcopy(loop.context.guard._start.model)
    now, before = whole_logits(loop.program.model, batch), whole_logits(start, batch).detach()
    objective, apart = (
        cross_entropy(now, batch, count),
        divergence(now, before, torch.from_numpy(batch.valid), count),
    )
    assert apart.item() > 0.005, "the model has left its start"
    weights = loop.program.trainable()
    expected = torch.autograd.grad(objective + 0.7 * apart, list(weights.values()))
    assert loss == pytest.approx(objective.item(), abs=1e-6)
    assert held == pytest.approx(0.7 * apart.item(), abs=1e-6)
    assert_same_gradients(found, dict(zip(weights, expected, strict=True)), atol=1e-6)


def test_the_plain_head_and_whole_logits_agree(tmp_path):
    loop = moved_loop(plan_on_arrays(tmp_path, guarded_study(KL), 512))
    batch, count = uneven_batch(loop)
    loss, held, found = gradients(loop, batch, count)
    program, start = loop.program, loop.context.guard._start
    plain = program._plain, start._plain
    try:
        for one in (program, start):
            one._plain = None
            one.prepare(lambda part: part)
        other_loss, other_held, expected = gradients(loop, batch, count)
    finally:
        program._plain, start._plain = plain
        for one in (program, start):
            one.prepare(lambda part: part)
    assert (loss, held) == (pytest.approx(other_loss, abs=1e-6), pytest.approx(other_held, abs=1e-6))
    assert_same_gradients(found, expected, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_at_the_start_there_is_no_divergence_and_no_pull(tmp_path, head):
    out = plan_on_arrays(tmp_path / "kl", guarded_study({"kind": "kl", "weight": 1e3}, HEADS[head]), 512)
    free = plan_on_arrays(tmp_path / "free", guarded_study({"kind": "none"}, HEADS[head]), 512)
    run_all(out)
    run_all(free)
    assert losses_of(finetuned(out), "train/guard")[1] == pytest.approx(0.0, abs=1e-6)
    assert losses_of(finetuned(out))[1] == losses_of(finetuned(free))[1]
    norms = [losses_of(finetuned(one), "train/grad_norm")[1] for one in (out, free)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert losses_of(finetuned(out), "train/guard")[2] > 0
    assert not losses_of(finetuned(free), "train/guard")


def test_a_larger_weight_holds_the_model_nearer_to_its_start(tmp_path):
    moved, forgotten = [], []
    for weight in (0, 1, 30, 3000):
        guard = {"kind": "kl", "weight": weight} if weight else {"kind": "none"}
        over = {"pretrain": {"lr": 0.03}, "finetune": {"lr": 0.003, "tokens": 30 * 128}}
        out = plan_on_arrays(tmp_path / str(weight), guarded_study(guard, over), 512)
        results = run_all(out)
        before, after = (evaluated(out, results[stage].id) for stage in ("posttrain", "finetune"))
        moved.append(before["ft"].nats_per_token - after["ft"].nats_per_token)
        forgotten.append(abs(after["post"].nats_per_token - before["post"].nats_per_token))
    assert moved[0] > 0.2, "without a guard the stage learns"
    assert moved == sorted(moved, reverse=True)
    assert forgotten[3] < 0.01 < forgotten[0]
    assert abs(moved[3]) < 0.02


def test_the_reference_stays_as_it_was_and_in_evaluation_mode(tmp_path):
    out = plan_on_arrays(tmp_path, guarded_study(KL, {"finetune": {"dropout": 0.3}}), 512)
    results = run_all(out, until="posttrain")
    loop = loop_of(out, "finetune")
    start = loop.context.guard._start
    batch, count = uneven_batch(loop)
    before = whole_logits(start.model, batch).detach()
    assert loop.run() == "max_tokens"
    assert loop.program.model.training
    assert not any(module.training for module in start.model.modules())
    assert not any(weight.requires_grad for weight in start.model.parameters())
    assert torch.equal(whole_logits(start.model, batch), before), "no dropout in it, and no update"
    kept = dict(start.model.named_parameters())
    loop.program.load_base({name: w.detach().clone() for name, w in kept.items()}, 0)
    parent = out / "runs" / results["posttrain"].id / "checkpoint" / "model.safetensors"
    stored = load_file(parent)
    assert stored.keys() == kept.keys()
    assert all(torch.equal(stored[name], kept[name]) for name in stored)
    # dropout is on in the model that is trained: at the very start it differs from its own reference, by its mask alone
    torch.manual_seed(11)
    _, held, _ = gradients(loop, batch, count)
    torch.manual_seed(11)
    now = whole_logits(loop.program.model, batch).detach()
    expected = 0.7 * divergence(now, before, torch.from_numpy(batch.valid), count).item()
    assert held == pytest.approx(expected, rel=1e-4)
    assert held > 1e-4


def test_the_next_run_of_a_kept_program_has_its_own_start(tmp_path):
    over = {"finetune": {"lr": [0.01, 0.02]}, "posttrain": {"lr": [0.002, 0.05]}}
    out = plan_on_arrays(tmp_path / "sweep", guarded_study(KL, over), 512)
    run_all(out)
    runs = runs_of(out, "finetune")
    assert len(runs) == 4
    for run in runs:
        guard = losses_of(out / "runs" / run.id, "train/guard")
        assert guard[1] == pytest.approx(0.0, abs=1e-6), "its reference is where it starts, and not where another did"
        assert guard[2] > 1e-6


def test_stopped_and_continued_equals_uninterrupted(tmp_path, monkeypatch):
    study = guarded_study(KL, {"finetune": {"dropout": 0.1, "eval_interval": 2, "patience": 9}})
    assert_stopped_equals_uninterrupted(
        lambda name: plan_on_arrays(tmp_path / name, study, 512), "finetune", monkeypatch
    )


def test_it_costs_one_forward_more_and_one_copy(tmp_path):
    out = plan_on_arrays(tmp_path / "kl", guarded_study(KL), 512)
    free = plan_on_arrays(tmp_path / "free", guarded_study({"kind": "none"}), 512)
    held, alone = (run_all(one)["finetune"] for one in (out, free))
    assert held.train_tokens == alone.train_tokens
    assert held.flops == pytest.approx(alone.flops * 4 / 3, rel=1e-12)
    specs = [StageSpec.model_validate(without_tags(runs_of(one, "finetune")[0].spec)) for one in (out, free)]
    assert [training_passes(spec) for spec in specs] == [4.0, 3.0]
    assert [spec.guard.weight_copies for spec in specs] == [1, 0]


def test_it_is_another_run_and_the_table_has_its_columns(tmp_path):
    guards = [{"kind": "none"}, {"kind": "kl", "weight": 0.1}, {"kind": "kl", "weight": 1}]
    raw = layered(guarded_study({"kind": "none"}), {})
    raw["finetune"]["guard"] = guards
    out = plan_on_arrays(tmp_path, raw, 512)
    assert len(runs_of(out, "pretrain")) == len(runs_of(out, "posttrain")) == 1
    ids = [run.id for run in runs_of(out, "finetune")]
    assert len(set(ids)) == 3
    assert "kl0.1" in ids[1], "its name shows in the id"
    columns = [chain.columns for chain in plan_of(out).chains]
    assert [one["finetune_guard"] for one in columns] == ["none", "kl", "kl"]
    assert [one["finetune_guard_weight"] for one in columns] == [None, 0.1, 1.0]


def test_no_guard_is_the_run_that_says_nothing_of_guards(tmp_path):
    raw = guarded_study({"kind": "none"})
    plain = {**raw, "finetune": {key: value for key, value in raw["finetune"].items() if key != "guard"}}
    ids = [runs_of(plan_on_arrays(tmp_path / str(n), one, 512), "finetune")[0].id for n, one in enumerate((raw, plain))]
    assert ids[0] == ids[1]
    assert Kl(weight=1) == Kl(weight=1.0)


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        ({"kind": "kl", "weight": 0}, r"guard.*weight.*greater than 0"),
        ({"kind": "kl"}, r"guard.*weight"),
        ({"kind": "kl", "weight": 1, "wieght": 2}, r"guard.*wieght"),
        ({"kind": "lk", "weight": 1}, r"guard.*lk"),
    ],
)
def test_settings_that_make_no_sense_are_refused(guard, message):
    with pytest.raises(UserError, match=message):
        resolve_study(guarded_study(guard))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return guard_on_ranks(KL, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["full", "lora"])
def test_two_ranks_equal_one(folders, name, parallel):
    assert_two_ranks_equal_one(folders, "finetune", name, parallel, CURVES)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["one", "ddp", "fsdp"])
def test_killed_and_resumed_equals_uninterrupted(folders, where):
    assert_killed_equals_uninterrupted(folders, "finetune", f"all {where}")


@pytest.mark.slow
def test_compiled_equals_eager(tmp_path):
    runs = {}
    for mode in ("off", "on"):
        out = runs[mode] = plan_on_arrays(tmp_path / mode, guarded_study(KL, {"finetune": {"dropout": 0.1}}), 512)
        run_all(out, {"compile": mode})
        assert result_of(out, finetuned(out).name).environment["compile"] == (mode == "on")
    for key in ("train/loss", "train/guard"):
        eager, compiled = (list(losses_of(finetuned(runs[mode]), key).values()) for mode in ("off", "on"))
        assert compiled == pytest.approx(eager, abs=1e-4)
    ours, theirs = (weights_of(runs[mode], "finetune") for mode in ("off", "on"))
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 2e-3
