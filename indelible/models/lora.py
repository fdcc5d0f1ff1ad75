"""Low-rank adapters (paper, Table 9) through peft, on models with tied or untied heads.

A tied head cannot be adapted in place: the delta would reach the embedding too, or be lost in the merge. So the head
gets a copy of its own first, and the checkpoint that follows is untied. peft is imported where it is needed: most runs
have no adapters, and every worker would pay a second for it.
"""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from indelible.errors import UserError
from indelible.models.build import generator
from indelible.study.adapt import LoraSpec

State = dict[str, torch.Tensor]
PREFIX = "base_model.model."  # what peft puts in front of the names of the model
DOWN, UP = ".lora_A.default.weight", ".lora_B.default.weight"


def untie(model: PreTrainedModel) -> None:
    """Gives the head a copy of the embedding, so that it can be trained or adapted alone."""
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model._tied_weights_keys = {}  # else saving would drop the head again
    model.all_tied_weights_keys = {}


def add_adapters(model: PreTrainedModel, spec: LoraSpec) -> nn.Module:
    """Wraps the target layers of a model; only adapters stay trainable.

    Raises:
        UserError: a target is no linear layer of this model.
    """
    from peft import LoraConfig, get_peft_model

    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if missing := sorted(set(spec.targets) - linear):
        known = f"; its linear layers are {', '.join(sorted(linear))}"
        raise UserError(
            f"lora.targets: {', '.join(missing)} not among the linear layers of {type(model).__name__}{known}."
        )
    head = model.get_output_embeddings()
    if any(module is head and name.rpartition(".")[2] in spec.targets for name, module in model.named_modules()):
        untie(model)
    config = LoraConfig(r=spec.r, lora_alpha=spec.alpha, target_modules=list(spec.targets), task_type="CAUSAL_LM")
    return get_peft_model(model, config)


@torch.no_grad()
def reset_adapters(model: nn.Module, seed: int) -> None:
    """Draws all adapters anew from the stream `lora`: A uniform as in peft, B zero: training starts at the base."""
    from peft.tuners.lora import LoraLayer

    source = generator(seed, "lora")
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for adapter in module.lora_A:
                down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
                bound = down.shape[1] ** -0.5
                down.copy_((torch.rand(down.shape, generator=source) * 2 - 1) * bound)
                up.zero_()


def base_parameters(model: nn.Module) -> State:
    """The weights under the adapters, by the names that they have without them."""
    return base_of(dict(model.named_parameters()))


def base_of(weights: Mapping[str, torch.Tensor]) -> State:
    """Of the weights of an adapted model those under the adapters, by the names that they have without them."""
    return {
        name.removeprefix(PREFIX).replace(".base_layer", ""): weight
        for name, weight in weights.items()
        if ".lora_" not in name
    }


def merged(weights: Mapping[str, torch.Tensor], spec: LoraSpec) -> State:
    """The weights with every adapter folded in: W + (alpha / r) B A, under the names of the model without adapters."""
    state = base_of(weights)
    for name, down in weights.items():
        if name.endswith(DOWN):
            layer = name.removesuffix(DOWN)
            key = layer.removeprefix(PREFIX) + ".weight"
            state[key] = state[key] + spec.alpha / spec.r * (weights[layer + UP] @ down)
    return state


def kept_adapters(weights: Mapping[str, torch.Tensor]) -> State:
    """What `merge: false` keeps beside the merged weights: the adapters, and the weights under them as they are.

    Names are those of the adapted model; the weights cannot be had back exactly from the merged ones.
    """
    layers = [name.removesuffix(DOWN) for name in weights if name.endswith(DOWN)]
    kinds = (DOWN, UP, ".base_layer.weight")
    return {layer + kind: weights[layer + kind] for layer in layers for kind in kinds}


@torch.no_grad()
def load_adapters(model: nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
    """Puts kept adapters, and the weights under them, back."""
    own = dict(model.named_parameters())
    for name, weight in kept.items():
        own[name].copy_(weight)
