"""Causal attention that is fast where this project trains: transformers' own, with two things put right.

Compiled, transformers gives `scaled_dot_product_attention` a mask even where causality is all there is, because it
cannot see there whether windows are packed, and so misses its causal kernels. And on a CPU that kernel is slow in bf16,
whose backward takes three times that of fp32 (docs/performance.md); two batched matrix products with a softmax between
them, which the compiler fuses, are not. Where the weights of all layers together would be large, the backward makes
them again: for 135M parameters at 2 x 512 tokens they are a fifth of a step's memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_is_packed = False  # whether the forward that runs, or is compiled, has rows of several documents
NAME = "indelible"  # under which transformers knows it; never written into a checkpoint
MAX_SCORES = 2**25  # attention weights of a layer that may be made, numbers; beyond, the kernel that makes none
MAX_STORED = 2**25  # those of all layers that may be kept for the backward; beyond, each layer makes them twice


@contextmanager
def packed(value: bool) -> Iterator[None]:
    """Says whether the forward inside has rows of several documents, so that its masks are more than causal."""
    global _is_packed
    before, _is_packed = _is_packed, value
    try:
        yield
    finally:
        _is_packed = before


def causal_mask(
    batch_size: int, q_length: int, kv_length: int, *args: Any, **kwargs: Any
) -> torch.Tensor | None:  # None = every earlier position, and nothing else
    """The mask of transformers' `sdpa`, left out wherever it would only say that attention is causal.

    Compiled, transformers makes a mask of every call, for rows may be packed. `Program` knows whether they are: if not,
    a mask can only say more if the model has a function of its own for it, of which `use_vmap` tells.
    """
    window = kwargs.get("local_size")
    is_known = torch.compiler.is_compiling() and not kwargs["use_vmap"]
    may_skip = not _is_packed and (kwargs.get("allow_is_causal_skip", True) or is_known)
    is_only_causal = may_skip and kwargs.get("attention_mask") is None
    if is_only_causal and q_length == kv_length and (window is None or kv_length < window):
        return None
    return sdpa_mask(batch_size, q_length, kv_length, *args, **kwargs)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' convention.

    Args:
        module: the attention layer.
        query: (B, heads, T, D).
        key: (B, kv heads, T, D).
        value: as ``key``.
        attention_mask: None = causal, else as in `sdpa`.
        dropout: probability on the attention weights.
        scaling: of the scores; None = 1 / sqrt(D).
        kwargs: what else transformers passes to `sdpa`.

    Returns:
        (B, T, heads, D), and None.
    """
    batch, heads, length, size = query.shape
    is_small = batch * heads * length**2 <= MAX_SCORES
    is_bf16_on_cpu = query.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    is_usual = attention_mask is None and kwargs.get("is_causal") in (None, True) and key.shape[2] == length
    if not (is_bf16_on_cpu and is_small and is_usual and getattr(module, "is_causal", True)) or (
        kwargs.get("position_bias") is not None or kwargs.get("softcap") is not None
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    scale = size**-0.5 if scaling is None else scaling
    layers = int(getattr(getattr(module, "config", None), "num_hidden_layers", 1))
    if layers * batch * heads * length**2 <= MAX_STORED or dropout or not torch.is_grad_enabled():
        return _by_products(query, key, value, dropout, scale), None
    again = checkpoint(_by_products, query, key, value, 0.0, scale, use_reentrant=False, preserve_rng_state=False)
    return again, None


def _by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, scale: float
) -> torch.Tensor:
    """Causal attention (B, T, heads, D) by two batched products; arguments as for `attention`."""
    heads, length = query.shape[1:3]
    key, value = (repeat_kv(tensor, heads // tensor.shape[1]) for tensor in (key, value))
    scores = (query @ key.transpose(2, 3)).float() * scale  # (B, heads, T, T)
    place = torch.arange(length, device=query.device)
    scores = scores.masked_fill(place[None, :] > place[:, None], float("-inf"))
    shares = F.dropout(scores.softmax(-1), dropout)
    return (shares @ value).transpose(1, 2).contiguous()


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, causal_mask)
