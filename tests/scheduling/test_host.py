"""This machine and its processes, on Linux as it is and elsewhere as psutil tells it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from indelible import host
from indelible.host import default_workers, is_known_dead, owner_of, process_start, this_process


def test_reused_process_id_is_not_the_owner() -> None:
    me = this_process()
    assert not is_known_dead(me)
    assert is_known_dead(replace(me, pid_start="1"))
    assert not is_known_dead(replace(me, pid_start="1", host="elsewhere"))  # nothing is known of other hosts
    assert not is_known_dead(replace(me, pid_start="1", boot="earlier"))
    assert not is_known_dead(replace(me, pid_start="1", namespace="pid:[1]"))  # another container's ids
    assert process_start(2**22 + 5) == ""


@pytest.mark.skipif(not psutil.LINUX, reason="the numbers of Linux")
def test_the_start_of_a_process_is_the_kernels_own_number() -> None:
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    assert process_start(os.getpid()) == fields[19]
    assert this_process().boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize("is_linux", [psutil.LINUX, False])
def test_a_process_that_ended_is_known_dead(monkeypatch: pytest.MonkeyPatch, is_linux: bool) -> None:
    monkeypatch.setattr(host.psutil, "LINUX", is_linux)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid)
    assert owner.pid_start
    assert owner == owner_of(child.pid)
    assert not is_known_dead(owner)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie: nobody has asked for its exit code yet
    assert is_known_dead(owner)
    child.communicate()
    assert is_known_dead(owner)


def test_macos_names_its_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **_: object) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(stdout="A-BOOT\n")

    monkeypatch.setattr(host.sys, "platform", "darwin")
    monkeypatch.setattr(host.subprocess, "run", run)
    assert host._boot_id() == "A-BOOT"
    assert asked == [("sysctl", "-n", "kern.bootsessionuuid")]

    def fail(command: tuple[str, ...], **_: object) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(host.subprocess, "run", fail)
    assert host._boot_id() == ""  # then nobody of this host is known to be dead


def test_cores_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.psutil, "LINUX", False)
    monkeypatch.setattr(host.psutil, "cpu_count", lambda logical: 8 if logical else 4)
    assert host.physical_cores() == 4


def test_memory_is_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/memory.max": "3000", "/sys/fs/cgroup/memory.current": "1000"}
    monkeypatch.setattr(host, "_read", lambda path: files.get(path, ""))
    assert host.available_bytes() == 2000
    files["/sys/fs/cgroup/memory.max"] = "max"
    assert host.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_worker_count_by_gpus_memory_and_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "physical_cores", lambda: 8)
    monkeypatch.setattr(host, "available_bytes", lambda: 64 * 10**9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_workers("auto", 100) == 8
    assert default_workers("auto", 3) == 3
    monkeypatch.setattr(host, "available_bytes", lambda: 4 * 10**9)
    assert default_workers("auto", 100) == 2
    monkeypatch.setattr(host, "available_bytes", lambda: 16 * 10**9)
    assert default_workers("auto", 100, resume_bytes=3_675_136) == 8  # a small model
    assert default_workers("auto", 100, resume_bytes=2_152_240_128) == 3  # 135M parameters: 5.3 GB each
    monkeypatch.setattr(host, "available_bytes", lambda: 4 * 10**9)
    monkeypatch.setattr(host, "_num_gpus", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert default_workers("auto", 100) == 3
    assert default_workers("cpu", 100) == 2
    assert default_workers("auto", 0) == 1
