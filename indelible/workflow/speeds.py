"""Measures how fast this machine trains at a scale, and keeps it for `plan`."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from indelible.corpora.sources import default_cache_dir
from indelible.errors import UserError
from indelible.host import default_workers
from indelible.measure.bench import WARM_SECONDS, measure
from indelible.measure.speed import Speed, keep_speeds, speeds_file
from indelible.results.words import plural
from indelible.study.execution import check_workers
from indelible.study.grid import apply_overrides
from indelible.study.load import resolve_study
from indelible.workflow.planning import vocabulary_of
from indelible.workflow.precision import resolved_precision

_ANY_STUDY = {"name": "bench", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}
_MANY_RUNS = 1_000_000  # so that the number of runs does not limit the workers


def kept_in() -> Path:
    """The file in which measured speeds are kept."""
    return speeds_file(default_cache_dir())


def measure_speeds(
    scale: str,
    seconds: float,
    workers: int | None = None,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = lambda text: None,
) -> Iterator[Speed]:
    """Speeds of one worker, alone and beside others, as they are measured; each is kept for `plan`.

    Args:
        scale: pico, nano, 135m or 1b.
        seconds: how long tokens are counted, for each speed.
        workers: at work at once; None = as many as this machine carries.
        overrides: `--set` strings.
        report: called with what is being done, before what may take minutes.

    Raises:
        UserError: no such scale, no seconds or no workers.
    """
    if not 0 < seconds < math.inf:
        raise UserError(f"--seconds {seconds:g}: more than 0 are needed.")
    check_workers(workers)
    study = resolve_study(apply_overrides({**_ANY_STUDY, "scale": scale}, list(overrides)), where="bench")
    most = workers or study.execution.workers or default_workers(study.execution.device, _MANY_RUNS)
    for count in sorted({1, most}):
        most_minutes = f"{WARM_SECONDS / 60:g} min at most"
        report(f"{plural(count, 'worker')}: compiling and warming up ({most_minutes}), then {seconds:g} s of counting")
        speed = measure(study, vocabulary_of(study, {}), count, seconds, resolved_precision(study.execution))
        keep_speeds(default_cache_dir(), [speed])
        yield speed
