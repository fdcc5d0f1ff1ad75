"""Guards at work: a loop whose weights have left their start, and what a guard must leave as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gloo_ranks import run_tasks
from safetensors.torch import load_file
from tiny_engine import TINY, job_of, layered, loop_of, losses_of, result_of, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.data.loader import Batch, read_batch
from indelible.train.job import Progress
from indelible.train.loop import Loop
from indelible.train.stage import run_stage

LORA = {"kind": "lora", "r": 4, "alpha": 8}
HEADS = {"tied": {}, "untied": {"model": {"tie_embeddings": False}}, "lora": {"finetune": {"adapt": LORA}}}
TIMES = {"trained_seconds", "eval_seconds", "total_seconds", "tokens_per_second", "resumed", "environment", "mfu"}
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
    return out / "runs" / runs_of(out, "finetune")[0].id


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    """The weights that fine-tuning ended with."""
    return load_file(finetuned(out) / "checkpoint" / "model.safetensors")


def assert_same_finetuning(one: Path, other: Path) -> None:
    """Two studies ended with the same bits, the same metrics and the same result."""
    results = [result_of(out, finetuned(out).name) for out in (one, other)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].model_dump(exclude=TIMES) == results[1].model_dump(exclude=TIMES)
    for key in CURVES:
        curve = losses_of(finetuned(one), key)
        assert curve == losses_of(finetuned(other), key)
        assert len(curve) == results[0].steps
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def assert_stopped_equals_uninterrupted(plan: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped twice and continued, fine-tuning ends as if it had not been stopped.

    Args:
        plan: makes a planned study of a name.
        monkeypatch: so that progress is reported at every step.
    """
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)
    whole, broken = plan("whole"), plan("broken")
    run_all(whole)
    run_all(broken, until="posttrain")
    job, stops = job_of(broken, runs_of(broken, "finetune")[0]), {2, 4}

    def stop(now: Progress) -> None:
        if now.phase == "training" and now.step in stops:
            stops.discard(now.step)
            raise InterruptedError

    for _ in range(2):
        with pytest.raises(InterruptedError):
            run_stage(job, progress=stop, guard=lambda: None)
    run_stage(job, progress=stop, guard=lambda: None)
    result = result_of(broken, job.run_id)
    assert result is not None
    assert result.resumed == 1
    assert_same_finetuning(whole, broken)


def runs_on_ranks(guard: dict[str, Any], root: Path) -> dict[str, Path]:
    """Studies trained on one and two ranks, and one killed by SIGKILL on each; folders by name."""
    found: dict[str, Path] = {}
    tasks: list[dict[str, Any]] = []

    def task(name: str, world: int, study: dict[str, Any], execution: dict[str, Any], **more: Any) -> None:
        if name not in found:
            found[name] = plan_on_arrays(root / name, study, 512)
            before = {"world": 1, "until": "posttrain", "execution": {}}
            tasks.append({"out": str(found[name]), **before})
        tasks.append({"out": str(found[name]), "world": world, "until": "finetune", "execution": execution, **more})

    two_layers = {"model": {"num_layers": 2}, "finetune": {"global_batch_size": 5}}
    full, dropped = guarded_study(guard, two_layers), guarded_study(guard, {"finetune": {"dropout": 0.1}})
    lora = guarded_study(guard, layered(two_layers, HEADS["lora"]))
    ddp, fsdp = {"parallel": "ddp", "micro_batch_size": 2}, {"parallel": "fsdp", "micro_batch_size": 2}
    for name, study in (("full", full), ("lora", lora)):
        task(f"{name} one", 1, study, {})
        task(f"{name} ddp", 2, study, ddp)
        task(f"{name} fsdp", 2, study, fsdp)
    for name, world, execution in (("alone", 1, {}), ("ddp", 2, ddp), ("fsdp", 2, fsdp)):
        task(f"{name} whole", world, dropped, execution)
        task(f"{name} killed", world, dropped, execution, kill_at=3)
        task(f"{name} killed", world, dropped, execution)
    run_tasks(tasks, root)
    return found


def assert_two_ranks_equal_one(folders: dict[str, Path], name: str, parallel: str) -> None:
    """Losses, guard and gradient norms of two ranks are those of one process, to rounding."""
    for key in CURVES:
        alone = np.array(list(losses_of(finetuned(folders[f"{name} one"]), key).values()))
        ours = np.array(list(losses_of(finetuned(folders[f"{name} {parallel}"]), key).values()))
        assert len(ours) == len(alone) == 5
        assert np.abs(ours - alone).max() < 1e-5 * max(1.0, np.abs(alone).max()), key
    ours, alone = weights_of(folders[f"{name} {parallel}"]), weights_of(folders[f"{name} one"])
    assert max((ours[key] - alone[key]).abs().max().item() for key in alone) < 1e-3


def assert_killed_equals_uninterrupted(folders: dict[str, Path], where: str) -> None:
    """Killed by SIGKILL and continued, fine-tuning ends with the bits of one that was not."""
    killed = result_of(folders[f"{where} killed"], finetuned(folders[f"{where} killed"]).name)
    assert killed is not None
    assert killed.resumed == 1
    assert_same_finetuning(folders[f"{where} whole"], folders[f"{where} killed"])
