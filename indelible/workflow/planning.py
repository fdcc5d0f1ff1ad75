"""From a study to its plan: stores, given checkpoints, precision, graph, costs. Fetches and tokenises nothing."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from indelible.corpora.sources import default_cache_dir
from indelible.data.fingerprint import study_stores
from indelible.models.given import GivenCheckpoint, find_checkpoint
from indelible.study import cost
from indelible.study.architecture import Architecture, architecture_of
from indelible.study.corpus_spec import BpeTokenizer
from indelible.study.graph import Graph, Stores, build_graph
from indelible.study.identity import given_id
from indelible.study.load import Study
from indelible.study.stage_spec import StageInit
from indelible.study.training import InitSpec
from indelible.workflow.given_checks import check_models
from indelible.workflow.precision import resolved_precision
from indelible.workflow.tasks import NO_TASKS, StudyTasks, study_tasks
from indelible.workflow.tokens import check_tokenizer_folder, check_without_tokens

SMOLLM2_VOCABULARY = 49_152  # assumed for a tokenizer that has not been fetched yet and that no given model has


@dataclass(frozen=True)
class Planned:
    """A study with its graph and what it costs."""

    study: Study
    stores: Stores
    graph: Graph
    shapes: dict[str, Architecture]  # of the model that each run trains, by run id
    costs: dict[str, cost.StageCost]  # by run id
    summary: dict[str, Any]
    given: Mapping[InitSpec, GivenCheckpoint]  # the checkpoints that `init` names
    tasks: StudyTasks = NO_TASKS

    @property
    def given_folders(self) -> dict[str, str]:
        """Folders of the given checkpoints by checkpoint id."""
        return {given_id(found.sha256): str(found.folder) for found in self.given.values()}

    @property
    def given_contexts(self) -> dict[str, int | None]:
        """Tokens that the given checkpoints can read, by checkpoint id; None where its config does not say."""
        return {given_id(found.sha256): found.config.get("max_position_embeddings") for found in self.given.values()}

    @property
    def given_shapes(self) -> dict[str, Architecture]:
        """Models of the given checkpoints by checkpoint id."""
        return {given_id(found.sha256): shape_of(found) for found in self.given.values()}


def plan_study(study: Study) -> Planned:
    """Resolves a study into its graph, without fetching or tokenising any text.

    Raises:
        UserError: a file of a corpus, of a task or a given checkpoint cannot be found, a mix does not fit into its
            stage, a tokenizer that lies here cannot be used, or two chains with equal settings and seeds are other
            runs.
    """
    with _without_collections():
        stores = study_stores(study, default_cache_dir())
        given = given_checkpoints(study)
        planned = planned_with(study, stores, given, resolved_precision(study.execution))
        check_tokenizer_folder(study, given)
        return planned


def planned_with(
    study: Study, stores: Stores, given: Mapping[InitSpec, GivenCheckpoint], precision: Literal["fp32", "bf16"]
) -> Planned:
    """The plan of a study whose stores and given checkpoints are known; see `plan_study`."""
    identities = {init: StageInit(sha256=found.sha256) for init, found in given.items()}
    tasks = study_tasks(study, stores.tokenizer)
    graph = build_graph(study, stores, identities, precision).with_tasks(tasks.specs)
    check_without_tokens(graph)
    check_models(graph, given)
    vocabulary = vocabulary_of(study, given)
    shapes = cost.shapes_by_run(graph, vocabulary, {f.sha256: shape_of(f) for f in given.values()})
    costs = cost.graph_costs(graph, shapes)
    return Planned(study, stores, graph, shapes, costs, cost.summary(graph, costs, vocabulary), given, tasks)


def given_checkpoints(study: Study) -> dict[InitSpec, GivenCheckpoint]:
    """Every checkpoint that some arm starts from, each found once."""
    found: dict[InitSpec, GivenCheckpoint] = {}
    for arm in study.arms:
        init = arm.stages[arm.first].init
        if init is not None and init not in found:
            found[init] = find_checkpoint(init.checkpoint, init.revision)
    return found


def vocabulary_of(study: Study, given: Mapping[InitSpec, GivenCheckpoint]) -> int:
    """Ids of the study's tokenizer, as far as that can be told without fetching it."""
    tokenizer = study.data.tokenizer
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.vocab_size
    return max((found.vocab_size for found in given.values()), default=SMOLLM2_VOCABULARY)


def shape_of(found: GivenCheckpoint) -> Architecture:
    """The size of a given checkpoint, from its config.json."""
    return architecture_of(found.config)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Pauses Python's cyclic garbage collector, which looks at all of a large graph again and again as it grows."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
