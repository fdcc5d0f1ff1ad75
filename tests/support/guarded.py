"""Guards at work: a loop whose weights have left their start, and what a guard must leave as it is."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from resuming import run_folder, runs_on_ranks
from tiny_engine import TINY, layered, loop_of, run_all
from token_folder import plan_on_arrays

from indelible.data.loader import Batch, read_batch
from indelible.train.loop import Loop

LORA = {"kind": "lora", "r": 4, "alpha": 8}
HEADS = {"tied": {}, "untied": {"model": {"tie_embeddings": False}}, "lora": {"finetune": {"adapt": LORA}}}
CURVES = ("train/loss", "train/guard", "train/grad_norm")


def guarded_study(guard: dict[str, Any], over: dict[str, Any] | None = None) -> dict[str, Any]:
    """A tiny study with a guard in fine-tuning, a smaller last batch at its end."""
    stage = {"guard": guard, "lr": 0.01, "warmup_steps": 0, "tokens": 22 * 32, "global_batch_size": 4}
    return layered(layered(TINY, {"precision": "fp32", "finetune": stage}), over or {})


def moved_loop(out: Path, execution: dict[str, Any] | None = None) -> Loop:
    """The loop of fine-tuning, its guard started, with weights that have moved since."""
    run_all(out, until="posttrain")
    loop = loop_of(out, "finetune", execution)
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in loop.program.trainable().values():
            weight.add_(torch.randn(weight.shape, generator=source) * 0.05)
    return loop


def uneven_batch(loop: Loop) -> tuple[Batch, int]:
    """A global batch whose windows have unequal numbers of targets that count, and that number."""
    batch = read_batch(loop.ledger, loop.context.stores, slice(0, 4))
    valid = batch.valid.copy()
    valid[0, 3:] = False
    valid[2] = False
    return Batch(batch.tokens, valid), int(valid.sum())


def gradients(loop: Loop, batch: Batch, num_valid: int) -> tuple[float, float, dict[str, torch.Tensor]]:
    """What an update would clip: objective, guard (nats) and gradients by name; nothing is updated."""
    total, guarded = loop._backward(batch, num_valid)
    penalty = loop.context.guard.add_to_gradients()
    found = {name: weight.grad.clone() for name, weight in loop.program.trainable().items()}
    loop.optimizer.zero_grad(set_to_none=True)
    return total.item(), guarded.item() + penalty, found


def whole_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Logits (N, T, V) by transformers, through the model as it is."""
    return model(input_ids=torch.from_numpy(batch.tokens[:, :-1])).logits.float()


def cross_entropy(logits: torch.Tensor, batch: Batch, num_valid: int) -> torch.Tensor:
    """The objective by hand: the mean over the targets that count."""
    targets = torch.from_numpy(batch.tokens[:, 1:]).flatten()
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    return each[torch.from_numpy(batch.valid).flatten()].sum() / num_valid


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float) -> None:
    """Gradients agree, and are not all zero."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=atol), name
    assert max(gradient.abs().max().item() for gradient in expected.values()) > 100 * atol


def finetuned(out: Path) -> Path:
    """Folder of the fine-tuning run."""
    return run_folder(out, "finetune")


def guard_on_ranks(guard: dict[str, Any], root: Path) -> dict[str, Path]:
    """Fine-tuning under a guard on one and two ranks, and killed on each; see `runs_on_ranks`."""
    two_layers = {"model": {"num_layers": 2}, "finetune": {"global_batch_size": 5}}
    studies = {
        "full": guarded_study(guard, two_layers),
        "lora": guarded_study(guard, layered(two_layers, HEADS["lora"])),
        "all": guarded_study(guard, {"finetune": {"dropout": 0.1}}),
    }
    plans = {name: partial(plan_on_arrays, raw=study, vocab_size=512) for name, study in studies.items()}
    return runs_on_ranks("finetune", {name: plans[name] for name in ("full", "lora")}, {"all": plans["all"]}, root)
