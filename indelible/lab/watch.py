"""What a study is doing, read from its files: the live view of `run` and the output of `status`."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from indelible.lab.lease import LEASE_SECONDS
from indelible.lab.runs import SETTLED, RunState, Status

WIDE = 110  # characters of a line from which on the table of running stages shows everything
_STYLES = {
    Status.DONE: "green",
    Status.RUNNING: "cyan",
    Status.FAILED: "bold red",
    Status.BLOCKED: "red",
    Status.DIVERGED: "yellow",
    Status.PLANNED: "dim",
}


@dataclass(frozen=True)
class Snapshot:
    """One look at a study."""

    name: str
    states: dict[str, RunState]  # by run id, in the plan's order
    workers: int  # that share the remaining work: those of this launch, or those seen at work

    @property
    def by_stage(self) -> dict[str, Counter[str]]:
        """Number of runs per stage and status, stages in the plan's order."""
        stages: dict[str, Counter[str]] = {}
        for state in self.states.values():
            stages.setdefault(state.run.stage, Counter())[state.status.value] += 1
        return stages

    @property
    def counts(self) -> Counter[str]:
        """Number of runs per status."""
        return Counter(state.status.value for state in self.states.values())

    @property
    def running(self) -> list[RunState]:
        """Runs that somebody works on."""
        return [state for state in self.states.values() if state.status is Status.RUNNING]

    @property
    def is_settled(self) -> bool:
        """True when no run can become ready any more."""
        return all(state.status in SETTLED for state in self.states.values())

    def seconds_left(self) -> float | None:
        """Expected wall time from here; None before there is any speed to tell it by.

        The larger of the work shared evenly and the longest chain that is left.
        """
        rates = self._rates()
        if not rates:
            return None
        overall = rates[""]
        work, longest = 0.0, 0.0
        ending: dict[str, float] = {}  # seconds until each run can have ended, at best
        for run_id, state in self.states.items():
            if state.status in SETTLED:
                continue
            left = state.run.cost * (1 - _fraction(state)) / rates.get(state.run.stage, overall)
            work += left
            ending[run_id] = left + ending.get(state.run.parent or "", 0.0)
            longest = max(longest, ending[run_id])
        return max(work / max(1, self.workers), longest)

    def _rates(self) -> dict[str, float]:
        """Cost per second of each stage, and of all together under "": of finished runs, else of those under way.

        By stage, because early stopping cuts the cost of some stages and not of others.
        """
        finished: dict[str, list[tuple[float, float]]] = {}
        under_way: dict[str, list[tuple[float, float]]] = {}
        for state in self.states.values():
            if state.status is Status.DONE and state.result is not None and state.result.get("total_seconds"):
                finished.setdefault(state.run.stage, []).append((state.run.cost, state.result["total_seconds"]))
            elif state.status is Status.RUNNING and state.lease is not None and state.lease.generation == 1:
                done = state.run.cost * _fraction(state)  # of a later attempt it is not known how long the first took
                if done and state.lease.beat.get("seconds"):
                    under_way.setdefault(state.run.stage, []).append((done, state.lease.beat["seconds"]))
        timed = {**under_way, **finished}
        sums = {stage: tuple(map(sum, zip(*pairs, strict=True))) for stage, pairs in timed.items()}
        if not sums:
            return {}
        cost, seconds = (sum(values) for values in zip(*sums.values(), strict=True))
        return {"": cost / seconds, **{stage: cost / seconds for stage, (cost, seconds) in sums.items()}}

    def as_json(self) -> dict[str, Any]:
        """The snapshot for machines."""
        return {
            "study": self.name,
            "runs": len(self.states),
            "counts": {status.value: self.counts[status.value] for status in Status},
            "by_stage": {stage: dict(counts) for stage, counts in self.by_stage.items()},
            "running": [{"id": state.run.id, **_shown(state)} for state in self.running],
            "failed": [
                {"id": state.run.id, **{key: state.failure.get(key) for key in ("kind", "type", "message", "attempt")}}
                for state in self.states.values()
                if state.status is Status.FAILED and state.failure is not None
            ],
            "seconds_left": self.seconds_left(),
            "is_settled": self.is_settled,
        }


