"""What a setting does, of one or several study runs in one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indelible.workflow.reading import StudyRuns, open_runs

if TYPE_CHECKING:
    from indelible.statistics.contrasts import Contrast


def compare(
    places: "str | Path | StudyRuns | Sequence[str | Path]", by: str, against: str | None = None, **how: Any
) -> "list[Contrast]":
    """What a setting does to the losses of one or several study runs; see `StudyRuns.compare`."""
    if isinstance(places, StudyRuns):
        return places.compare(by, against, **how)
    several = [places] if isinstance(places, str | Path) else list(places)
    return open_runs(*several).compare(by, against, **how)
