"""The numbers of the loop against torch, transformers' Trainer, a calculation by hand, and a curve that was kept."""

import copy
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engine import TINY, evaluated, layered, loop_of, losses_of, run_all
from token_folder import plan_on_arrays
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from indelible.data.loader import Batch, read_batch
from indelible.study.training import Optimization
from indelible.train.optim import learning_rate, make_optimizer, warmup_of

GOLDEN = Path(__file__).with_name("golden_losses.json")
BASE = {"lr": 1e-2, "min_lr": 1e-3, "warmup_steps": 8, "global_batch_size": 4, "weight_decay": 0.1}
BASE |= {"betas": (0.9, 0.95), "eps": 1e-8, "max_grad_norm": 1.0, "dropout": 0.0, "max_loss": 30.0}
BASE |= {"eval_interval": None, "patience": None, "min_improvement": 0.0}


def gradients(loop, batch: Batch, num_valid: int) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one global batch; nothing is updated."""
    total, guarded = loop._backward(batch, num_valid)
    assert guarded.item() == 0.0
    loss = total.item()
    grads = [weight.grad.clone() for weight in loop.program.trainable().values()]
    loop.optimizer.zero_grad(set_to_none=True)
    return loss, grads


@pytest.mark.parametrize("rows", [7, 5])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_accumulated_micro_batches_equal_the_full_batch(tmp_path, micro_batch_size, rows):
    study = layered(TINY, {"pretrain": {"global_batch_size": 7}, "precision": "fp32"})
    out = plan_on_arrays(tmp_path, study, 512)
    whole = loop_of(out)
    batch = read_batch(whole.ledger, whole.context.stores, slice(0, rows))
    valid = batch.valid.copy()
    valid[0, 3:] = False  # unequal numbers of valid tokens: a mean of means would be another loss
    valid[1] = False
    batch, count = Batch(batch.tokens, valid), int(valid.sum())
    loss, grads = gradients(whole, batch, count)
    split_loss, split_grads = gradients(loop_of(out, execution={"micro_batch_size": micro_batch_size}), batch, count)
    assert split_loss == pytest.approx(loss, abs=1e-6)
    for one, other in zip(grads, split_grads, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
    logits = whole.program.model(input_ids=torch.from_numpy(batch.tokens[:, :-1])).logits.double()
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(batch.tokens[:, 1:]).flatten(), reduction="none"
    )
    assert loss == pytest.approx(each[torch.from_numpy(valid).flatten()].mean().item(), abs=1e-6)


@pytest.mark.parametrize(("total", "warmup"), [(100, 8), (40, 10), (41, 0)])
def test_the_schedule_is_that_of_torch(total, warmup):
    training = Optimization.model_validate({**BASE, "warmup_steps": warmup})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=training.lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=training.min_lr)
    schedule = cosine
    if warmup:
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warmup])
    for step in range(total):
        assert learning_rate(step, total, training) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_the_schedule_by_hand():
    training = Optimization.model_validate({**BASE, "lr": 1.0, "min_lr": 0.2, "warmup_steps": 4})
    assert [learning_rate(s, 20, training) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(4, 20, training) == 1.0
    assert learning_rate(12, 20, training) == pytest.approx(0.6)
    assert learning_rate(20, 20, training) == pytest.approx(0.2)
    assert learning_rate(20, 20, training.model_copy(update={"min_lr": None})) == pytest.approx(0.1)
    rising = training.model_copy(update={"min_lr": 5.0})  # the paper's 1B table: minimum above the peak
    assert learning_rate(12, 20, rising) == pytest.approx(3.0)
    assert warmup_of(training.model_copy(update={"warmup_steps": 500}), 40) == 10, "at most a quarter of the stage"


def test_the_other_schedules_by_hand():
    training = Optimization.model_validate({**BASE, "lr": 1.0, "min_lr": 0.2, "warmup_steps": 4})
    linear, constant = (training.model_copy(update={"schedule": name}) for name in ("linear", "constant"))
    for step in range(4):
        assert learning_rate(step, 20, linear) == learning_rate(step, 20, constant) == learning_rate(step, 20, training)
    assert [learning_rate(step, 20, linear) for step in (4, 12, 20)] == pytest.approx([1.0, 0.6, 0.2])
    assert {learning_rate(step, 20, constant) for step in range(4, 21)} == {1.0}
    assert learning_rate(8, 20, linear) < learning_rate(8, 20, training), "the cosine falls late"


def test_adamw_by_hand_with_decay_on_matrices_only(tmp_path):
    out = plan_on_arrays(tmp_path, layered(TINY, {"precision": "fp32", "pretrain": {"max_grad_norm": 0.5}}), 512)
    loop = loop_of(out)
    training, weights = loop.training, loop.program.trainable()
    ours = {name: weight.detach().double().clone() for name, weight in weights.items()}
    first, second = ({name: torch.zeros_like(w) for name, w in ours.items()} for _ in range(2))
    for step in range(5):
        batch = read_batch(loop.ledger, loop.context.stores, slice(step * 4, step * 4 + 4))
        _, grads = gradients(loop, batch, batch.valid.size)
        norm = math.sqrt(sum((g.double() ** 2).sum().item() for g in grads))
        lr = learning_rate(step, loop.total_steps, training)
        beta1, beta2 = training.betas
        for name, grad in zip(ours, grads, strict=True):
            g = grad.double() * min(1.0, training.max_grad_norm / (norm + 1e-6))
            first[name] = beta1 * first[name] + (1 - beta1) * g
            second[name] = beta2 * second[name] + (1 - beta2) * g * g
            decay = training.weight_decay if ours[name].dim() >= 2 else 0.0
            m, v = first[name] / (1 - beta1 ** (step + 1)), second[name] / (1 - beta2 ** (step + 1))
            ours[name] = ours[name] * (1 - lr * decay) - lr * m / (v.sqrt() + training.eps)
        assert loop._update()
        for name, weight in weights.items():
            assert torch.allclose(weight.double(), ours[name], rtol=0, atol=2e-6), f"{name} after step {step}"
            weight.data.copy_(ours[name])


def test_fused_adamw_is_torch_s_plain_one_and_norms_and_biases_do_not_decay():
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.LayerNorm(4), torch.nn.Embedding(3, 4))
    theirs = copy.deepcopy(ours)
    training = Optimization.model_validate(BASE)
    optimizer = make_optimizer(ours, training)
    decays = {id(w): group["weight_decay"] for group in optimizer.param_groups for w in group["params"]}
    assert [decays[id(w)] for w in ours.parameters()] == [0.1, 0.0, 0.0, 0.0, 0.1]
    matrices, others = ([w for w in theirs.parameters() if (w.dim() >= 2) == big] for big in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=False, foreach=False)
    for _ in range(10):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        plain.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-6)


class _RecordingTrainer(Trainer):
    """Trainer on our windows in our order; what it computes is its own."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.losses: list[float] = []

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.item())
        return loss


