"""Model programs: a model with its dropout and adapters installed, and its loss function, compiled once per process.

A long-lived worker trains hundreds of short runs of the same few shapes. Building and compiling a model costs more than
such a run, so programs are kept and their weights replaced in place.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedConfig, PreTrainedModel

from indelible.model.build import empty_model
from indelible.model.dropout import add_dropout, without_dropout
from indelible.model.lora import add_adapters, base_parameters, reset_adapters
from indelible.study.spec import LoraSpec
from indelible.train import attention
from indelible.train.device import Device
from indelible.train.head import head_loss, plain_head

MAX_PROGRAMS = 4  # kept per process; a few shapes alternate in a sweep
State = dict[str, torch.Tensor]


@dataclass
class Program:
    """One model ready to train and to evaluate."""

    model: nn.Module  # the transformers model, or peft's wrapper around it
    config: PreTrainedConfig  # of the checkpoint that it writes: untied once adapters were merged into the head
    device: Device
    lora: LoraSpec | None

    def __post_init__(self) -> None:
        self._plain = plain_head(self.model)
        self._loss_sum = self._make_loss(lambda part: part)  # for wrappers that compile layer by layer
        is_compiled = self.device.compile
        self._loss = self._make_loss(partial(torch.compile, dynamic=False)) if is_compiled else self._loss_sum

    def _make_loss(self, prepare: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[..., torch.Tensor]:
        """The loss by way of hidden states, in chunks, or of whole logits where the head is not a plain one."""
        if self._plain is None:
            return prepare(self._loss_of_logits)
        decoder, head = prepare(self._plain[0]), self._plain[1]

        def loss_of_hidden(inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            hidden = decoder(input_ids=inputs, use_cache=False).last_hidden_state  # (B, T, H)
            return head_loss(hidden, head.weight, targets, weights, self.device.compile)

        return loss_of_hidden

    def _loss_of_logits(self, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=inputs, use_cache=False).logits  # (B, T, V)
        losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return (losses * weights.flatten()).sum()

    def loss_sum(self, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sum of next-token cross entropies, nats.

        Args:
            inputs: int64 (B, T).
            targets: int64 (B, T).
            weights: float32 (B, T), 1 for targets that count and 0 for the others.

        Returns:
            A float32 scalar.
        """
        return self._loss(inputs, targets, weights)

    @torch.no_grad()
    def load_base(self, state: State, lora_seed: int) -> None:
        """Replaces the weights (those under the adapters, which are drawn anew)."""
        own = base_parameters(self.model)
        embedding = self.model.get_input_embeddings().weight
        tied = next((name for name, weight in own.items() if weight is embedding), "")
        for name, weight in own.items():  # a head that adapters made untied is not in a tied checkpoint
            weight.copy_(state[name] if name in state or weight.shape != embedding.shape else state[tied])
        if self.lora is not None:
            reset_adapters(self.model, lora_seed)

    @torch.no_grad()
    def all_weights(self) -> State:
        """Every weight by its name in the model, adapters apart: whole, fp32, on the CPU; a copy."""
        return {name: whole(weight).float().cpu().clone() for name, weight in self.model.named_parameters()}

    def trainable(self) -> State:
        """The weights that training changes, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight without its gradient history, gathered from all ranks where it is sharded."""
    return weight.full_tensor().detach() if isinstance(weight, DTensor) else weight.detach()


_programs: OrderedDict[str, Program] = OrderedDict()


def get_program(config: PreTrainedConfig, dropout: float, lora: LoraSpec | None, device: Device) -> Program:
    """The program of this shape, from this process's store or built now. Its weights are those of the last user."""
    shape = {key: value for key, value in config.to_dict().items() if not key.startswith(("_", "transformers_version"))}
    key = json.dumps([shape, dropout, lora.model_dump() if lora else None, repr(device)], sort_keys=True, default=str)
    if key in _programs:
        _programs.move_to_end(key)
        return _programs[key]
    while len(_programs) >= MAX_PROGRAMS:
        _programs.popitem(last=False)
    model: PreTrainedModel = empty_model(without_dropout(config))
    if model._supports_attention_backend:
        model.set_attn_implementation(attention.NAME)
    if device.activation_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # older releases have the second name
    wrapped = add_adapters(model, lora) if lora is not None else model
    add_dropout(model, dropout)
    program = Program(wrapped.to(device.torch_device), model.config, device, lora)
    _programs[key] = program
    return program


def forget_programs() -> None:
    """Frees every kept program; the next stage builds its own."""
    _programs.clear()
    torch.compiler.reset()


def read_state(folder: Path) -> State:
    """The weights of a checkpoint folder, fp32, from one safetensors file or its shards."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("model*.safetensors"))
    state: State = {}
    for file in files:
        state.update(load_file(file))
    return {name: weight.float() for name, weight in state.items()}
