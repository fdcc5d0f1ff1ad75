"""Stage runs by what people know of them: `--arm column=value` in place of a hash."""

from collections.abc import Sequence
from pathlib import Path

from indelible.errors import UserError
from indelible.records import PlannedChain
from indelible.scheduling.folder import StudyFolder
from indelible.study.selection import chosen_chains

_SHOWN = 5  # values in a message

_Runs = dict[str, list[PlannedChain]]  # run ids, and the chains that share each


def chosen_run(out: Path, arms: Sequence[str], stage: str | None = None) -> Path:
    """The folder of the one stage run that a selection leaves.

    Args:
        out: study folder.
        arms: of chains: a number in the plan, the name of an arm, or ``column=value``; all must hold.
        stage: of these chains; None = the last one.

    Raises:
        UserError: no chain, no such stage, or more than one run; the message says in what those differ.
    """
    folder = StudyFolder.open(out)
    return folder.run_dir(_only(_runs_of(folder, arms, stage), arms, stage))


def chosen_pair(out: Path, arms: Sequence[str], stage: str | None = None) -> tuple[Path, Path]:
    """The folders of the two stage runs that a selection leaves; twice the same where both sides share one run.

    Args:
        out: study folder.
        arms: as for `chosen_run`. A column may be given twice, ``--arm lambda=0 --arm lambda=1``: one value a side.
        stage: as for `chosen_run`.

    Raises:
        UserError: no chain, no such stage, one chain only, or more than two runs.
    """
    folder = StudyFolder.open(out)
    columns = [arm.partition("=")[0] if "=" in arm else "" for arm in arms]
    twice = next((column for column in columns if columns.count(column) == 2), None)
    if twice is not None:
        values = [arm for arm, column in zip(arms, columns, strict=True) if column == twice]
        sides = [[arm for arm in arms if arm != value] for value in reversed(values)]
        first, second = (_only(_runs_of(folder, side, stage), side, stage) for side in sides)
        return folder.run_dir(first), folder.run_dir(second)
    runs = _runs_of(folder, arms, stage)
    if len(runs) > 2:
        raise UserError(f"{_option(arms, stage)}: {len(runs)} stage runs, and two can be compared; {_fix(runs)}.")
    names = list(runs)
    if len(names) == 1 and len(runs[names[0]]) == 1:
        raise UserError(f"{_option(arms, stage)}: one chain; give a column twice, e.g. --arm seed=0 --arm seed=1.")
    return folder.run_dir(names[0]), folder.run_dir(names[-1])


def _only(runs: _Runs, arms: Sequence[str], stage: str | None) -> str:
    if len(runs) > 1:
        raise UserError(f"{_option(arms, stage)}: {len(runs)} stage runs; {_fix(runs)}.")
    return next(iter(runs))


def _runs_of(folder: StudyFolder, arms: Sequence[str], stage: str | None) -> _Runs:
    runs: _Runs = {}
    chains = chosen_chains(folder.plan.chains, arms)
    for chain in chains:
        name = stage or list(chain.stages)[-1]
        if name in chain.stages:
            runs.setdefault(chain.stages[name], []).append(chain)
    if not runs:
        known = ", ".join(dict.fromkeys(name for chain in chains for name in chain.stages)) or "none"
        raise UserError(f"--stage {stage}: the chosen chains have no such stage; they have {known}.")
    return runs


def _option(arms: Sequence[str], stage: str | None) -> str:
    return " ".join([*(f"--arm {arm}" for arm in arms), *([f"--stage {stage}"] if stage else [])]) or "the whole study"


def _fix(runs: _Runs) -> str:
    """What to say more: the columns in which the runs differ from each other, with their values."""
    differing = []
    for column in dict.fromkeys(column for chains in runs.values() for chain in chains for column in chain.columns):
        by_run = [{str(chain.columns.get(column)) for chain in chains} for chains in runs.values()]
        values = list(dict.fromkeys(value for one in by_run for value in sorted(one)))
        if any(one != by_run[0] for one in by_run):
            more = ", ..." if len(values) > _SHOWN else ""
            differing.append(f"{column} ({', '.join(values[:_SHOWN])}{more})")
    if not differing:
        return "give an id"
    return f"say one of {'; '.join(differing)}, e.g. --arm {differing[0].partition(' ')[0]}=..."