def test_fifty_steps_equal_those_of_transformers_trainer(tmp_path):
    # at three times this learning rate single steps magnify differences of rounding beyond the bound
    stage = {"tokens": 50 * 4 * 32, "lr": 3e-3, "warmup_steps": 0, "global_batch_size": 4}
    study = layered(TINY, {"pretrain": stage, "precision": "fp32", "model": {"num_layers": 2, "hidden_size": 32}})
    out = plan_on_arrays(tmp_path / "ours", study, 512, tokens=50 * 4 * 32 + 64)
    loop = loop_of(out)
    loop.program.model.save_pretrained(tmp_path / "start")
    windows = read_batch(loop.ledger, loop.context.stores, slice(0, None)).tokens
    assert loop.run() == "max_tokens"
    ours = list(losses_of(loop.context.run_dir).values())

    settings = TrainingArguments(
        tmp_path / "theirs",
        per_device_train_batch_size=4,
        max_steps=50,
        learning_rate=3e-3,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 3e-4},
        warmup_steps=0,
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.float32)
    rows = [{"input_ids": row, "labels": row} for row in windows.tolist()]
    trainer = _RecordingTrainer(model=model, args=settings, train_dataset=rows)
    trainer.train()
    assert len(ours) == len(trainer.losses) == 50
    assert ours[-1] < ours[0] - 1.5, "much was learned"
    assert np.abs(np.array(ours) - np.array(trainer.losses)).max() < 1e-5


def test_the_golden_loss_curve(tmp_path):
    study = layered(
        TINY,
        {
            "precision": "fp32",
            "exposure": {"fraction": 0.5},
            "pretrain": {"tokens": 3200, "lr": 0.01},
            "posttrain": {"patience": 3, "replay_fraction": 0.05},
        },
    )
    out = plan_on_arrays(tmp_path, study, 512)
    results = run_all(out)
    found = {}
    for stage, result in results.items():
        curve = losses_of(out / "runs" / result.id)
        found[stage] = {"train": list(curve.values()), "heldout": evaluated(out, result.id)["post"].nats_per_token}
    if os.environ.get("WRITE_GOLDEN"):  # after a change that is meant to change numbers; say why in docs/log.md
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    kept = json.loads(GOLDEN.read_text())
    assert found.keys() == kept.keys()
    for stage, entry in kept.items():
        assert found[stage]["train"] == pytest.approx(entry["train"], abs=1e-4), stage
        assert found[stage]["heldout"] == pytest.approx(entry["heldout"], abs=1e-4), stage
