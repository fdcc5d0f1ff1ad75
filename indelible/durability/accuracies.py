"""Accuracies of an audit: of each checkpoint on each task, before and after the trials on each new corpus."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import special

from indelible.durability.card import AccuracyRow, Number
from indelible.durability.intervals import estimate
from indelible.durability.request import LEVEL, AuditRequest
from indelible.durability.study import FINETUNE, Setting
from indelible.records import Evaluation, PlannedChain
from indelible.results.run_folder import StudyRun

Values = Mapping[Setting, Mapping[int, tuple[float, float]]]  # by setting and seed: accuracy, and its standard error


def accuracy_rows(
    run: StudyRun, request: AuditRequest, settings: Sequence[Setting], ids: Mapping[str, str]
) -> list[AccuracyRow]:
    """A row for each task, checkpoint and new corpus.

    Args:
        run: the study's folder.
        request: what was asked.
        settings: of the portion that is done.
        ids: checkpoint ids by the checkpoint's name.
    """
    plain = {setting.name: setting for setting in settings if setting.is_plain}
    return [
        row
        for task in dict.fromkeys(one.task for one in run.plan.tasks)
        for name in request.checkpoints
        for later in request.later
        if (row := _row(run, task, name, ids[name], later, plain)) is not None
    ]


def _row(
    run: StudyRun, task: str, name: str, checkpoint: str, later: str, plain: Mapping[str, Setting]
) -> AccuracyRow | None:
    """None where the checkpoint itself, or every trial, is not evaluated yet."""
    chains = [
        chain
        for chain in run.plan.chains
        if chain.start == checkpoint and chain.columns["arm"] in plain and plain[chain.columns["arm"]].corpus == later
    ]
    before = _evaluated(run, chains[0], checkpoint, task) if chains else None
    if before is None or before.accuracy is None:
        return None
    values = _values(run, chains, plain, task)
    seeds = sorted({seed for found in values.values() for seed in found})
    used = [setting for setting, found in values.items() if len(found) == len(seeds)]
    if not used:
        return None
    shares = [float(np.mean([values[setting][seed][0] for setting in used])) for seed in seeds]
    error = float(np.mean([values[setting][seed][1] for setting in used for seed in seeds]))
    after = estimate(shares, se_documents=error, documents=before.documents)
    return AccuracyRow(
        task=task,
        checkpoint=name,
        later=later,
        examples=before.documents,
        before=_over_examples(before),
        after=Number(value=after.value, low=_share(after.low), high=_share(after.high), n=after.n),
        settings=len(used),
    )


def _values(run: StudyRun, chains: Sequence[PlannedChain], plain: Mapping[str, Setting], task: str) -> Values:
    """What the trials came to; one that diverged has nothing right."""
    found: dict[Setting, dict[int, tuple[float, float]]] = {}
    for setting, seed, value in _trials(run, chains, plain, task):
        found.setdefault(setting, {})[seed] = value
    return found


def _trials(
    run: StudyRun, chains: Sequence[PlannedChain], plain: Mapping[str, Setting], task: str
) -> Iterator[tuple[Setting, int, tuple[float, float]]]:
    for chain in chains:
        setting, seed, name = plain[chain.columns["arm"]], int(chain.columns["seed"]), chain.stages[FINETUNE]
        result, made = run.results.get(name), _evaluated(run, chain, name, task)
        if result is not None and result.status == "diverged":
            yield setting, seed, (0.0, 0.0)
        elif made is not None and made.accuracy is not None:
            yield setting, seed, (made.accuracy, made.accuracy_se or 0.0)


def _evaluated(run: StudyRun, chain: PlannedChain, checkpoint: str, task: str) -> Evaluation | None:
    return run.evaluations.get(run.planned_evaluations(chain, checkpoint).get(task, ""))


def _over_examples(made: Evaluation) -> Number:
    """The accuracy of one checkpoint with its t interval over examples."""
    value, error = made.accuracy or 0.0, made.accuracy_se
    if not error:
        return Number(value=value, low=None, high=None, n=made.documents)
    half = float(special.stdtrit(made.documents - 1, 1 - LEVEL / 2)) * error
    return Number(value=value, low=_share(value - half), high=_share(value + half), n=made.documents)


def _share(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))
