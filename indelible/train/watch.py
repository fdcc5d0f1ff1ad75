"""Curves: held-out losses inside a stage, on the reported windows, at chosen steps. Watching changes no weight."""

from collections.abc import Mapping

import numpy as np

from indelible.train.distributed import World
from indelible.train.heldout import ReportedPairs, ReportedWindows
from indelible.train.pair_losses import PairLosses, reported_losses
from indelible.train.preference import as_entries
from indelible.train.program import Program

NUM_STEPS = 16  # of a curve whose steps nobody chose, about; log-spaced


def log_spaced_steps(total_steps: int) -> tuple[int, ...]:
    """0 and about 16 steps up to the last, equally spaced in their logarithm, each once."""
    if total_steps < 1:
        return (0,)
    return (0, *sorted({int(step) for step in np.geomspace(1, total_steps, NUM_STEPS).round()}))


class Watcher:
    """Records curves."""

    def __init__(self, corpora: Mapping[str, ReportedWindows | ReportedPairs], steps: tuple[int, ...]) -> None:
        self._corpora, self._steps = corpora, frozenset(steps)

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether the curves have a point after ``step`` updates; the end of the stage is always one."""
        return is_last or step in self._steps

    def look(self, program: Program, world: World) -> dict[str, float | None]:
        """The losses now, as entries of metrics.jsonl: nats per token, their standard errors, and measures of pairs."""
        entry: dict[str, float | None] = {}
        for corpus, windows in self._corpora.items():
            losses = reported_losses(program, windows, world)
            entry[f"watch/{corpus}/nats_per_token"] = losses.mean
            entry[f"watch/{corpus}/standard_error"] = losses.standard_error
            if isinstance(losses, PairLosses):
                entry |= as_entries(f"watch/{corpus}", losses.measures, len(losses.document))
        return entry
