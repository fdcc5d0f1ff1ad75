"""KL to the start of the stage, on the stage's own tokens: the model may learn, but not speak much otherwise.

``weight`` times KL(start || now) of the next-token distributions, over the whole vocabulary, added up over the targets
that count and divided by their number like the objective. It needs no old data: D_pre and D_post may be gone.
The start is a frozen copy in evaluation mode; its forward costs one pass more for each trained token.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from indelible.objectives.base import ActiveGuard, GuardSettings

if TYPE_CHECKING:
    import torch

    from indelible.train.program import Outputs, Program


class Kl(GuardSettings):
    """Settings of the KL guard."""

    forward_passes: ClassVar[float] = 1.0
    weight_copies: ClassVar[int] = 1

    kind: Literal["kl"] = "kl"
    weight: float = Field(gt=0)  # of the divergence against the objective

    def start(self, program: "Program") -> "ActiveKl":
        """Freezes a copy of the model as it is now."""
        return ActiveKl(self.weight, program)


class ActiveKl(ActiveGuard):
    """The divergence from the start."""

    uses_batches: ClassVar[bool] = True

    def __init__(self, weight: float, program: "Program") -> None:
        self._weight, self._program, self._start = weight, program, program.frozen_copy()

    def batch_loss(self, outputs: "Outputs", inputs: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
        """``weight`` times the sum of divergences at the targets that count, nats."""
        import torch
        from torch.utils.checkpoint import checkpoint

        with torch.no_grad():
            before = self._start.forward(inputs, outputs.positions)
        counts = weights.flatten()
        if outputs.hidden is None or before.hidden is None:
            now_logits, start_logits = outputs.logits, before.logits
            assert now_logits is not None
            assert start_logits is not None
            return self._weight * divergence_sum(now_logits.flatten(0, 1), start_logits.flatten(0, 1), counts)
        hidden, start_hidden = outputs.hidden.flatten(0, 1), before.hidden.flatten(0, 1)
        head, start_head = self._program.head_weight, self._start.head_weight

        def chunk(h: "torch.Tensor", s: "torch.Tensor", w: "torch.Tensor") -> "torch.Tensor":
            return divergence_sum(h @ head.t().to(h.dtype), s @ start_head.t().to(s.dtype), w)

        # logits of a chunk are made again in the backward, so that those of the whole batch never exist
        parts = self._program.head_parts(hidden)
        sums = [checkpoint(chunk, hidden[p], start_hidden[p], counts[p], use_reentrant=False) for p in parts]
        return self._weight * torch.stack(sums).sum()


def divergence_sum(now: "torch.Tensor", start: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
    """Sum over rows of ``weights`` times KL(softmax(start) || softmax(now)), nats.

    Args:
        now: logits (N, V).
        start: logits (N, V).
        weights: float32 (N,).
    """
    log_now, log_start = now.float().log_softmax(-1), start.float().log_softmax(-1)
    return ((log_start.exp() * (log_start - log_now)).sum(-1) * weights).sum()
