"""Ending processes together with everything that they started, sessions of their own included."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence

import psutil

_LOOK_SECONDS = 0.05


def descendants(pids: Iterable[int]) -> list[psutil.Process]:
    """All living processes below the given ones, these not included."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).children(recursive=True)
    return found


def end_groups(processes: Sequence["subprocess.Popen[bytes]"], patience_seconds: float = 0.0) -> None:
    """Ends processes that lead their own groups, and all that they started; returns when they have gone.

    torchrun starts every rank in a session of its own, which no signal to torchrun's group reaches.

    Args:
        processes: each the leader of its process group.
        patience_seconds: how long they may take to end by SIGTERM; 0 = SIGKILL at once.
    """
    alive = [process for process in processes if process.poll() is None]
    below = descendants(process.pid for process in alive)
    if patience_seconds:
        for process in alive:
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline and any(process.poll() is None for process in alive):
            below += descendants(process.pid for process in alive)
            time.sleep(_LOOK_SECONDS)
    below += descendants(process.pid for process in alive)
    for process in alive:
        _signal_group(process.pid, signal.SIGKILL)
    for process in below:
        if process.is_running():  # by its start, so that no new owner of the number is meant
            _kill_with_group(process.pid)
    for process in processes:
        process.wait()


def _kill_with_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _signal_group(leader: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(leader, signum)
