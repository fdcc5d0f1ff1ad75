"""Freed memory stays with a process, counted by the pages that its next steps touch for the first time."""

import platform
import subprocess
import sys

import pytest
import torch

from indelible.study.execution import ExecutionSpec
from indelible.train import memory
from indelible.train.device import choose_device

STEPS = """
import resource, torch
from indelible.train.memory import keep_freed_memory
torch.set_num_threads(1)
assert keep_freed_memory()
def step():
    blocks = [torch.ones(2**20) for _ in range(12)]  # 4 MiB each, as chunks of logits are
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults() -> int:
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other rules")
def test_a_step_takes_the_pages_of_the_step_before():
    # as it comes it is 60,000 in two processes of three, and none where something stays at the top of the heap
    assert max(page_faults() for _ in range(4)) < 5000


def test_a_c_library_without_the_switch_is_left_alone(monkeypatch):
    memory.keep_freed_memory.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    try:
        assert memory.keep_freed_memory() is False
        assert choose_device("fp32", ExecutionSpec(device="cpu", compile="off")).torch_device == torch.device("cpu")
    finally:
        memory.keep_freed_memory.cache_clear()
