"""Model programs: a model with its dropout and adapters installed, and what is computed with it, compiled once.

A long-lived worker trains hundreds of short runs of the same few shapes. Building and compiling a model costs more than
such a run, so programs are kept and their weights replaced in place.
"""

import copy
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedConfig, PreTrainedModel

from indelible.models.build import empty_model
from indelible.models.dropout import add_dropout, without_dropout
from indelible.models.lora import add_adapters, base_parameters, reset_adapters
from indelible.objectives import NextToken
from indelible.objectives.base import ActiveGuard, ObjectiveSettings
from indelible.study.adapt import LoraSpec
from indelible.train import attention
from indelible.train.device import Device
from indelible.train.head import chunks, head_loss, head_token_losses, plain_head

MAX_PROGRAMS = 4  # kept per process; a few shapes alternate in a sweep
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Outputs:
    """What a forward gives: hidden states where the head is a plain matrix, else logits."""

    hidden: torch.Tensor | None = None  # (B, T, H), in front of the head
    logits: torch.Tensor | None = None  # (B, T, V)
    positions: torch.Tensor | None = None  # int64 (B, T), those that the forward was given


class Program:
    """One model ready to train and to evaluate.

    Attributes:
        model: the transformers model, or peft's wrapper around it.
        config: of the checkpoint that it writes: untied once adapters were merged into the head.
    """

    model: Any  # a module with the methods of a transformers model

    def __init__(self, model: nn.Module, config: PreTrainedConfig, device: Device, lora: LoraSpec | None) -> None:
        self.model, self.config, self.device, self.lora = model, config, device, lora
        self._plain = plain_head(model)
        self._entry: Callable[..., Any] = self.compute  # ranks put their wrapper in its place
        self._frozen: Program | None = None
        self.prepare(partial(torch.compile, dynamic=False) if device.compile else lambda part: part)

    def prepare(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Chooses how the model's forward is run.

        Args:
            compiled: applied to what is compiled as one piece; the identity for wrappers that compile layer by layer.
        """
        if self._plain is not None:
            self._decoder = compiled(self._plain[0])
        else:
            self._logits = compiled(self._logits_of)
            self._fused = compiled(self._loss_of_logits)

    @property
    def has_plain_head(self) -> bool:
        """Whether losses are computed in chunks, so that whole logits never exist."""
        return self._plain is not None

    @property
    def head_weight(self) -> torch.Tensor:
        """The weight of a plain head (V, H)."""
        assert self._plain is not None
        return self._plain[1].weight

    def wrap(self, wrapper: Callable[..., Any]) -> None:
        """Sends every computation through ``wrapper(name, *arguments)``, which calls `compute` in the end."""
        self._entry = wrapper

    def compute(self, name: str, *arguments: Any) -> Any:
        """Runs ``_<name>``; the one way in, so that wrappers of several ranks see every forward."""
        return getattr(self, f"_{name}")(*arguments)

    def loss_sum(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Sum of next-token cross entropies, nats.

        Args:
            inputs: int64 (B, T).
            targets: int64 (B, T).
            weights: float32 (B, T), 1 for targets that count and 0 for the others.
            positions: int64 (B, T), of each input in its document: where they start anew, attention does.

        Returns:
            A float32 scalar.
        """
        return self._entry("loss_sum", inputs, targets, weights, positions)

    @torch.no_grad()
    def token_losses(
        self, inputs: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Cross entropy of every target, nats: float32 (B, T); arguments as for `loss_sum`."""
        return self._entry("token_losses", inputs, targets, positions)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(program, *arguments)``, seen by the wrappers of several ranks: for what is computed elsewhere."""
        return self._entry("run", function, *arguments)

    def step_loss(
        self,
        objective: ObjectiveSettings,
        guard: ActiveGuard | None,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What a training step minimises on a micro batch, as sums over valid targets: the objective, and the guard."""
        return self._entry("step_loss", objective, guard, inputs, targets, weights, positions)

    def forward(self, inputs: torch.Tensor, positions: torch.Tensor | None = None) -> Outputs:
        """The model's forward over token ids int64 (B, T); ``positions`` as for `loss_sum`."""
        with attention.packed(positions is not None):
            if self._plain is None:
                return Outputs(logits=self._logits(inputs, positions), positions=positions)
            hidden = self._decoder(input_ids=inputs, use_cache=False, **_placed(positions)).last_hidden_state
        return Outputs(hidden=hidden, positions=positions)

    def cross_entropy_sum(self, outputs: Outputs, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sum of next-token cross entropies of a forward; see `loss_sum`."""
        if outputs.hidden is not None:
            return head_loss(outputs.hidden, self.head_weight, targets, weights, self.device.compile)
        assert outputs.logits is not None
        return (_losses_of(outputs.logits, targets) * weights.flatten()).sum()

    def _loss_sum(
        self, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor | None
    ) -> torch.Tensor:
        if self._plain is None:
            with attention.packed(positions is not None):
                return self._fused(inputs, targets, weights, positions)
        return self.cross_entropy_sum(self.forward(inputs, positions), targets, weights)

    def _token_losses(
        self, inputs: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor | None
    ) -> torch.Tensor:
        outputs = self.forward(inputs, positions)
        if outputs.hidden is not None:
            return head_token_losses(outputs.hidden, self.head_weight, targets, self.device.compile)
        assert outputs.logits is not None
        return _losses_of(outputs.logits, targets).view(targets.shape)

    def _step_loss(
        self,
        objective: ObjectiveSettings,
        guard: ActiveGuard | None,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        positions: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if isinstance(objective, NextToken) and (guard is None or not guard.uses_batches):
            return self._loss_sum(inputs, targets, weights, positions), None
        outputs = self.forward(inputs, positions)
        loss = objective.loss_sum(self, outputs, targets, weights)
        return loss, guard.batch_loss(outputs, inputs, weights) if guard is not None and guard.uses_batches else None

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self, *arguments)

    def _logits_of(self, inputs: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        return self.model(input_ids=inputs, use_cache=False, **_placed(positions)).logits

    def _loss_of_logits(
        self, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor | None
    ) -> torch.Tensor:
        return (_losses_of(self._logits_of(inputs, positions), targets) * weights.flatten()).sum()

    @torch.no_grad()
    def frozen_copy(self) -> "Program":
        """The model as it is now, in evaluation mode and never to be trained: a reference for objectives and guards.

        Made once a program and filled again for the next run. Call it before ranks wrap the program.
        """
        if self._frozen is None:
            model = copy.deepcopy(self.model).eval().requires_grad_(False)
            self._frozen = Program(model, self.config, replace(self.device), self.lora)
        own = dict(self._frozen.model.named_parameters())
        for name, weight in self.model.named_parameters():
            own[name].copy_(weight)
        return self._frozen

    def head_parts(self, rows: torch.Tensor) -> list[slice]:
        """The chunks in which rows of hidden states (N, H) go through a plain head."""
        return chunks(rows, self.head_weight)

    @staticmethod
    def full_tensor(value: torch.Tensor) -> torch.Tensor:
        """A tensor gathered from all ranks where it is sharded; see `full_tensor`."""
        return full_tensor(value)

    @staticmethod
    def laid_out_like(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """A whole tensor, sharded as ``weight`` is; see `laid_out_like`."""
        return laid_out_like(weight, value)

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
        """Every weight by its name in the model, adapters included: whole, fp32, on the CPU; a copy."""
        return {name: full_tensor(weight).float().cpu().clone() for name, weight in self.model.named_parameters()}

    def trainable(self) -> State:
        """The weights that training changes, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def _placed(positions: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The positions as transformers takes them: it sees by them where documents begin, and resets attention there."""
    return {} if positions is None else {"position_ids": positions}


def _losses_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every target from whole logits (B, T, V), nats: float32 (B T,)."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")


def full_tensor(weight: torch.Tensor) -> torch.Tensor:
    """A weight without its gradient history, gathered from all ranks where it is sharded."""
    return weight.full_tensor().detach() if isinstance(weight, DTensor) else weight.detach()


def laid_out_like(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole tensor, the same on all ranks, sharded as ``weight`` is."""
    if not isinstance(weight, DTensor):
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)


_programs: OrderedDict[str, Program] = OrderedDict()


def get_program(config: PreTrainedConfig, dropout: float, lora: LoraSpec | None, device: Device) -> Program:
    """The program of this shape, from this process's store or built now. Its weights are those of the last user."""
    shape = {
        key: value
        for key, value in config.to_dict().items()
        if not key.startswith(("_", "transformers_version", "architectures"))
    }
    key = json.dumps([shape, dropout, lora.model_dump() if lora else None, repr(device)], sort_keys=True, default=str)
    if key in _programs:
        _programs.move_to_end(key)
        return _programs[key]
    while len(_programs) >= MAX_PROGRAMS:
        _programs.popitem(last=False)
    model: PreTrainedModel = empty_model(without_dropout(config))
    if model._supports_attention_backend and model._supports_sdpa:
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
