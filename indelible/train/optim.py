"""AdamW and learning-rate schedules: linear warmup, then the paper's cosine to the minimum, a line, or nothing more."""

import math

import torch
from torch import nn

from indelible.study.training import Optimization


def warmup_of(training: Optimization, total_steps: int) -> int:
    """Warmup steps: as asked, but at most a quarter of the stage, so that a very short stage still has a peak."""
    return min(training.warmup_steps, total_steps // 4)


def learning_rate(step: int, total_steps: int, training: Optimization) -> float:
    """Learning rate of the update that follows ``step`` updates.

    It rises linearly to ``lr`` over the warmup, then follows ``schedule``: half a cosine or a line that would reach
    ``min_lr`` at ``total_steps``, or ``lr`` to the end. With ``min_lr > lr`` it rises: so it does in the paper's 1B
    table.
    """
    warmup = warmup_of(training, total_steps)
    if step < warmup:
        return training.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    low = training.lr / 10 if training.min_lr is None else training.min_lr
    if training.schedule == "constant":
        return training.lr
    if training.schedule == "linear":
        return low + (training.lr - low) * (1 - progress)
    return low + 0.5 * (training.lr - low) * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, training: Optimization) -> torch.optim.AdamW:
    """Fused AdamW over all trainable weights; matrices decay, norms and biases (fewer than two dimensions) do not."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in trainable if w.dim() >= 2], "weight_decay": training.weight_decay},
        {"params": [w for w in trainable if w.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, eps=training.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = value
