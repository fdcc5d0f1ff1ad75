"""What `precision: auto` comes to: it is resolved when a study is planned, and hashed as resolved."""

from pathlib import Path
from typing import Literal

from indelible.host import visible_gpus
from indelible.study.execution import ExecutionSpec


def resolved_precision(execution: ExecutionSpec) -> Literal["fp32", "bf16"]:
    """bf16 on a GPU and on a processor that multiplies bf16 matrices itself, else fp32.

    A GPU counts if it is visible here, or asked of Slurm for the jobs that will train.
    """
    if execution.device != "cpu" and (execution.slurm.gpus_per_node or visible_gpus()):
        return "bf16"
    return "bf16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "fp32"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
