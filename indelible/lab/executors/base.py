"""What the launcher asks of an executor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from indelible.lab.failures import MAX_ATTEMPTS
from indelible.lab.lease import LEASE_SECONDS
from indelible.lab.worker import ENGINE


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a launch is told."""

    out: Path  # folder with plan.json
    engine: str = ENGINE  # module:function that runs a stage
    lease_seconds: float = LEASE_SECONDS  # patience with a silent owner on another host
    max_attempts: int = MAX_ATTEMPTS  # attempts in a row that the infrastructure may lose

    def arguments(self, label: str) -> list[str]:
        """Arguments of ``python -m indelible.lab.worker``."""
        return [
            *(str(self.out), "--label", label, "--engine", self.engine),
            *("--lease-seconds", str(self.lease_seconds), "--max-attempts", str(self.max_attempts)),
        ]


class Executor(Protocol):
    """Keeps workers alive. It never decides what they work on."""

    @property
    def num_workers(self) -> int:
        """Workers it means to keep."""
        ...

    @property
    def farewell(self) -> str | None:
        """What becomes of workers that outlive the launcher; None if they end with it."""
        ...

    def start(self) -> None:
        """Starts the workers."""
        ...

    def poll(self, ready_or_running: int) -> str | None:
        """Replaces workers that died, as far as there is work; a message when it cannot go on, else None.

        Args:
            ready_or_running: stage runs that are not settled yet.
        """
        ...

    def is_idle(self) -> bool:
        """True when no worker is left."""
        ...

    def stop(self) -> None:
        """Asks all workers to save and leave; returns at once."""
        ...

    def kill(self) -> None:
        """Ends all workers without asking; returns when they have gone."""
        ...
