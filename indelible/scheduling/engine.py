"""The functions that do the work of a unit, named by module, so that tests and other engines can be put in."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from indelible.errors import UserError
from indelible.train.job import EvaluationJob, Progress, StageJob

ENGINE = "indelible.train.stage:run_stage"
_EVALUATIONS = "indelible.train.evaluation:run_evaluations"

Report = Callable[[Progress], None]  # may raise StopRequested
Guard = Callable[[], None]  # raises LeaseLost when this process may not write any more


class RunStage(Protocol):
    """Runs a stage to its result.json."""

    def __call__(self, job: StageJob, *, progress: Report, guard: Guard) -> None: ...


class RunEvaluations(Protocol):
    """Makes the evaluations of a checkpoint."""

    def __call__(self, job: EvaluationJob, *, progress: Report, guard: Guard) -> None: ...


@dataclass(frozen=True)
class Engine:
    """What runs stages and evaluations."""

    run_stage: RunStage
    run_evaluations: RunEvaluations


def load_engine(reference: str) -> Engine:
    """The engine of ``module:function``: the function runs stages, the module's ``run_evaluations`` evaluations.

    Where the module has none, indelible's own makes the evaluations. Seconds of imports, torch among them.

    Raises:
        UserError: there is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
        run_stage = getattr(module, name)
        run_evaluations = getattr(module, "run_evaluations", None)
        if run_evaluations is None:
            own, _, own_name = _EVALUATIONS.partition(":")
            run_evaluations = getattr(importlib.import_module(own), own_name)
        return Engine(run_stage, run_evaluations)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--engine {reference}: {error}; expected an importable module:function.") from error
