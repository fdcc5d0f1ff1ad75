"""What a stage run computes on: device, threads, autocast precision, whether to compile, and the peak rate for MFU."""

import functools
import math
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from indelible.errors import UserError
from indelible.study.execution import ExecutionSpec
from indelible.train.memory import keep_freed_memory

PEAK_BF16_FLOPS = {  # dense bf16 rate of the data sheets, by the name that the driver gives; others have no MFU
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA GeForce RTX 4090": 165e12,
}  # whole names: a part of one would take a slower variant (H100 PCIe, a laptop's 4090) for a faster one

MAX_EAGER_STEPS = 8  # of a stage that `auto` does not compile: compiling takes longer than it saves (135M: 40 updates)
USABLE_MEMORY = 0.8  # of a GPU; the rest is for fragments and kernels' workspaces
STATE_BYTES = 20  # a weight: fp32 weight, gradient, two moments, best weights
FROZEN_BYTES = 4  # a weight that a guard keeps in fp32
HEAD_BYTES = 2 * 2**30  # logits of a chunk and what is made of them (head.CHUNK_LOGITS)
LOGIT_BYTES = 16  # of a whole logit: bf16, fp32, log-softmax in fp32, and its gradient


@dataclass(frozen=True)
class Device:
    """Where and how a stage run computes. Recorded with the result, never hashed."""

    torch_device: torch.device
    threads: int
    precision: Literal["fp32", "bf16"]  # of the training forward and backward; weights and evaluation are fp32
    compile: bool
    micro_batch_size: int | None  # sequences per forward; None = the whole batch of the rank, or what fits on a GPU
    activation_checkpointing: bool = False  # compute each layer's activations again in the backward

    def autocast(self) -> AbstractContextManager:
        """The autocast context of training."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=torch.bfloat16)

    def describe(self) -> str:
        """One phrase for the log."""
        kind = self.torch_device.type
        name = f"{self.threads} CPU thread{'' if self.threads == 1 else 's'}" if kind == "cpu" else kind
        if kind == "cuda":
            name = torch.cuda.get_device_name()
        return f"{name}, {self.precision}, {'compiled' if self.compile else 'eager'}"

    @property
    def peak_flops(self) -> float | None:
        """Peak bf16 FLOP/s of a known GPU that trains in bf16, else None."""
        if self.torch_device.type != "cuda" or self.precision != "bf16":
            return None
        return PEAK_BF16_FLOPS.get(torch.cuda.get_device_name())

    @contextmanager
    def whole_fp32(self) -> Iterator[None]:
        """The context of evaluation: a GPU's fp32 products are not rounded to TF32."""
        if self.torch_device.type != "cuda":
            yield
            return
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def choose_device(precision: Literal["fp32", "bf16"], execution: ExecutionSpec) -> Device:
    """Resolves `auto` settings against this machine and sets torch's threads and determinism, and how memory is kept.

    Raises:
        UserError: a device that is not here, or `compile: on` without a compiler that works.
    """
    kind = _kind_of_device(execution.device)
    threads = execution.threads or max(1, torch.get_num_threads())
    torch.set_num_threads(threads)
    keep_freed_memory()
    use_compile = _settled_compile(execution.compile, kind)
    if kind == "cpu" and threads > 1 and use_compile:
        torch.use_deterministic_algorithms(True)  # compiled code with several threads differs from run to run otherwise
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if use_compile:
        from torch._inductor import config as inductor

        inductor.fallback_random = True  # the dropout masks of the eager program
    if kind == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    place = torch.device(kind) if kind == "cpu" else torch.device(kind, torch.accelerator.current_device_index())
    return Device(
        place, threads, precision, use_compile, execution.micro_batch_size, execution.activation_checkpointing
    )


def stage_execution(execution: ExecutionSpec, total_steps: int) -> ExecutionSpec:
    """How a stage of so many updates is executed: `auto` compiles nothing for a handful of them.

    A function of the spec alone, never of what a process has compiled before, so that a repeat takes the same way.
    """
    if execution.compile == "auto" and total_steps <= MAX_EAGER_STEPS:
        return execution.model_copy(update={"compile": "off"})
    return execution


def _kind_of_device(requested: str) -> str:
    """cpu, or the kind of the accelerator that torch finds here (cuda, mps, xpu).

    Raises:
        UserError: an accelerator was requested and another one, or none, is here.
    """
    found = torch.accelerator.current_accelerator(check_available=True) if torch.accelerator.is_available() else None
    there = found.type if found is not None and found.type in ("cuda", "mps", "xpu") else "cpu"
    if requested == "auto":
        return there
    if requested not in ("cpu", there):
        here = "sees no GPU" if there == "cpu" else f"sees {there}"
        raise UserError(f"execution.device = {requested}: torch {here} here; use device: auto or cpu.")
    return requested


