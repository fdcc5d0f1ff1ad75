"""The graph of a study: its stage runs and evaluations, each once however many chains share it, and its chains.

Sharing falls out of identity: two chains whose first stage has the same canonical spec have the same run id.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from indelible.errors import UserError
from indelible.study.arm import ArmSpec
from indelible.study.corpus_spec import has_pairs
from indelible.study.identity import (
    CODE_VERSION,
    canonical,
    digest_of,
    evaluation_id,
    flat_form,
    given_id,
    run_id,
    task_evaluation_id,
)
from indelible.study.labels import stage_labels
from indelible.study.load import Study
from indelible.study.row_rules import own_rules, rules_of
from indelible.study.seeds import seed_columns, stage_seeds
from indelible.study.settings_table import chain_columns
from indelible.study.stage_data import Stores, stage_data
from indelible.study.stage_spec import EvaluationSpec, StageInit, StageSpec, StopWindows, TaskEvaluation
from indelible.study.training import InitSpec, WatchSpec
from indelible.study.views import chain_views

__all__ = ["Chain", "Graph", "StageRun", "Stores", "build_graph", "stage_sequences", "stage_windows", "total_steps"]


@dataclass(frozen=True)
class StageRun:
    """One stage run of the graph."""

    id: str
    spec: StageSpec
    watch: WatchSpec | None = None  # curves that are asked of it

    @property
    def stage(self) -> str:
        return self.spec.stage

    @property
    def parent(self) -> str | None:
        return self.spec.parent


@dataclass(frozen=True)
class Chain:
    """The stage runs of one arm with one seed a stage."""

    columns: dict[str, Any]  # the settings of the arm, named as in the results table
    roles: dict[str, str]  # pre, post, ft to corpus names, as far as the chain has such stages
    runs: dict[str, str]  # stage to run id, in order
    start: str | None  # checkpoint id of the given checkpoint that it starts from
    views: dict[str, tuple[str, str]]  # name of a loss to (checkpoint id, corpus)
    arm: ArmSpec


@dataclass(frozen=True)
class Graph:
    """A study as stage runs (parents before children), evaluations and chains."""

    runs: dict[str, StageRun]
    chains: tuple[Chain, ...]
    heldout: tuple[EvaluationSpec, ...] = ()  # the kinds of evaluation; `checkpoint` is empty in them
    evaluations: dict[str, dict[str, int]] = field(default_factory=dict)  # checkpoint id: evaluation id: kind
    tasks: tuple[TaskEvaluation, ...] = ()  # `checkpoint` is empty in them
    task_evaluations: dict[str, dict[str, int]] = field(default_factory=dict)  # checkpoint id: evaluation id: task

    def with_tasks(self, tasks: Sequence[TaskEvaluation]) -> "Graph":
        """The same with every checkpoint evaluated on every one of some tasks. No stage run changes."""
        wanted = {name: {task_evaluation_id(task, name): number for number, task in enumerate(tasks)}
                  for name in self.evaluations if tasks}  # fmt: skip
        return replace(self, tasks=tuple(tasks), task_evaluations=wanted)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, each once, in the order of the chains."""
        return tuple(dict.fromkeys(run.stage for run in self.runs.values()))


