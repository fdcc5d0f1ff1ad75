"""This machine and its processes: identity for leases, and how many workers fit.

psutil answers where it can. Two things are read from Linux itself: the start of a process, which psutil derives from
the wall clock (and leases trust no clock), and the limits of a container.
"""

import functools
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

WORKER_BYTES = 1_500_000_000  # what a worker with torch, a small model and its optimizer needs, seen on laptop scales
_LIBRARY_BYTES = 1_000_000_000  # of it, what does not grow with the model


@dataclass(frozen=True)
class Owner:
    """A process, named so that any other process can tell whether it still lives."""

    host: str
    boot: str  # changes at every boot, so that a process id of before the boot is not mistaken for a new one
    namespace: str  # of process ids: two containers on one host count from 1 each
    pid: int
    pid_start: str  # Linux: clock ticks after boot; else the kernel's start time: process ids are used again


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """Start of process ``pid``, the same text as long as it lives; empty if there is none or it is a zombie."""
    if psutil.LINUX:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name in brackets may hold spaces
        return "" if len(fields) < 20 or fields[0] in "ZX" else fields[19]
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.NoSuchProcess:
        return ""


def _boot_id() -> str:
    if sys.platform == "darwin":
        command = ("sysctl", "-n", "kern.bootsessionuuid")
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""
    return _read("/proc/sys/kernel/random/boot_id")


@functools.cache
def _place() -> tuple[str, str, str]:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return socket.gethostname(), _boot_id(), namespace


def this_process() -> Owner:
    """The calling process."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> Owner:
    """A process of this host."""
    return Owner(*_place(), pid, process_start(pid))


def is_known_dead(owner: Owner) -> bool:
    """True only where this process can be sure: same host, boot and id namespace, and the process has ended."""
    host, boot, namespace = _place()
    if not boot or (owner.host, owner.boot, owner.namespace) != (host, boot, namespace):
        return False
    start = process_start(owner.pid)
    return not start or start != owner.pid_start


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once, a container's CPU quota respected; at least 1."""
    if not psutil.LINUX:
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = psutil.Process().cpu_affinity()
    cores = {_read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    limit = int(quota) / int(period) if quota.isdigit() and period.isdigit() else len(cores)
    return max(1, min(len(cores), int(limit)))


def available_bytes() -> int:
    """Memory that new processes may use, a container's limit respected."""
    available = psutil.virtual_memory().available
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        return min(available, int(limit) - int(used))
    return available


def _num_gpus() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs this process may use, found without importing torch.

    As the driver reads it: the first name that is no GPU of this machine ends the list (Slurm writes ``NoDevFiles``
    into jobs without GPUs).
    """
    present = [str(index) for index in range(_num_gpus())]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return present
    # Windows' own driver shows no number of them, and a job's container may hide the files of those that Slurm gave it
    is_given = any(name in os.environ for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"))
    has_gpus = bool(present) or is_given or Path("/dev/dxg").exists()
    names: list[str] = []
    for name in map(str.strip, chosen.split(",")):
        is_known = name in present if present else name.isdecimal()
        if not has_gpus or name in names or not (is_known or name.startswith(("GPU-", "MIG-"))):
            break
        names.append(name)
    return names


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
    if not gpus:
        fits = min(fits, max(1, available_bytes() // max(WORKER_BYTES, _LIBRARY_BYTES + 2 * resume_bytes)))
    return max(1, min(fits // devices_per_run, width))
