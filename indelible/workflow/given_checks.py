"""What the models of a study cannot do, found before anything is tokenised or trained."""

from collections.abc import Mapping

from indelible.models.given import GivenCheckpoint
from indelible.models.plan_checks import check_context, check_methods, check_packing
from indelible.study.graph import Graph
from indelible.study.stage_spec import StageSpec
from indelible.study.training import InitSpec


def check_models(graph: Graph, given: Mapping[InitSpec, GivenCheckpoint]) -> None:
    """Checks every chain against the model that it trains: adapters have a place, windows fit, the checkpoint loads.

    Of a catalogue model that has not been fetched only the pinned config is known; its adapters are checked when it is.

    Raises:
        UserError: a checkpoint would be loaded as another model, is too short for the windows, or adapters do not fit.
    """
    found = {one.sha256: one for one in given.values()}
    for sha256, specs in _by_start(graph).items():
        if sha256 is None:
            check_methods(specs)
        elif found[sha256].folder.is_dir():
            from indelible.models.load_given import given_shape  # torch, which other plans do not wait for

            shape = given_shape(found[sha256].folder)
            check_methods(specs, shape.linear_layers)
            check_context(specs, shape.context, str(found[sha256].folder))
            check_packing(specs, shape.takes_positions, str(found[sha256].folder))
        else:
            context = found[sha256].config.get("max_position_embeddings")
            check_context(specs, context, found[sha256].folder.name)


def _by_start(graph: Graph) -> dict[str | None, dict[str, StageSpec]]:
    """Stage runs by the given checkpoint that their chain starts from; None for models of the study's own."""
    starts: dict[str, str | None] = {}
    groups: dict[str | None, dict[str, StageSpec]] = {}
    for run in graph.runs.values():  # parents come first
        init = run.spec.init
        starts[run.id] = init.sha256 if init is not None else starts.get(run.parent or "")
        groups.setdefault(starts[run.id], {})[run.id] = run.spec
    return groups
