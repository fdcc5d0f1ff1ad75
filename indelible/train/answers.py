"""Log-probabilities of whole answers, and what a preference stage minimises of them. Called through `Program.run`."""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from indelible.data.pairs import ROWS
from indelible.objectives import PairObjective
from indelible.objectives.base import ActiveGuard
from indelible.train.program import Outputs, Program


def row_log_probs(program: Program, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's targets that count, summed, nats: float32 (B,).

    Args:
        program: the model.
        inputs: int64 (B, T).
        targets: int64 (B, T).
        weights: float32 (B, T), 1 for targets that count.
    """
    return rows_of(program, program.forward(inputs), targets, weights)


def pair_loss(
    program: Program,
    objective: PairObjective,
    guard: ActiveGuard | None,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    start: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """What a preference stage minimises on a micro batch of pairs.

    Args:
        program: the model.
        objective: what is minimised.
        guard: at work, or None.
        inputs: int64 (2 P, T), the better and the worse answer of each pair; those filled up have no weights.
        targets: int64 (2 P, T).
        weights: float32 (2 P, T), 1 for targets of an answer.
        start: log-probabilities of the answers at the start of the stage, float32 (P, 2).

    Returns:
        The sum of the objective over pairs, that of the guard over targets, and the log-probabilities (P, 2) without
        their gradient.
    """
    outputs = program.forward(inputs)
    log_probs = rows_of(program, outputs, targets, weights).view(-1, ROWS)
    is_pair = (weights.sum(1).view(-1, ROWS).sum(1) > 0).float()
    loss = (objective.pair_losses(log_probs, start) * is_pair).sum()
    held = guard.batch_loss(outputs, inputs, weights) if guard is not None and guard.uses_batches else None
    return loss, held, log_probs.detach()


def rows_of(program: Program, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of rows from a forward (B,); only targets that count go through a plain head."""
    if outputs.hidden is None:
        assert outputs.logits is not None
        found = -F.cross_entropy(outputs.logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return (found.view(weights.shape) * weights).sum(1)
    places = weights.flatten().nonzero().squeeze(1)
    if not len(places):  # nothing but filled up rows: one of them, so that every weight has a gradient on all ranks
        places = places.new_zeros(1)
    hidden, wanted = outputs.hidden.flatten(0, 1).index_select(0, places), targets.flatten()[places]
    head, has_gradient = program.head_weight, torch.is_grad_enabled()

    def chunk(rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = (rows @ head.t().to(rows.dtype)).float()
        return logits.gather(1, ids[:, None]).squeeze(1) - logits.logsumexp(-1)

    def kept_small(rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        # logits of a chunk are made again in the backward, so that those of the whole batch never exist
        return checkpoint(chunk, rows, ids, use_reentrant=False) if has_gradient else chunk(rows, ids)

    found = torch.cat([kept_small(hidden[part], wanted[part]) for part in program.head_parts(hidden)])
    found = found * weights.flatten()[places]
    return found.new_zeros(weights.numel()).index_copy(0, places, found).view(weights.shape).sum(1)
