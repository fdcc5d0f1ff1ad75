"""The trials of an audit as their files are: for each its curve, what relearning gave, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indelible.durability.study import BASE_CONTROL, FINETUNE, MODEL_CONTROL, RELEARNING, Setting
from indelible.records import PlannedChain
from indelible.results.curves import WATCHED
from indelible.results.run_folder import StudyRun, read_metrics

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Held-out losses inside a stage, by step; all arrays have one length, and step 0 is the first."""

    steps: Numbers  # optimizer steps done
    tokens: Numbers  # trained so far
    kept: Numbers  # nats per token on the kept corpus
    new: Numbers  # nats per token on the new corpus

    @property
    def lost(self) -> Numbers:
        """Rise of the loss on the kept corpus since step 0, nats per token."""
        return self.kept - self.kept[0]

    @property
    def gains(self) -> Numbers:
        """Fall of the loss on the new corpus since step 0, nats per token."""
        return self.new[0] - self.new


@dataclass(frozen=True)
class Trial:
    """One fine-tune of one checkpoint."""

    setting: Setting
    checkpoint: str  # its id
    seed: int
    curve: Curve
    has_diverged: bool = False
    relearned: Mapping[int, float] = field(default_factory=dict)  # updates on the kept data to its loss, nats per token
    run: str = ""  # id of the fine-tuning run


@dataclass(frozen=True)
class Trials:
    """All that was measured."""

    trials: tuple[Trial, ...]
    before: Mapping[str, float]  # checkpoint id to its loss on the kept corpus, nats per token
    controls: Mapping[tuple[str, int], Mapping[int, float]]  # checkpoint and seed: relearned without a trial before
    unfinished: int = 0  # trials that failed or are not done


def read_trials(run: StudyRun, settings: Mapping[str, Setting], keep: str) -> Trials:
    """Reads what an audit's study has left.

    Args:
        run: the study's folder.
        settings: by name of their arm.
        keep: the kept corpus.
    """
    trials, controls, unfinished = [], {}, 0
    curves: dict[str, list[dict[str, Any]]] = {}
    for chain in run.plan.chains:
        arm, seed = chain.columns["arm"], chain.columns["seed"]
        if arm in (MODEL_CONTROL, BASE_CONTROL):
            if found := _relearned(run, chain, keep):
                controls[str(chain.start), seed] = found
            continue
        if arm not in settings:
            continue
        name = chain.stages[FINETUNE]
        result = run.results.get(name)
        points = curves.setdefault(name, read_metrics(run.root, name)) if result is not None else []
        curve = _curve(points, keep, settings[arm].corpus)
        if result is None or curve is None:
            unfinished += 1
            continue
        trials.append(
            Trial(
                setting=settings[arm], checkpoint=str(chain.start), seed=seed, curve=curve,
                has_diverged=result.status == "diverged", relearned=_relearned(run, chain, keep), run=name,
            )
        )  # fmt: skip
    return Trials(tuple(trials), _before(run, keep), controls, unfinished)


def _curve(points: list[dict[str, Any]], keep: str, new: str) -> Curve | None:
    """The watched points, as far as both losses are finite numbers; None without a start."""
    keys = [f"watch/{corpus}/nats_per_token" for corpus in (keep, new)]
    rows = []
    for point in points:
        values = [point.get(key) for key in keys]
        if keys[0] not in point:
            continue
        if any(value is None or not np.isfinite(value) for value in values):
            break
        rows.append((point.get("step") or 0, point.get("tokens") or 0, *values))
    if not rows or rows[0][0] != 0:
        return None
    return Curve(*np.array(rows, dtype=np.float64).T)


def _relearned(run: StudyRun, chain: PlannedChain, keep: str) -> dict[int, float]:
    """Loss on the kept corpus by number of updates on it; nothing where the stage is not there or not done."""
    name = chain.stages.get(RELEARNING, "")
    if name not in run.results:
        return {}
    key = f"watch/{keep}/nats_per_token"
    points = read_metrics(run.root, name, WATCHED)
    return {int(point["step"]): point[key] for point in points if point.get(key) is not None and point["step"]}


def _before(run: StudyRun, keep: str) -> dict[str, float]:
    """The given checkpoints' own losses on the kept corpus, from their evaluations."""
    return {
        made.checkpoint: made.nats_per_token
        for made in run.evaluations.values()
        if made.checkpoint in run.plan.given and made.corpus == keep and made.nats_per_token is not None
    }