def _settled_compile(requested: str, kind: str) -> bool:
    """Whether to compile: `auto` goes on without, and says so, where the compiler is missing or fails."""
    if requested == "off":
        return False
    reason = compiler_fault(kind)
    if not reason:
        return True
    if requested == "on":
        raise UserError(
            f"execution.compile = on: torch.compile does not work here ({reason}); install a C++ compiler and the "
            "headers of Python, or set execution.compile: off."
        )
    if reason not in _reported:
        _reported.add(reason)
        print(f"execution.compile = auto: not compiled, torch.compile does not work here ({reason})", flush=True)
    return False


_reported: set[str] = set()  # faults that this process has printed


@functools.cache
def compiler_fault(kind: str) -> str:
    """Why torch.compile does not work on this kind of device, empty if it does: tried once a process.

    The compiler may be missing, be named by a CXX of several words, lack the headers of Python, or have no folder that
    it may write to; nothing but a trial tells. What it compiles is kept, so that only the first trial takes seconds.
    """
    try:
        command = shlex.split(os.environ.get("CXX", "c++"))
    except ValueError as error:
        return f"CXX = {os.environ['CXX']!r}: {error}"
    if kind == "cpu" and (not command or shutil.which(command[0]) is None):
        return f"no C++ compiler {' '.join(command)!r} is found"
    try:
        found = torch.compile(_trial, dynamic=False)(torch.arange(64.0, device=kind))
        return "" if torch.equal(found.cpu(), _trial(torch.arange(64.0))) else "it computes something else"
    except Exception as error:  # of dynamo, inductor, the compiler, the file system
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        shown = next((line for line in lines if "error:" in line.lower()), lines[0] if lines else "")
        return f"{type(error).__name__}: {shown}"[:300]
    finally:
        torch.compiler.reset()


def _trial(numbers: torch.Tensor) -> torch.Tensor:
    return (numbers * 2 + 1).relu()


def fitting_micro_batch(
    config: PreTrainedConfig,
    parameters: int,
    seq_len: int,
    share: int,
    device: Device,
    memory_bytes: int,
    *,
    has_plain_head: bool = True,
    frozen_parameters: int = 0,
) -> int:
    """The largest micro batch that fits into the memory of a GPU, in parts as equal as can be.

    Activations kept for the backward are 4 (6 H + 3 I) bytes a token and layer under autocast (within 3 % of what
    autograd saves of Llama models of 128 to 576 hidden units), or 8 H and one whole layer with checkpointing. It is
    reckoned from the size of the memory, not from what is free at the moment: the same machine splits the same way.

    Args:
        config: of the model; H its hidden size and I its MLP width.
        parameters: weights that this rank holds.
        seq_len: tokens of a sequence.
        share: sequences of a global batch that fall to the rank.
        device: whether activations are checkpointed, and their precision.
        memory_bytes: of the GPU.
        has_plain_head: losses are computed in chunks; otherwise whole logits, their softmax and their gradient exist.
        frozen_parameters: weights that a guard keeps a copy of.
    """
    text = config.get_text_config(decoder=True)
    hidden, layers = text.hidden_size, text.num_hidden_layers
    layer = 4 * (6 * hidden + 3 * (getattr(text, "intermediate_size", None) or 4 * hidden))
    token = 8 * hidden * layers + layer if device.activation_checkpointing else layer * layers
    token *= 2 if device.precision == "fp32" else 1
    token += 0 if has_plain_head else LOGIT_BYTES * text.vocab_size
    room = USABLE_MEMORY * memory_bytes - STATE_BYTES * parameters - FROZEN_BYTES * frozen_parameters - HEAD_BYTES
    limit = min(share, max(1, int(room / (token * seq_len))))
    return math.ceil(share / math.ceil(share / limit))


def versions() -> dict[str, str]:
    """The libraries whose other versions may give other bits."""
    import transformers

    from indelible import __version__

    return {"indelible": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


def environment(device: Device) -> dict[str, Any]:
    """What a result records about where it came from."""
    cuda = device.torch_device.type == "cuda"
    return {
        **versions(),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": device.threads,
        "compile": device.compile,
        "micro_batch_size": device.micro_batch_size,
        "machine": f"{platform.machine()} {platform.system()}",
    }
