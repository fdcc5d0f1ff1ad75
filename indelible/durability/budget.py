"""Which portion of a battery fits a time on this machine, and what each costs.

Portions are prefixes of one order, so that batteries of different budgets are nested and a larger budget goes on where
a smaller one ended. Times are of this machine: measured on what the folder has done, else from `indelible bench`, else
assumed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from indelible.errors import UserError
from indelible.records import StageResult, run_dir
from indelible.study.graph import StageRun
from indelible.workflow.estimate import Estimate, estimate, task_flops
from indelible.workflow.planning import Planned

START_SECONDS = 20.0  # of worker processes that start, and of the last ones that wait for each other
RUN_SECONDS = 2.0  # of a run whose like was not measured: to load, to write its checkpoint, to settle
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Price:
    """What a portion costs, all of it, whether done or not."""

    seconds: float  # of wall clock, with all workers
    stage_runs: int
    done: int  # of them
    tokens: int
    rate: str  # measured, given or assumed
    rate_source: str
    workers: int


def parse_budget(text: str | float | None) -> float | None:
    """Seconds; None for `all`.

    Raises:
        UserError: no time.
    """
    if text is None or text == "all":
        return None
    if isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    else:
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhd])\s*", str(text))
        seconds = float(found[1]) * UNITS[found[2]] if found else -1.0
    if not 0 < seconds < 1e9:
        raise UserError(f"--budget {text}: expected a time such as 40m, 2h or 1d, or `all` for the whole battery.")
    return seconds


def price(planned: Planned, out: Path | None, workers: int | None) -> Price:
    """What a planned portion costs on this machine.

    A run of a kind that the folder has done (the same stage, the same adapters, as many tokens) is taken to last as
    long as those did; others by their FLOPs, at the speed of those that are done or as `indelible plan` finds it.
    """
    found = estimate(planned, out, workers=workers)
    done = _seconds_by_run(planned, out)
    kinds: dict[tuple[object, ...], list[float]] = {}
    for name, seconds in done.items():
        kinds.setdefault(_kind(planned, planned.graph.runs[name]), []).append(seconds)
    rate = _rate(planned, done, found)
    overhead = 0.0 if done else RUN_SECONDS  # what was measured has it
    total, longest = 0.0, 0.0
    ends: dict[str, float] = {}
    for run in planned.graph.runs.values():
        known = kinds.get(_kind(planned, run))
        own = sum(known) / len(known) if known else overhead + planned.costs[run.id].flops / rate
        total += own
        ends[run.id] = own + ends.get(run.parent or "", 0.0)
        longest = max(longest, ends[run.id])
    for checkpoint, wanted in planned.graph.task_evaluations.items():
        total += task_flops(planned, checkpoint, [*wanted.values()]) / rate
    return Price(
        seconds=START_SECONDS + max(total / found.workers, longest),
        stage_runs=found.stage_runs,
        done=len(done),
        tokens=found.tokens,
        rate="measured" if done else found.rate,
        rate_source=f"measured on {len(done)} runs of {out}" if done else found.rate_source,
        workers=found.workers,
    )


def _kind(planned: Planned, run: StageRun) -> tuple[object, ...]:
    """What makes two runs last equally long: all but rates, seeds and text. Runs of other models are other kinds."""
    return run.stage, run.spec.adapt, planned.costs[run.id]


def _rate(planned: Planned, done: Mapping[str, float], found: Estimate) -> float:
    flops = sum(planned.costs[name].flops for name in done)
    seconds = sum(done.values())
    return flops / seconds if flops and seconds else found.flops_per_second


def _seconds_by_run(planned: Planned, out: Path | None) -> dict[str, float]:
    """How long the finished runs of a plan took, by id."""
    if out is None:
        return {}
    results = {name: StageResult.read(run_dir(out, name) / "result.json") for name in planned.graph.runs}
    return {
        name: result.total_seconds for name, result in results.items() if result is not None and result.total_seconds
    }
