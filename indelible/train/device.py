"""What a stage run computes on: device, threads, autocast precision, whether to compile, and the peak rate for MFU."""

import math
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from indelible.errors import UserError

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

USABLE_MEMORY = 0.8  # of a GPU; the rest is for fragments and kernels' workspaces
STATE_BYTES = 20  # a weight: fp32 weight, gradient, two moments, best weights
HEAD_BYTES = 2 * 2**30  # logits of a chunk and what is made of them (head.CHUNK_LOGITS)


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
        name = torch.cuda.get_device_name() if self.torch_device.type == "cuda" else f"{self.threads} CPU thread(s)"
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


def choose_device(precision: str, execution: dict[str, Any]) -> Device:
    """Resolves `auto` settings against this machine and sets torch's threads and determinism.

    Raises:
        UserError: `device: cuda` without a GPU.
    """
    asked = execution.get("device") or "auto"
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("execution.device = cuda: torch sees no GPU here; use device: auto or cpu.")
    kind = "cuda" if asked in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    threads = execution.get("threads") or max(1, torch.get_num_threads())
    torch.set_num_threads(threads)
    compile_asked = execution.get("compile") or "auto"
    can_compile = kind == "cuda" or shutil.which(os.environ.get("CXX", "c++")) is not None
    use_compile = can_compile and compile_asked in ("on", "auto")
    if kind == "cpu" and threads > 1 and use_compile:
        torch.use_deterministic_algorithms(True)  # compiled code with several threads differs from run to run otherwise
        torch.utils.deterministic.fill_uninitialized_memory = False
    if use_compile:
        from torch._inductor import config as inductor

        inductor.fallback_random = True  # the dropout masks of the eager program
    resolved = precision if precision in ("fp32", "bf16") else ("bf16" if has_bf16(kind) else "fp32")
    if kind == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    micro_batch_size, checkpointing = execution.get("micro_batch_size"), execution.get("activation_checkpointing")
    place = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    return Device(place, threads, resolved, use_compile, micro_batch_size, bool(checkpointing))


def fitting_micro_batch(
    config: PreTrainedConfig, parameters: int, seq_len: int, share: int, device: Device, memory_bytes: int
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
    """
    text = config.get_text_config(decoder=True)
    hidden, layers = text.hidden_size, text.num_hidden_layers
    layer = 4 * (6 * hidden + 3 * (getattr(text, "intermediate_size", None) or 4 * hidden))
    token = 8 * hidden * layers + layer if device.activation_checkpointing else layer * layers
    token *= 2 if device.precision == "fp32" else 1
    room = USABLE_MEMORY * memory_bytes - STATE_BYTES * parameters - HEAD_BYTES
    limit = min(share, max(1, int(room / (token * seq_len))))
    return math.ceil(share / math.ceil(share / limit))


def has_bf16(kind: str) -> bool:
    """Whether the processor multiplies bf16 matrices itself."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in _cpu_flags() or "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            return next((set(line.split()) for line in handle if line.startswith("flags")), set())
    except OSError:
        return set()


def environment(device: Device) -> dict[str, Any]:
    """What a result records about where it came from."""
    import transformers

    from indelible import __version__

    cuda = device.torch_device.type == "cuda"
    return {
        "indelible": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": device.threads,
        "compile": device.compile,
        "micro_batch_size": device.micro_batch_size,
        "machine": f"{platform.machine()} {platform.system()}",
    }
