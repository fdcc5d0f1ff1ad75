"""This machine and its processes: identity for leases, and how many workers fit. Reads /proc where there is one."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

WORKER_BYTES = 1_500_000_000  # what a worker with torch, a small model and its optimizer needs, seen on laptop scales
_LIBRARY_BYTES = 1_000_000_000  # of it, what does not grow with the model


@dataclass(frozen=True)
class Owner:
    """A process, named so that any other process can tell whether it still lives."""

    host: str
    boot: str  # changes at every boot, so that a process id of before the boot is not mistaken for a new one
    namespace: str  # of process ids: two containers on one host count from 1 each
    pid: int
    pid_start: str  # clock ticks after boot: process ids are used again


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """Start of process ``pid`` in clock ticks since boot; empty if there is no such process or it is a zombie."""
    stat = _read(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold spaces
    if len(fields) < 20 or fields[0] in "ZX":
        return ""
    return fields[19]


@functools.cache
def _place() -> tuple[str, str, str]:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return socket.gethostname(), _read("/proc/sys/kernel/random/boot_id"), namespace


def this_process() -> Owner:
    """The calling process."""
    host, boot, namespace = _place()
    return Owner(host, boot, namespace, os.getpid(), process_start(os.getpid()))


def is_known_dead(owner: Owner) -> bool:
    """True only where this process can be sure: same host, boot and id namespace, and the process has ended."""
    host, boot, namespace = _place()
    if not boot or (owner.host, owner.boot, owner.namespace) != (host, boot, namespace):
        return False
    start = process_start(owner.pid)
    return not start or start != owner.pid_start


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once, a container's CPU quota respected; at least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    limit = int(quota) / int(period) if quota.isdigit() and period.isdigit() else len(cores)
    return max(1, min(len(cores), int(limit)))


def available_bytes() -> int | None:
    """Memory that new processes may use, a container's limit respected; None where it cannot be told."""
    figures = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            figures.append(int(line.split()[1]) * 1024)
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        figures.append(int(limit) - int(used))
    return min(figures) if figures else None


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs this process may use, found without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() and name.strip() != "-1"]
    return [str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def default_workers(device: str, width: int, devices_per_run: int = 1, resume_bytes: int = 0) -> int:
    """How many workers this machine carries: one a GPU, else one a physical core as far as memory goes.

    Args:
        device: ``execution.device`` of the study (auto, cpu, cuda, ...).
        devices_per_run: GPUs, or processes without GPUs, that train one stage run together.
        width: stage runs still to be done; more workers than that would idle.
        resume_bytes: of the largest resume state: training holds about twice as much (gradients, activations).
    """
    gpus = [] if device == "cpu" else visible_gpus()
    fits = len(gpus) or physical_cores()
    memory = available_bytes()
    if not gpus and memory is not None:
        fits = min(fits, max(1, memory // max(WORKER_BYTES, _LIBRARY_BYTES + 2 * resume_bytes)))
    return max(1, min(fits // devices_per_run, width))
