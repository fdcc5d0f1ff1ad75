"""A study in a terminal: the live view of `run` (or plain lines, where nobody watches) and the output of `status`."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from indelible.scheduling.launcher import Observer, Outcome
from indelible.scheduling.lease import LEASE_SECONDS
from indelible.scheduling.run_index import SETTLED, Status, UnitState
from indelible.scheduling.snapshot import Snapshot, progress_of, seconds_taken

WIDE = 110  # characters of a line from which on the table of running units shows everything
_STYLES = {
    Status.DONE: "green",
    Status.RUNNING: "cyan",
    Status.FAILED: "bold red",
    Status.BLOCKED: "red",
    Status.DIVERGED: "yellow",
    Status.PLANNED: "dim",
}
_STOPPING = "Stopping: workers save their state. Once more to stop at once."


@contextmanager
def watching(console: Console) -> Iterator[Observer]:
    """An observer that shows a launch: a live view in a terminal, else lines for logs and pipes."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as display:
        yield _LiveView(console, display)


class _LiveView(Observer):
    """Draws every look in place of the one before."""

    def __init__(self, console: Console, display: Live) -> None:
        self._console = console
        self._display = display
        self._started = time.monotonic()

    def on_look(self, snapshot: Snapshot) -> None:
        """Draws."""
        shown = render(snapshot, time.monotonic() - self._started, self._console.width)
        self._display.update(shown, refresh=True)

    def on_stop(self, reason: str) -> None:
        """Says that workers save."""
        self._console.print(_STOPPING)


