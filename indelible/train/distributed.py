"""Several processes for one stage run, as torchrun starts them: who trains which windows, and what they agree on.

Every rank reads the same ledger and takes its slice of each global batch; losses are sums over tokens divided by the
number of valid tokens of the whole batch, so the number of ranks changes nothing but the order of additions.
"""

import inspect
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from indelible.data.loader import Batch
from indelible.train.program import Program, laid_out_like


class World:
    """The ranks that train one stage together; a single process by default."""

    def __init__(self, rank: int = 0, size: int = 1, parallel: Literal["ddp", "fsdp"] = "ddp") -> None:
        self.rank, self.size, self.parallel = rank, size, parallel
        self._wrapper: nn.Module | None = None

    @classmethod
    def current(cls, parallel: Literal["ddp", "fsdp"] = "ddp") -> "World":
        """The world of this process: of its process group if one is initialised."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), parallel)
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and talks to the launcher."""
        return self.rank == 0

    def share_of(self, global_batch_size: int) -> int:
        """Windows of a global batch that one rank takes, at most."""
        return math.ceil(global_batch_size / self.size)

    def slice_of(self, batch: Batch, share: int) -> Batch:
        """This rank's ``share`` windows of a batch; fewer or none at its end."""
        rows = slice(self.rank * share, (self.rank + 1) * share)
        return batch.rows(rows)

    def equal_slice_of(self, batch: Batch) -> Batch:
        """This rank's part of a batch, filled up with windows that do not count: equally many on all ranks."""
        share = math.ceil(len(batch.tokens) / self.size)
        return self.slice_of(batch, share).filled_up(share)

    def sum(self, value: float) -> float:
        """The sum of a number over all ranks, the same bits on each."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item()

    def gather_rows(self, rows: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """The rows of all ranks one after the other, on each; the first ``count`` of them."""
        if self.size == 1:
            return rows[:count]
        mine = torch.from_numpy(np.ascontiguousarray(rows))
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine)
        return torch.cat(parts).numpy()[:count]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is raised on some rank."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised)
        return tuple(bool(flag) for flag in raised.tolist())

    def broadcast(self, text: str) -> str:
        """The text that rank 0 gave, on all ranks."""
        if self.size == 1:
            return text
        payload = [text]
        dist.broadcast_object_list(payload, src=0)
        return payload[0]

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU; a barrier of its own would go through the GPU's backend

    def wrap(self, program: Program) -> None:
        """Lets a program train on all ranks. Its weights must be equal on all of them by now."""
        if self.size == 1:
            return
        module: nn.Module = _Computation(program)
        device = program.device.torch_device
        if self.parallel == "ddp":
            ids = [device.index] if device.type == "cuda" else None
            known = inspect.signature(DistributedDataParallel.__init__).parameters
            sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # the older name
            options: dict[str, Any] = {"device_ids": ids, "gradient_as_bucket_view": True, sync: False}
            module = DistributedDataParallel(module, **options)
        else:
            program.prepare(lambda part: part)  # compiled by layers: a graph cannot reach over the gathering of weights
            # weights are gathered in fp32 and autocast rounds them, so that evaluation stays fp32 and the training
            # steps are those of a single process
            policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
            for layer in _layers(program.model):
                if program.device.compile:
                    layer.compile(dynamic=False)
                fully_shard(layer, mp_policy=policy)
            # sharded again after every forward: weights that are replaced between two evaluations must be seen
            fully_shard(module, mp_policy=policy, reshard_after_forward=True)
        self._wrapper = module
        program.wrap(module)

    def accumulating(self, is_last: bool) -> AbstractContextManager:
        """Around one forward and backward of several: gradients are exchanged in the last one only."""
        if isinstance(self._wrapper, DistributedDataParallel) and not is_last:
            return self._wrapper.no_sync()
        if isinstance(self._wrapper, FSDPModule):
            self._wrapper.set_requires_gradient_sync(is_last)
        return nullcontext()


class _Computation(nn.Module):
    """A program as a module, for wrappers that hook into a forward."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.model = program.model
        self._compute = program.compute

    def forward(self, name: str, *arguments: Any) -> Any:
        return self._compute(name, *arguments)


def _layers(model: nn.Module) -> nn.ModuleList:
    """The transformer layers of any causal LM: its longest list of modules."""
    return max((module for module in model.modules() if isinstance(module, nn.ModuleList)), key=len)


@torch.no_grad()
def assign(weight: torch.Tensor, value: torch.Tensor) -> None:
    """Copies a whole tensor, the same on all ranks, into a weight that may be sharded."""
    weight.copy_(laid_out_like(weight, value))
