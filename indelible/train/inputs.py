"""What a stage reads besides its starting checkpoint: token stores, its ledger, and held-out windows.

All of it is read and checked before the first step.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from indelible.data.ledger import Ledger, build_ledger, corpus_of
from indelible.data.row_reader import num_rows
from indelible.data.store import TokenStore
from indelible.study.stage_spec import EvaluationSpec, StageSpec
from indelible.train.context import StopRule
from indelible.train.evaluation import open_stores
from indelible.train.heldout import ReportedPairs, ReportedWindows, heldout_split, read_counting, read_pairs, windows_of
from indelible.train.job import StageJob


@dataclass(frozen=True)
class Inputs:
    """Everything that a stage reads besides its starting checkpoint."""

    spec: StageSpec
    stores: dict[str, TokenStore]  # by folder name
    ledger: Ledger
    tokenizer_dir: Path
    stop_rule: StopRule | None
    reported: dict[str, ReportedWindows | ReportedPairs]  # by evaluation id
    watched: dict[str, ReportedWindows | ReportedPairs]  # windows of the curves, by corpus; empty without

    @property
    def total_steps(self) -> int:
        """Updates until the ledger ends."""
        return math.ceil(len(self.ledger) / self.spec.training.global_batch_size)


def open_inputs(spec: StageSpec, job: StageJob) -> Inputs:
    """Opens the token stores that a stage trains and is evaluated on, builds its ledger, reads its held-out windows.

    Raises:
        UserError: a store is missing or damaged, or a corpus is smaller than requested.
    """
    trained = {use.store for use in spec.data.uses}
    curves = _kinds_of_curves(job)
    evaluated = {one.store for one in (*job.evaluations.values(), *curves.values())}
    stores = open_stores(trained | evaluated | ({spec.stop.store} if spec.stop else set()), job.tokens_dir)
    windows = {name: num_rows(stores[name], "train", spec.seq_len, rules) for name, rules in spec.store_rules.items()}
    return Inputs(
        spec=spec,
        stores=stores,
        ledger=build_ledger(spec, windows),
        tokenizer_dir=job.tokens_dir / spec.tokenizer,
        stop_rule=_stop_rule(spec, stores),
        reported={name: windows_of(one, stores) for name, one in job.evaluations.items()},
        watched={
            corpus: windows_of(one, stores, job.watch.windows if job.watch else None) for corpus, one in curves.items()
        },
    )


def _stop_rule(spec: StageSpec, stores: dict[str, TokenStore]) -> StopRule | None:
    if spec.training.eval_interval is None or spec.stop is None:
        return None
    store = stores[spec.stop.store]
    rules = spec.rules(spec.stop)
    split = heldout_split(store, spec.stop.windows, 1, spec.seq_len, rules)
    if store.has_pairs:
        return StopRule(read_pairs(store, 0, split.stop_windows, spec.seq_len), corpus_of(spec.stop.store))
    return StopRule(read_counting(store, 0, split.stop_windows, spec.seq_len, rules), corpus_of(spec.stop.store))


def _kinds_of_curves(job: StageJob) -> dict[str, EvaluationSpec]:
    """The kind of evaluation whose windows each curve is taken on, by corpus."""
    if job.watch is None:
        return {}
    kinds = {one.store: one for one in (*job.heldout, *job.evaluations.values())}
    corpora = tuple(job.watch_stores) if job.watch.corpora is None else job.watch.corpora
    for corpus in corpora:
        assert job.watch_stores[corpus] in kinds, f"the job of {job.run_id} does not say how {corpus} is evaluated"
    return {corpus: kinds[job.watch_stores[corpus]] for corpus in corpora}
