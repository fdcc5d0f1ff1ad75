"""Dropout at the four sites of the paper (Table 7) on any Llama-like model of transformers, without touching its code.

Sites: after the embedding; attention probabilities; after the attention output projection; after the MLP. The model's
own `attention_dropout` serves the second, forward hooks the others. All are inactive in evaluation mode, and nothing of
it is in the config that a checkpoint holds: the next stage has the dropout that it asks for itself.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from indelible.errors import UserError


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of a config with every dropout probability of its own (attention_dropout, resid_pdrop, ...) at 0."""
    clean = copy.deepcopy(config)
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("_pdrop")) and isinstance(value, float):
            setattr(clean, key, 0.0)
    return clean


def add_dropout(model: PreTrainedModel, p: float) -> None:
    """Installs dropout of probability ``p`` at the four sites.

    Must be called after adapters were added, so that a site is behind the adapted layer and not inside it, and before
    the model is compiled.

    Raises:
        UserError: the architecture has no such sites.
    """
    if p == 0:
        return
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None or not all(hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in layers):
        raise UserError(
            f"dropout = {p:g}: {type(model).__name__} has no layers with self_attn and mlp to put it into; "
            "set dropout to 0 for this architecture."
        )

    def after(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        return F.dropout(output, p, training=module.training)

    model.get_input_embeddings().register_forward_hook(after)
    for layer in layers:
        if not hasattr(layer.self_attn, "attention_dropout") or not hasattr(layer.self_attn, "o_proj"):
            raise UserError(
                f"dropout = {p:g}: the attention of {type(model).__name__} has no attention_dropout or no o_proj; "
                "set dropout to 0 for this architecture."
            )
        layer.self_attn.attention_dropout = p
        layer.self_attn.o_proj.register_forward_hook(after)
        layer.mlp.register_forward_hook(after)
