"""Everything before the first step: tokens, checks that need them, and plan.json with study.yaml beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indelible.corpora.sources import default_cache_dir
from indelible.data.prepare import prepare_study, silent
from indelible.data.store_job import Progress as Report
from indelible.errors import UserError
from indelible.files import write_text
from indelible.models.given import fetch_given
from indelible.records import NOTES, PackedRows, Plan, PlannedChain, PlannedRun, RunCost
from indelible.scheduling.failures import is_disk_error
from indelible.scheduling.folder import check_same_study
from indelible.study.execution import ExecutionSpec
from indelible.study.identity import canonical
from indelible.study.yaml_reader import write_yaml
from indelible.workflow.given_checks import check_models
from indelible.workflow.planning import Planned
from indelible.workflow.proportions import heldout_notes, proportions
from indelible.workflow.tasks import write_tasks
from indelible.workflow.tokens import check_given, check_tokens


def write_plan(
    planned: Planned,
    out: Path,
    execution: ExecutionSpec | None = None,
    *,
    force: bool = False,
    report: Report = silent,
) -> Plan:
    """Prepares the tokens of a planned study, checks them and writes plan.json and study.yaml.

    Args:
        planned: the study.
        out: folder of the study run; made if missing.
        execution: how to run it; None = as the study says.
        force: take a folder that holds another study; its runs and its plan are kept.
        report: called with what is being prepared and which share of it is done.

    Returns:
        The plan as it stands in plan.json.

    Raises:
        UserError: the folder holds another study, text cannot be had, a corpus is smaller than asked, or the folder
            cannot be written.
    """
    with _disk_errors_named(out):
        plan = plan_record(planned, execution)
        check_same_study(out, plan, force=force)
        make_tokens(planned, out, report)
        noted = [*proportions(planned.study), *heldout_notes(planned.graph, out / "tokens")]
        plan = plan.model_copy(update={"summary": {**plan.summary, NOTES: noted}})
        path = out / "plan.json"
        if Plan.read(path) != plan:
            write_text(out / "study.yaml", write_yaml(planned.study.raw))
            plan.write(path)
        return plan


def make_tokens(planned: Planned, out: Path, report: Report = silent) -> None:
    """Prepares the token stores and the tasks of a study under ``out`` and checks that they hold what it asks for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: the folder cannot be made ({error.strerror}); choose another place.") from None
    for found in planned.given.values():
        report(f"model {found.folder.name}", 0.0)
        fetch_given(found)
    check_models(planned.graph, planned.given)  # once more for those that were only known by their pins
    prepare_study(planned.study, out / "tokens", default_cache_dir(), report)
    packed = check_tokens(planned.graph, out / "tokens")
    if packed:
        PackedRows(sides=packed).write(out / "packing.json")
    else:
        (out / "packing.json").unlink(missing_ok=True)
    check_given(planned.given, out / "tokens" / planned.stores.tokenizer)
    write_tasks(planned.tasks, planned.graph, planned.given_contexts, out)


def plan_record(planned: Planned, execution: ExecutionSpec | None = None) -> Plan:
    """The plan as it is written to plan.json."""
    study, graph, costs = planned.study, planned.graph, planned.costs
    return Plan(
        format=Plan.FORMAT,
        name=study.name,
        description=study.description,
        scale=study.scale,
        seeds=study.seeds,
        stores=dict(planned.stores.corpora),
        tokenizer=planned.stores.tokenizer,
        execution=execution or study.execution,
        inference=study.inference,
        given=planned.given_folders,
        summary=planned.summary,
        stage_runs=tuple(
            PlannedRun(
                id=run.id,
                stage=run.stage,
                parent=run.parent,
                spec=canonical(run.spec),
                cost=RunCost(tokens=costs[run.id].tokens, flops=costs[run.id].flops),
                watch=run.watch,
            )
            for run in graph.runs.values()
        ),
        heldout=graph.heldout,
        evaluations=graph.evaluations,
        tasks=graph.tasks,
        task_evaluations=graph.task_evaluations,
        chains=tuple(
            PlannedChain(
                columns=chain.columns, roles=chain.roles, stages=chain.runs, start=chain.start, views=chain.views
            )
            for chain in graph.chains
        ),
    )


@contextmanager
def _disk_errors_named(out: Path) -> Iterator[None]:
    """Lets what is inside end in one message, with the folder in it, where nothing can be written."""
    try:
        yield
    except Exception as error:
        if not is_disk_error(error) and not isinstance(error, PermissionError):
            raise
        raise UserError(
            f"--out {out}: cannot be written ({error}); free some space or make it writable, and give the same "
            "command again: it continues."
        ) from error
