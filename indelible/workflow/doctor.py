"""What this installation and this machine can do, for users and bug reports; it changes and sends nothing."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from indelible import __version__
from indelible.corpora.catalog import PACKAGES
from indelible.corpora.sources import default_cache_dir
from indelible.corpora.wheels import package_path
from indelible.host import available_bytes, physical_cores, visible_gpus
from indelible.measure.speed import this_machine
from indelible.study.execution import ExecutionSpec
from indelible.workflow.precision import resolved_precision

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "scipy", "polars", "pydantic")
LEAST_DISK_BYTES = 5 * 10**9  # a small study with its caches
LEAST_MEMORY_BYTES = 2 * 10**9
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Fact:
    """One line of the doctor's report."""

    topic: str
    text: str
    state: Literal["ok", "note", "bad"] = "ok"  # note: works, but with a consequence that the text says
    fix: str = ""  # what to do, empty where there is nothing to do


def examine() -> list[Fact]:
    """Looks at versions, processor, devices, precision, compiler, caches, disk and Slurm.

    Every look is by itself: one that fails becomes a line of its own and hides no other.
    """
    looks: list[Callable[[], Iterable[Fact]]] = [
        _versions, _processor, _devices, _memory, _precision, _compiler, _cache, _corpora, _disk, _slurm,
    ]  # fmt: skip
    found: list[Fact] = []
    for look in looks:
        topic = look.__name__.lstrip("_")
        try:
            found += look()
        except Exception as error:
            found.append(Fact(topic, f"could not be examined: {type(error).__name__}: {error}"[:300], "bad"))
    return found


def _versions() -> Iterable[Fact]:
    yield Fact("indelible", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = []
    texts = []
    for name in LIBRARIES:
        try:
            texts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Fact("libraries", ", ".join(texts))
    if missing:
        yield Fact("libraries", f"missing: {', '.join(missing)}", "bad", f"{sys.executable} -m pip install indelible")


def _processor() -> Iterable[Fact]:
    import torch

    yield Fact("processor", f"{this_machine()}; torch uses {torch.backends.cpu.get_cpu_capability()}")


def _devices() -> Iterable[Fact]:
    import torch

    gpus = visible_gpus()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Fact("devices", f"CUDA {torch.version.cuda}: {', '.join(names)}")
    elif torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        yield Fact(
            "devices", f"{kind}: through torch's accelerator interface; this project was never tried on one", "note"
        )
    elif gpus:
        fix = "install the torch build for your driver, or set execution.device: cpu"
        yield Fact("devices", f"{len(gpus)} GPU(s) are visible, but torch {torch.__version__} sees none", "bad", fix)
    else:
        yield Fact("devices", "no GPU; studies run on the processor")


def _memory() -> Iterable[Fact]:
    free = available_bytes()
    state: Literal["ok", "note"] = "ok" if free >= LEAST_MEMORY_BYTES else "note"
    fix = "" if state == "ok" else "run fewer workers (--workers 1)"
    yield Fact("memory", f"{free / 1e9:.1f} GB free, {physical_cores()} core(s)", state, fix)


def _precision() -> Iterable[Fact]:
    precision = resolved_precision(ExecutionSpec())
    meaning = "multiplied natively" if precision == "bf16" else "bf16 is not native here"
    yield Fact("precision", f"`precision: auto` is {precision} ({meaning})")


def _compiler() -> Iterable[Fact]:
    import torch

    from indelible.train.device import compiler_fault

    reason = compiler_fault("cuda" if torch.cuda.is_available() else "cpu")
    if not reason:
        yield Fact("compiler", "torch.compile works")
    else:
        fix = "install a C++ compiler (Debian: g++) and Python's headers; without them training is slower"
        yield Fact("compiler", f"torch.compile does not work: {reason}", "note", fix)


def _cache() -> Iterable[Fact]:
    folder = default_cache_dir()
    place = next(part for part in (folder, *folder.parents) if part.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        fix = "set INDELIBLE_CACHE to a folder that can be written"
        yield Fact("cache", f"{folder}: cannot be written ({error.strerror or error})", "bad", fix)
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    yield Fact("cache", f"{folder}: {size / 1e9:.2f} GB")


def _corpora() -> Iterable[Fact]:
    cache = default_cache_dir()
    there = [name for name, package in PACKAGES.items() if package_path(package, cache).exists()]
    fix = "" if len(there) == len(PACKAGES) else "indelible corpora fetch"
    yield Fact(
        "corpora", f"{len(there)} of {len(PACKAGES)} offline packages are fetched", "ok" if there else "note", fix
    )


def _disk() -> Iterable[Fact]:
    for name, folder in {"here": Path.cwd(), "temporary": Path(tempfile.gettempdir())}.items():
        free = shutil.disk_usage(folder).free
        state: Literal["ok", "note"] = "ok" if free >= LEAST_DISK_BYTES else "note"
        fix = "" if state == "ok" else "free some space, or give another --out"
        yield Fact("disk", f"{name}: {folder}: {free / 1e9:.1f} GB free", state, fix)


def _slurm() -> Iterable[Fact]:
    if shutil.which("squeue") is None:
        yield Fact("slurm", "not here; --executor local is what runs")
        return
    command = ["squeue", "-h", "-u", str(os.getuid())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    if done.returncode == 0:
        yield Fact("slurm", f"answers; {len(done.stdout.splitlines())} of your jobs are in the queue")
    else:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Fact("slurm", f"squeue does not answer: {reason}", "note", "--executor slurm needs its controller")
