"""What a worker process is given. Travels between processes as JSON."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indelible.scheduling.engine import ENGINE
from indelible.scheduling.failures import MAX_ATTEMPTS
from indelible.scheduling.lease import LEASE_SECONDS


class WorkerSettings(BaseModel):
    """What all workers of a launch have in common."""

    model_config = ConfigDict(frozen=True)

    out: Path  # folder with plan.json
    engine: str = ENGINE  # module:function that runs a stage
    lease_seconds: float = LEASE_SECONDS  # patience with a silent owner on another host
    max_attempts: int = MAX_ATTEMPTS  # attempts in a row that the infrastructure may lose


class WorkerStart(BaseModel):
    """One worker process."""

    model_config = ConfigDict(frozen=True)

    settings: WorkerSettings
    label: str  # shown by status; names its log
    launcher_pid: int | None = None  # the worker stops when this process has gone
    ready_fd: int | None = None  # a pipe into which it writes one byte when it has taken its first unit
