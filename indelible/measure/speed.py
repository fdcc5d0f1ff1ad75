"""Speeds that `indelible bench` measured, kept in the user's cache folder so that `plan` can tell hours from FLOPs."""

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from indelible.errors import UserError
from indelible.files import read_as, read_json, write_json
from indelible.host import physical_cores, visible_gpus
from indelible.strict import Positive

FORMAT = 1
Rate = Annotated[float, Field(gt=0, le=1e30)]  # a second


@dataclass(frozen=True)
class Speed:
    """What one worker does per second while ``workers`` of them are at work on one machine."""

    machine: str  # `this_machine()` where it was measured
    scale: str
    device: str  # cpu or cuda
    threads: Positive  # per worker
    workers: Positive  # at work at the same time
    tokens_per_second: Rate  # trained tokens of one worker
    flops_per_second: Rate  # of one worker
    measured: str  # UTC

    @property
    def kind(self) -> tuple[str, str, str, int]:
        """What must be equal for a speed to tell anything about a study."""
        return self.machine, self.scale, self.device, self.threads


class _Kept(BaseModel):
    speeds: list[Speed]


_KEPT = TypeAdapter(_Kept)


def this_machine() -> str:
    """The processor, its cores and the GPUs: equal machines have equal speeds, whatever their names are."""
    gpus = visible_gpus()
    return f"{_processor()}, {physical_cores()} cores" + (f", {len(gpus)} x {_gpu()}" if gpus else "")


def _processor() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()


def _gpu() -> str:
    found = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return (_field(found[0], "Model") if found else "") or "GPU"


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def chosen_device(device: str) -> str:
    """What ``execution.device`` comes to on this machine, found without importing torch: cpu or cuda."""
    return "cuda" if device == "cuda" or (device == "auto" and visible_gpus()) else "cpu"


def now() -> str:
    """This moment, UTC, for `Speed.measured`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def speeds_file(cache_dir: Path) -> Path:
    """Where speeds are kept."""
    return cache_dir / "speeds.json"


def read_speeds(cache_dir: Path) -> list[Speed]:
    """All speeds that are kept; none where the file is of another format.

    Raises:
        UserError: the file is not JSON, or was edited.
    """
    path = speeds_file(cache_dir)
    if not path.exists():
        return []
    value: Any = read_json(path)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return []
    return read_as(path, _KEPT).speeds


def keep_speeds(cache_dir: Path, speeds: list[Speed]) -> Path:
    """Writes speeds down, in place of earlier ones of the same kind and number of workers; returns the file.

    Raises:
        UserError: the cache folder cannot be written.
    """
    new = {(*speed.kind, speed.workers) for speed in speeds}
    others = [speed for speed in read_speeds(cache_dir) if (*speed.kind, speed.workers) not in new]
    path = speeds_file(cache_dir)
    try:
        write_json(path, {"format": FORMAT, "speeds": [asdict(speed) for speed in (*others, *speeds)]})
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({os.strerror(error.errno or 0)}); set INDELIBLE_CACHE to another folder."
        ) from None
    return path


def find_speed(cache_dir: Path, scale: str, device: str, threads: int, workers: int) -> Speed | None:
    """The speed of a worker among ``workers`` on this machine; None if it was not measured.

    Where this very number of workers was not measured it is that of the next smaller one, else of the smallest.
    """
    kind = (this_machine(), scale, device, threads)
    known = sorted((speed for speed in read_speeds(cache_dir) if speed.kind == kind), key=lambda speed: speed.workers)
    fewer = [speed for speed in known if speed.workers <= workers]
    return next(iter(fewer[-1:] or known[:1]), None)
