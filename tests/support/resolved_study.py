"""Writes the folder of a real study file as if it were done: its chains, columns and ids are those of the tool."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_files import FakeRun, hashed, write_all, write_evaluations

from indelible.records import Plan, PlannedChain, PlannedRun, RunCost
from indelible.study.graph import Graph, Stores, build_graph
from indelible.study.identity import canonical, given_id
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageInit


def write_resolved_study(root: Path, raw: dict[str, Any], *, is_traced: bool = False) -> Path:
    """Writes the folder of a real study file as if it were done; returns ``root``.

    A stage pulls the loss on its own corpus down and, by its learning rate, the others up.

    Args:
        root: the folder.
        raw: the study file; checkpoints that ``init`` names need not be there.
        is_traced: write metrics.jsonl, with the curves that the study asks for.
    """
    study = resolve_study(raw)
    corpora = sorted({*study.data.corpora, *study.evaluation_corpora})
    inits = {stage.init for arm in study.arms for stage in arm.stages.values() if stage.init is not None}
    given = {init: StageInit(sha256=hashlib.sha256(repr(init).encode()).hexdigest()) for init in inits}
    stores = {corpus: f"{corpus}-000000000000" for corpus in corpora}
    graph = build_graph(study, Stores(stores, "tokenizer-000000000000"), given)
    runs = _resolved_runs(graph, corpora)
    starts = sorted({chain.start for chain in graph.chains if chain.start})
    plan = Plan(
        name=study.name,
        scale=study.scale,
        seeds=study.seeds,
        stores=stores,
        tokenizer="tokenizer-000000000000",
        given={given_id(identity.sha256): init.checkpoint for init, identity in given.items()},
        stage_runs=tuple(
            PlannedRun(id=run.id, stage=run.stage, parent=run.parent, spec=canonical(run.spec), watch=run.watch,
                       cost=RunCost(tokens=1e5, flops=1e11))
            for run in graph.runs.values()
        ),
        heldout=graph.heldout,
        evaluations=graph.evaluations,
        chains=tuple(
            PlannedChain(columns=one.columns, roles=one.roles, stages=one.runs, start=one.start, views=one.views)
            for one in graph.chains
        ),
    )  # fmt: skip
    write_all(root, plan, runs.values(), is_traced=is_traced)
    for start in starts:
        write_evaluations(root, plan, start, _of_the_start(corpora))
    return root


def _of_the_start(corpora: Sequence[str]) -> dict[str, float]:
    return {corpus: 3.0 + 0.1 * len(corpus) for corpus in corpora}


def _resolved_runs(graph: Graph, corpora: Sequence[str]) -> dict[str, FakeRun]:
    runs: dict[str, FakeRun] = {}
    for chain in graph.chains:
        for name in chain.runs.values():
            if name in runs:
                continue
            planned = graph.runs[name]
            spec, parent = planned.spec, planned.parent
            before = runs[parent].losses if parent else _of_the_start(corpora) if chain.start else dict.fromkeys(
                corpora, 8.0)  # fmt: skip
            shown = {use.store.rpartition("-")[0]: use.windows * spec.seq_len for use in spec.data.uses}
            own = spec.data.main.store.rpartition("-")[0]
            erasure = 0.1 * max(0.0, math.log10(spec.training.lr / 1e-6)) * (2 - 0.2 * len(shown))
            after = {}
            for corpus in corpora:
                change = 0.6 * (2.0 - before[corpus]) if corpus == own else 0.2 * (2.0 - before[corpus]) * (
                    corpus in shown) + erasure  # fmt: skip
                noise = np.random.default_rng(int(hashed(name, corpus), 16)).normal(0, 0.01)
                after[corpus] = before[corpus] + change + float(noise)
            runs[name] = FakeRun(name, planned.stage, parent, shown, after, before, {}, planned.watch)
    return runs
