"""What the launcher asks of an executor."""

from typing import Protocol


class Executor(Protocol):
    """Keeps workers alive. It never decides what they work on."""

    @property
    def num_workers(self) -> int:
        """Workers it means to keep."""
        ...

    @property
    def detach_note(self) -> str | None:
        """What becomes of workers that outlive the launcher; None if they end with it."""
        ...

    def start(self) -> None:
        """Starts the workers."""
        ...

    def poll(self, ready_or_running: int) -> str | None:
        """Replaces workers that died, as far as there is work; a message when it cannot go on, else None.

        Args:
            ready_or_running: units that are not settled yet.
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