def _shown(state: RunState) -> dict[str, Any]:
    beat = state.lease.beat if state.lease is not None else {}
    record = state.lease.record if state.lease is not None else None
    keys = ("phase", "step", "total_steps", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds")
    return {
        "worker": record.worker if record is not None else None,
        "attempt": state.lease.generation if state.lease is not None else None,
        **{key: beat.get(key) for key in keys},
        "stage_seconds_left": beat.get("seconds_left"),
        "silent_seconds": _silent_seconds(state),
    }


def _silent_seconds(state: RunState) -> float | None:
    """Seconds since the worker's latest sign of life by the file's time: for people, as clocks may differ."""
    seen = state.lease.beat_time if state.lease is not None else None
    return None if seen is None else round(max(0.0, time.time() - seen), 1)


def _fraction(state: RunState) -> float:
    shown = _shown(state) if state.status is Status.RUNNING else {}
    return min(1.0, (shown.get("step") or 0) / (shown.get("total_steps") or 1))


def duration(seconds: float | None) -> str:
    """Seconds for people: ``42 s``, ``3 min 05 s``, ``2 h 10 min``; ``?`` when not known."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


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
            message = str(state.failure.get("message", "")).strip().splitlines() or [""]
            parts.append(Text(f"{state.run.id}: {state.failure.get('type')}: {message[0]}", "red"))
    if not snapshot.is_settled:
        clock = f"{duration(elapsed_seconds)} so far, " if elapsed_seconds is not None else ""
        parts.append(Text(f"{clock}about {duration(snapshot.seconds_left())} left", "dim"))
    return Group(*parts)


def _short(run_id: str, width: int = 28) -> str:
    """An id that fits a narrow terminal: its beginning and its last digits."""
    return run_id if len(run_id) <= width else f"{run_id[: width - 7]}…{run_id[-6:]}"


def _running_table(running: Sequence[RunState], *, is_wide: bool) -> Table:
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


def _running_row(state: RunState) -> tuple[str, ...]:
    """Cells of all columns, those for wide terminals last."""
    shown = _shown(state)
    step = f"{shown['step']}/{shown['total_steps']}" if shown["step"] is not None else ""
    loss = f"{shown['loss']:.3f}" if shown["loss"] is not None else ""
    speed = f"{shown['tokens_per_second']:,.0f}" if shown["tokens_per_second"] else ""
    silent = shown["silent_seconds"] or 0.0
    phase = f"silent {silent // 60:.0f} min" if silent >= LEASE_SECONDS else str(shown["phase"] or "")
    lr = f"{shown['lr']:.2g}" if shown["lr"] is not None else ""
    norm = f"{shown['grad_norm']:.3g}" if shown["grad_norm"] is not None else ""
    left = duration(shown["stage_seconds_left"]) if shown["stage_seconds_left"] is not None else ""
    return str(shown["worker"] or "?"), _short(state.run.id), phase, step, loss, speed, lr, norm, left


class PlainLines:
    """Progress for logs and pipes: a line for each run that begins or ends, and now and then one for the whole."""

    def __init__(self, console: Console, every_seconds: float = 30.0) -> None:
        self._console = console
        self._every = every_seconds
        self._seen: dict[str, Status] | None = None
        self._last = time.monotonic()

    def update(self, snapshot: Snapshot) -> None:
        """Prints what is new."""
        if self._seen is None:  # what was settled before the launch is no news
            self._seen = {run_id: state.status for run_id, state in snapshot.states.items() if state.status in SETTLED}
            self._say(summary(snapshot))
        for run_id, state in snapshot.states.items():
            if self._seen.get(run_id, Status.PLANNED) is not state.status:
                self._seen[run_id] = state.status
                self._say(f"{run_id}: {state.status.value}{_how_it_ended(state)}")
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._say(f"{_counts_line(snapshot.counts).plain}; about {duration(snapshot.seconds_left())} left")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _how_it_ended(state: RunState) -> str:
    if state.status is Status.DONE and state.result is not None and state.result.get("total_seconds") is not None:
        return f" ({state.result.get('stop_reason')}, {duration(state.result['total_seconds'])})"
    if state.status is Status.FAILED and state.failure is not None:
        return f" ({state.failure.get('type')}: {state.failure.get('message')})"
    return ""


def summary(snapshot: Snapshot) -> str:
    """One line: how the study stands."""
    return f"{snapshot.name}: {_counts_line(snapshot.counts).plain or 'no stage runs'}"
