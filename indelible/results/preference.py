"""What checkpoints do with held-out pairs of answers: by themselves, and against the start of a preference stage.

An evaluation holds the log-probabilities of every pair. A checkpoint behind a preference stage is measured against the
checkpoint that the stage started from, on the same pairs: two evaluations, and the stage's own objective.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from pydantic import TypeAdapter

from indelible.objectives import Objective, PairObjective
from indelible.objectives.preference import AGAINST_START, measures_against
from indelible.records import PlannedChain, documents_path
from indelible.results.run_folder import StudyRun
from indelible.study.identity import without_tags

REFERENCE = "reference"  # column: the checkpoint that a row is measured against


@dataclass(frozen=True)
class Reference:
    """What a checkpoint behind a preference stage is measured against."""

    checkpoint: str
    objective: PairObjective  # of that stage


_OBJECTIVE: TypeAdapter[Any] = TypeAdapter(Objective)


def references(run: StudyRun, chain: PlannedChain) -> Iterator[tuple[str, str, Reference | None]]:
    """The stage and checkpoint of every checkpoint of a chain in order, and what it is measured against.

    That is the checkpoint in front of the latest preference stage; None before the first one, or where that stage
    begins with weights of its own.
    """
    found, before = None, None
    for stage, checkpoint in run.checkpoints(chain).items():
        form = run.specs.get(checkpoint, {}).get("objective") if run.pair_corpora else None
        objective = _OBJECTIVE.validate_python(without_tags(form)) if form is not None else None
        if isinstance(objective, PairObjective):
            found = None if before is None else Reference(before, objective)
        yield stage, checkpoint, found
        before = checkpoint


@dataclass
class PairMeasures:
    """Measures of evaluations on pairs; each file is read once."""

    run: StudyRun
    _files: dict[tuple[str, str], pl.DataFrame | None] = field(default_factory=dict)

    def against(
        self, checkpoint: str, evaluation: str, reference: Reference | None, reference_evaluation: str | None
    ) -> dict[str, float | None]:
        """Measures against a reference and their standard errors, by column; all None where one is not evaluated.

        Args:
            checkpoint: what is measured.
            evaluation: its evaluation on pairs.
            reference: what it is measured against.
            reference_evaluation: that checkpoint's evaluation on the same pairs.
        """
        empty: dict[str, float | None] = dict.fromkeys(
            name for one in AGAINST_START for name in (one, f"{one}_se")
        )  # fmt: skip
        if reference is None or reference_evaluation is None:
            return empty
        now, start = self._pairs(checkpoint, evaluation), self._pairs(reference.checkpoint, reference_evaluation)
        if now is None or start is None or not now["document"].equals(start["document"]):
            return empty
        own, first = (-frame.select("nats", "rejected_nats").to_numpy() for frame in (now, start))
        losses = reference.objective.loss_values(own, first)
        tokens = now.select("tokens", "rejected_tokens").to_numpy()
        found = measures_against(own, first, losses, reference.objective.beta, tokens, now["prompt"].to_numpy())
        values: dict[str, float | None] = {}
        for name, one in found.items():
            values |= {name: one.value if np.isfinite(one.value) else None, f"{name}_se": one.standard_error}
        return values

    def _pairs(self, checkpoint: str, evaluation: str) -> pl.DataFrame | None:
        key = checkpoint, evaluation
        if key not in self._files:
            path, made = documents_path(self.run.root, *key), self.run.evaluations.get(evaluation)
            is_there = made is not None and made.status == "done" and path.is_file()
            self._files[key] = pl.read_parquet(path).sort("document") if is_there else None
        return self._files[key]