def build_graph(
    study: Study,
    stores: Stores,
    given: Mapping[InitSpec, StageInit] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Graph:
    """Resolves every chain of a study into stage runs and evaluations.

    Args:
        study: the validated study.
        stores: token stores by corpus, as fingerprinted, those of corpora that are only evaluated on included.
        given: identities of the checkpoints that `init` names.
        precision: what `precision: auto` comes to on the machines that will run it.

    Raises:
        UserError: two chains have equal settings and seeds and are other runs.
    """
    builder = _Builder(study, stores, given or {}, precision)
    for arm, columns in zip(study.arms, chain_columns(study.name, study.arms), strict=True):
        builder.add_arm(arm, columns)
    return builder.graph()


@dataclass(frozen=True)
class _Template:
    """A stage of one setting: its spec with seed 0 and without a parent, and what of it is hashed."""

    spec: StageSpec
    form: dict[str, Any]  # canonical
    number: int  # of the distinct setting


class _Builder:
    """Collects runs, evaluations and chains.

    A stage's spec is made once for each arm, as that of seed 0 without a parent, and once for each distinct setting it
    is looked up among the others: the seeds then only take a copy. A study of 10,000 runs is planned in a second so.
    """

    def __init__(
        self,
        study: Study,
        stores: Stores,
        given: Mapping[InitSpec, StageInit],
        precision: Literal["fp32", "bf16"],
    ) -> None:
        self._study, self._stores, self._given, self._precision = study, stores, given, precision
        self._corpora = {name: corpus for arm in study.arms for name, corpus in arm.corpora.items()}
        self._pairs = [name for name, spec in self._corpora.items() if name in stores.corpora and has_pairs(spec)]
        self._runs: dict[str, StageRun] = {}
        self._chains: dict[tuple[Any, ...], Chain] = {}  # by their settings and seeds
        self._templates: dict[StageSpec, _Template] = {}
        self._ids: dict[tuple[Any, ...], str] = {}  # of template, seed and parent
        self._evaluations: dict[str, dict[str, int]] = {}
        self._kinds: dict[EvaluationSpec, int] = {}  # numbers of the kinds of evaluation
        self._evaluated: set[tuple[str, tuple[int, ...]]] = set()  # checkpoints with the kinds that they have

    def graph(self) -> Graph:
        """What was collected."""
        return Graph(self._runs, tuple(self._chains.values()), tuple(self._kinds), self._evaluations)

    def add_arm(self, arm: ArmSpec, columns: Mapping[str, Any]) -> None:
        """The chains of one arm, one for each combination of seeds."""
        first, chain, labels = arm.first, arm.chain, stage_labels(arm)
        init = arm.stages[first].init
        start = given_id(self._given[init].sha256) if init is not None else None
        templates = {name: self._template(name, arm, is_first=name == first) for name in chain}
        kinds = self._kinds_of(arm)
        for seeds in stage_seeds(self._study.seeds, chain):
            ids: dict[str, str] = {}
            parent: str | None = None
            for name, template in templates.items():
                own: dict[str, Any] = {"seed": seeds[name], "parent": parent}
                if seeds[name] != seeds[first]:  # what one stage showed is another one's prefix of one permutation
                    own["permutation_seed"] = seeds[first]
                ids[name] = parent = self._add(template, own, labels[name], chain[name].watch)
            for checkpoint in (*((start,) if start else ()), *ids.values()):
                self._evaluate(checkpoint, kinds)
            chosen = {**columns, **seed_columns(self._study.seeds, seeds)}
            self._add_chain(Chain(chosen, arm.roles, ids, start, chain_views(arm, ids, start, self._pairs), arm))

    def _add_chain(self, chain: Chain) -> None:
        """Keeps a chain; one that is there already is kept once.

        Raises:
            UserError: another chain has the same settings and seeds, and other runs.
        """
        other = self._chains.setdefault(tuple(chain.columns.items()), chain)
        if (other.runs, other.start) != (chain.runs, chain.start):
            fields = "\n".join(f"  {line}" for line in self._differences(other, chain))
            raise UserError(
                "two chains have the same settings and seeds in the results table and are other runs, so that they "
                f"would be taken for one; they differ in\n{fields}\nGive them names under arms:, or say the difference "
                "in settings that the table shows (docs/run-folder.md)."
            )

    def _differences(self, one: Chain, other: Chain) -> list[str]:
        """The fields in which the stage runs of two chains differ, with both values; their parents apart."""
        found = []
        for stage in dict.fromkeys([*one.runs, *other.runs]):
            forms = [
                flat_form(canonical(self._runs[c.runs[stage]].spec)) if stage in c.runs else {} for c in (one, other)
            ]
            names = [name for name in dict.fromkeys([*forms[0], *forms[1]]) if name != "parent"]
            for name in names:
                first, second = (form.get(name) for form in forms)
                if first != second:
                    found.append(f"{stage}: {name} = {first!r} and {second!r}")
        return found

    def _add(self, template: _Template, own: Mapping[str, Any], label: str, watch: WatchSpec | None) -> str:
        """The run of a stage with its own seed and parent."""
        key = template.number, *own.values()
        name = self._ids.get(key)
        if name is None:
            spec = template.spec.model_copy(update=own)
            name = self._ids[key] = run_id(spec, label, digest_of({**template.form, **own}))
            self._runs[name] = StageRun(name, spec, watch)
        elif watch is not None and self._runs[name].watch != watch:
            run = self._runs[name]
            if run.watch is not None:
                raise UserError(
                    f"stages.{run.stage}.watch: two arms share {name} and ask it for other curves ({run.watch} and "
                    f"{watch}); ask for one watch in all arms."
                )
            self._runs[name] = StageRun(name, run.spec, watch)
        return name

    def _template(self, name: str, arm: ArmSpec, *, is_first: bool) -> _Template:
        stage = arm.stages[name]
        training = stage.optimization()
        init = self._given[stage.init] if is_first and stage.init is not None else None
        stop = None
        if training.eval_interval is not None:
            stop = StopWindows(
                store=self._stores.corpora[stage.corpus],
                windows=arm.evaluation.stop_windows,
                rows=own_rules(stage.corpus, arm),
            )
        spec = StageSpec(
            stage=name,
            code_version=CODE_VERSION,
            seed=0,
            seq_len=arm.seq_len,
            precision=self._precision if arm.precision == "auto" else arm.precision,
            tokenizer=self._stores.tokenizer,
            model=arm.model if is_first and init is None else None,
            init=init,
            parent=None,
            loss_on=arm.data.loss_on,
            data=stage_data(name, arm, self._stores.corpora),
            training=training,
            objective=stage.objective,
            guard=stage.guard,
            adapt=stage.adapt,
            stop=stop,
        )
        if spec not in self._templates:
            self._templates[spec] = _Template(spec, canonical(spec), len(self._templates))
        return self._templates[spec]

    def _evaluate(self, checkpoint: str, kinds: Mapping[int, EvaluationSpec]) -> None:
        """Adds the evaluations of a checkpoint on every corpus of the study."""
        key = checkpoint, tuple(kinds)
        if key not in self._evaluated:  # by another chain that shares the run
            self._evaluated.add(key)
            wanted = self._evaluations.setdefault(checkpoint, {})
            wanted |= {evaluation_id(kind, checkpoint): number for number, kind in kinds.items()}

    def _kinds_of(self, arm: ArmSpec) -> dict[int, EvaluationSpec]:
        """The kinds of evaluation that an arm's checkpoints get, by number."""
        kinds = (
            EvaluationSpec(
                checkpoint="",
                store=store,
                stop_windows=arm.evaluation.stop_windows,
                windows=arm.evaluation.windows,
                seq_len=arm.seq_len,
                **self._heldout_rules(corpus, arm),
            )
            for corpus, store in self._stores.corpora.items()
        )
        return {self._kinds.setdefault(kind, len(self._kinds)): kind for kind in kinds}

    def _heldout_rules(self, corpus: str, arm: ArmSpec) -> dict[str, Any]:
        """How held-out documents become windows; of a pair only the answers count."""
        rules = rules_of(corpus, arm, self._corpora.get(corpus)).model_dump()
        return rules | {"loss_on": "completion", "pairs": True} if corpus in self._pairs else rules


def total_steps(spec: StageSpec) -> int:
    """Optimizer steps of the whole schedule; early stopping may end the stage before."""
    return math.ceil(stage_windows(spec) / spec.training.global_batch_size)


def stage_sequences(spec: StageSpec) -> int:
    """Sequences of seq_len tokens that the whole schedule computes: `stage_windows`, of which pairs are two each."""
    data, rows = spec.data, stage_windows(spec)
    if data.main.sequences == 1 or not rows:
        return rows
    passes = (data.total_windows - data.replaced_windows) / data.pass_windows
    return rows + round(passes * data.main.windows) * (data.main.sequences - 1)


def stage_windows(spec: StageSpec) -> int:
    """Windows of the whole schedule, with what is added to it; none where the stage's own corpus has nothing left."""
    return spec.data.total_windows + spec.data.added_windows if spec.data.main.windows else 0