class PlainLines(Observer):
    """Progress for logs and pipes: a line for each unit that begins or ends, and now and then one for the whole."""

    def __init__(self, console: Console, every_seconds: float = 30.0) -> None:
        self._console = console
        self._every = every_seconds
        self._seen: dict[str, Status] | None = None
        self._last = time.monotonic()

    def on_look(self, snapshot: Snapshot) -> None:
        """Prints what is new."""
        if self._seen is None:  # what was settled before the launch is no news
            self._seen = {name: state.status for name, state in snapshot.states.items() if state.status in SETTLED}
            self._print(summary(snapshot))
        for unit_id, state in snapshot.states.items():
            if self._seen.get(unit_id, Status.PLANNED) is not state.status:
                self._seen[unit_id] = state.status
                self._print(f"{unit_id}: {state.status.value}{_how_it_ended(state)}")
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._print(f"{_counts_line(snapshot.counts).plain}; {time_left(snapshot)}")

    def on_stop(self, reason: str) -> None:
        """Says that workers save."""
        self._print(_STOPPING)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Prints how a launch ended."""
    snapshot = outcome.snapshot
    if not outcome.has_worked:
        console.print(f"{summary(snapshot)}. Nothing to do.", markup=False, highlight=False)
        return
    console.print(render(snapshot, width=console.width) if console.is_terminal else summary(snapshot), highlight=False)
    if outcome.trouble is not None:
        text = f"Stopped: {outcome.trouble}. The same command continues."
        console.print(text, style="bold", markup=False, highlight=False)


_ALIKE = 1.1  # a bound so near to the estimate says all


def duration(seconds: float | None) -> str:
    """Seconds for people: ``42 s``, ``3 min 05 s``, ``2 h 10 min``; ``?`` when not known."""
    if seconds is None:
        return "?"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def time_left(snapshot: Snapshot) -> str:
    """``about 5 min 10 s left, at most 9 min 02 s``: as early stopping did so far, and if it ends no run any more.

    The bound alone where no run has been ended before its steps, or where that made no difference to speak of.
    """
    likely, most = snapshot.seconds_left(), snapshot.seconds_at_most()
    if likely is None or most is None:
        return "time left not known yet"
    if most <= _ALIKE * likely:
        return f"at most {duration(most)} left"
    return f"about {duration(likely)} left, at most {duration(most)}"


def _counts_line(counts: Counter[str]) -> Text:
    parts = [
        Text(f"{counts[status.value]} {status.value}", _STYLES[status]) for status in Status if counts[status.value]
    ]
    return Text(", ").join(parts)


def render(snapshot: Snapshot, elapsed_seconds: float | None = None, width: int = 80) -> RenderableType:
    """The snapshot as a table of stages, a table of what is running, the failures, and the time left.

    Args:
        snapshot: what to show.
        elapsed_seconds: since the launch; None when nobody launched.
        width: characters of a line; narrow ones go without learning rate, gradient norm and the stage's time left.
    """
    stages = Table(box=None, pad_edge=False)
    stages.add_column("stage")
    for status in Status:
        if snapshot.counts[status.value]:
            stages.add_column(status.value, justify="right", style=_STYLES[status])
    for stage, counts in snapshot.by_stage.items():
        stages.add_row(stage, *(str(counts[status.value]) for status in Status if snapshot.counts[status.value]))
    parts: list[RenderableType] = [Text(snapshot.name, "bold"), stages]
    if snapshot.running:
        parts += [Text(), _running_table(snapshot.running, is_wide=width >= WIDE)]
    for state in snapshot.states.values():
        if state.status is Status.FAILED and state.failure is not None:
            message = state.failure.message.strip().splitlines() or [""]
            parts.append(Text(f"{state.unit.id}: {state.failure.type}: {message[0]}", "red"))
    if not snapshot.is_settled:
        clock = f"{duration(elapsed_seconds)} so far, " if elapsed_seconds is not None else ""
        parts.append(Text(f"{clock}{time_left(snapshot)}", "dim"))
    return Group(*parts)


def _short(unit_id: str, width: int = 28) -> str:
    """An id that fits a narrow terminal: its beginning and its last digits."""
    return unit_id if len(unit_id) <= width else f"{unit_id[: width - 7]}…{unit_id[-6:]}"


def _running_table(running: Sequence[UnitState], *, is_wide: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    widths = {"worker": 5, "run": 12, "phase": 10, "step": 9, "loss": 6, "tokens/s": 8}
    if is_wide:
        widths |= {"lr": 7, "grad": 6, "left": 12}
    for title, width in widths.items():
        side: Literal["left", "right"] = "left" if title in ("worker", "run", "phase") else "right"
        table.add_column(title, justify=side, no_wrap=True, min_width=width)
    for state in running:
        table.add_row(*_running_row(state)[: len(widths)])
    return table


def _running_row(state: UnitState) -> tuple[str, ...]:
    """Cells of all columns, those for wide terminals last."""
    shown = progress_of(state)
    step = f"{shown['step']}/{shown['total_steps']}" if shown["step"] is not None else ""
    loss = f"{shown['loss']:.3f}" if shown["loss"] is not None else ""
    speed = f"{shown['tokens_per_second']:,.0f}" if shown["tokens_per_second"] else ""
    silent = shown["silent_seconds"] or 0.0
    phase = f"silent {silent // 60:.0f} min" if silent >= LEASE_SECONDS else str(shown["phase"] or "")
    lr = f"{shown['lr']:.2g}" if shown["lr"] is not None else ""
    norm = f"{shown['grad_norm']:.3g}" if shown["grad_norm"] is not None else ""
    left = duration(shown["stage_seconds_left"]) if shown["stage_seconds_left"] is not None else ""
    return str(shown["worker"] or "?"), _short(state.unit.id), phase, step, loss, speed, lr, norm, left


def _how_it_ended(state: UnitState) -> str:
    if state.status is Status.FAILED and state.failure is not None:
        return f" ({state.failure.type}: {state.failure.message})"
    if state.status is not Status.DONE:
        return ""
    reason = [state.result.stop_reason] if state.result is not None else []
    seconds = seconds_taken(state)
    known = [*reason, *([duration(seconds)] if seconds is not None else [])]
    return f" ({', '.join(known)})" if known else ""


def summary(snapshot: Snapshot) -> str:
    """One line: how the study stands."""
    return f"{snapshot.name}: {_counts_line(snapshot.counts).plain or 'no stage runs'}"
