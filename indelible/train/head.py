"""The output layer and its cross entropy, in chunks of rows: the whole logits never exist.

At small models the head is most of the arithmetic, and the logits most of the memory: V numbers a token, several times
over. Here each chunk's logits become gradients while they are still in the processor's cache, in the forward, and are
forgotten. Matrix products run in the precision of autocast; softmax, losses and sums are fp32.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**27}  # numbers in the logits of a chunk: cache of a core, a share of a GPU
MIN_ROWS = {"cpu": 256, "cuda": 1024}  # of a chunk, whatever the vocabulary: fewer make slow matrix products


def chunk_rows(rows: int, vocabulary: int, kind: str) -> int:
    """Rows of the chunks that ``rows`` rows are cut into; equal chunks, but for the last."""
    kind = kind if kind in CHUNK_LOGITS else "cuda"
    limit = max(MIN_ROWS[kind], CHUNK_LOGITS[kind] // vocabulary)
    return -(-rows // -(-rows // limit))


def chunks(hidden: torch.Tensor, weight: torch.Tensor, *, parts: int = 1) -> list[slice]:
    """The rows of hidden states (N, H) that go through a head (V, H) together, chunk by chunk.

    Args:
        hidden: the hidden states.
        weight: of the head.
        parts: a chunk has the logits of one of so many usual ones.
    """
    step = chunk_rows(len(hidden), parts * len(weight), hidden.device.type)
    return [slice(start, start + step) for start in range(0, len(hidden), step)]


def _shares(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weighted sum of losses of logits (C, V), and softmax as numerators (C, V) and denominators (C, 1)."""
    top = logits.amax(-1, keepdim=True).float()
    numerators = (logits.float() - top).exp()
    denominators = numerators.sum(-1, keepdim=True)
    picked = logits.gather(1, targets[:, None]).float()
    return ((top + denominators.log() - picked).squeeze(1) * weights).sum(), numerators, denominators


def _chunk_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The weighted sum of losses of one chunk."""
    return _shares(hidden @ weight.t(), targets, weights)[0]


def _chunk_grads(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, wants_weight: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The loss of one chunk (C, H), and its gradients by hidden states (C, H) and by the weight (V, H)."""
    logits = hidden @ weight.t()  # (C, V)
    loss, numerators, denominators = _shares(logits, targets, weights)
    is_target = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    shares = numerators * (weights[:, None] / denominators)
    slope = (shares - torch.where(is_target, weights[:, None], 0.0)).to(hidden.dtype)
    return loss, slope @ weight, slope.t() @ hidden if wants_weight else None


_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def _maybe_compiled(function: Callable[..., Any], use_compile: bool) -> Callable[..., Any]:
    if not use_compile:
        return function
    if function not in _compiled:
        _compiled[function] = torch.compile(function, dynamic=False, fullgraph=True)
    return _compiled[function]


class _HeadLoss(torch.autograd.Function):
    """Sum of cross entropies whose gradients are there before the backward starts."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        use_compile: bool,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        low, low_weight = hidden.to(dtype), weight.to(dtype)
        total = torch.zeros((), device=hidden.device)
        by_hidden = torch.empty_like(hidden)
        by_weight: torch.Tensor | None = None
        chunk_grads = _maybe_compiled(_chunk_grads, use_compile)
        is_wide = dtype == torch.float32 and hidden.device.type == "cpu"  # logits of twice the bytes
        for part in chunks(hidden, weight, parts=2 if is_wide else 1):
            loss, dh, dw = chunk_grads(low[part], low_weight, targets[part], weights[part], ctx.needs_input_grad[1])
            total += loss
            by_hidden[part] = dh
            if dw is not None:
                by_weight = dw.to(weight.dtype) if by_weight is None else by_weight.add_(dw)
        ctx.gradients = by_hidden, by_weight
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_hidden, by_weight = ctx.gradients
        ctx.gradients = None  # scaled in place, so they serve one backward
        return by_hidden.mul_(scale), None if by_weight is None else by_weight.mul_(scale), None, None, None, None


def head_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, use_compile: bool
) -> torch.Tensor:
    """Sum of ``weights`` times the cross entropies of ``targets`` under softmax(hidden weight^T).

    Its backward may run once. Under autocast the matrix products run in autocast's dtype, softmax and sums in fp32.

    Args:
        hidden: the decoder's output (B, T, H).
        weight: of the head (V, H).
        targets: int64 (B, T).
        weights: float32 (B, T); 0 for targets that do not count.
        use_compile: compile the work on a chunk.

    Returns:
        A float32 scalar, nats.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    hidden, targets, weights = hidden.flatten(0, 1), targets.flatten(), weights.flatten()
    with torch.autocast(kind, enabled=False):
        if torch.is_grad_enabled():
            return _HeadLoss.apply(hidden, weight, targets, weights, use_compile, dtype)
        low, low_weight = hidden.to(dtype), weight.to(dtype)
        chunk_loss = _maybe_compiled(_chunk_loss, use_compile)
        losses = [chunk_loss(low[part], low_weight, targets[part], weights[part]) for part in chunks(hidden, weight)]
        return torch.stack(losses).sum()


def _chunk_token_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of every target of one chunk: float32 (C,)."""
    logits = hidden @ weight.t()
    top = logits.amax(-1).float()
    total = (logits.float() - top[:, None]).exp().sum(-1)
    return top + total.log() - logits.gather(1, targets[:, None]).float().squeeze(1)


@torch.no_grad()
def head_token_losses(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, use_compile: bool
) -> torch.Tensor:
    """The cross entropy of every target under softmax(hidden weight^T), nats: float32 (B, T).

    Args:
        hidden: the decoder's output (B, T, H).
        weight: of the head (V, H).
        targets: int64 (B, T).
        use_compile: compile the work on a chunk.
    """
    rows, wanted = hidden.flatten(0, 1).to(weight.dtype), targets.flatten()
    chunk = _maybe_compiled(_chunk_token_losses, use_compile)
    losses = [chunk(rows[part], weight, wanted[part]) for part in chunks(rows, weight)]
    return torch.cat(losses).view(targets.shape)


@torch.no_grad()
def plain_head(model: nn.Module) -> tuple[nn.Module, nn.Linear] | None:
    """The decoder and the head of a causal LM whose logits are head(decoder(input)) and nothing else, or None.

    Tried out rather than looked up: the head's output is replaced by numbers that any scaling or capping would change.
    """
    base: Any = model  # a transformers model, which has more methods than a module
    if hasattr(base, "get_base_model"):  # under peft's wrapper
        base = base.get_base_model()
    decoder, head = base.get_decoder(), base.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None or decoder is None or decoder is base:
        return None
    seen: dict[str, torch.Tensor] = {}
    device = head.weight.device
    marked = torch.linspace(-500, 500, 2 * head.out_features, device=device).view(1, 2, head.out_features)

    def on_decoder(module: nn.Module, args: Any, output: Any) -> None:
        seen["decoder"] = output[0]

    def on_head(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        seen["head"] = args[0]
        return marked.clone()

    handles = [decoder.register_forward_hook(on_decoder), head.register_forward_hook(on_head)]
    was_training = model.training
    model.eval()
    try:
        logits = model(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=device), use_cache=False).logits
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    is_fed = "decoder" in seen and "head" in seen and seen["decoder"].data_ptr() == seen["head"].data_ptr()
    is_plain = is_fed and seen["decoder"].shape == seen["head"].shape and torch.equal(logits, marked)
    return (decoder, head) if is_plain else None
