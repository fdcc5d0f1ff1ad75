"""The ledgers of a study, audited: requested against realised tokens, where they lie, nesting and disjointness."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indelible.data.audit_checks import Check, run_checks
from indelible.data.built_ledger import BuiltLedger, requested_tokens
from indelible.data.ledger import Ledger, build_ledger
from indelible.data.store import TokenStore
from indelible.files import atomic_write
from indelible.study.graph import Graph
from indelible.study.selection import chosen_chains
from indelible.study.stage_spec import StageSpec

PARTS = 10  # the stage is shown in tenths


@dataclass(frozen=True)
class UseAudit:
    """One use of a corpus in one ledger. Stage runs that differ only in how they train share it."""

    runs: list[str]
    stage: str
    seed: int
    use: str  # corpus, or corpus:purpose where the stage uses a corpus twice
    requested_tokens: int
    realised_tokens: int
    tenths: list[int]  # realised tokens in each tenth of the stage


@dataclass(frozen=True)
class Audit:
    """What `indelible ledger` shows."""

    rows: list[UseAudit]
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """True if every check holds."""
        return all(check.holds for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"rows": [asdict(row) for row in self.rows], "checks": [asdict(check) for check in self.checks]}


def audit_study(graph: Graph, tokens_dir: Path, arms: list[str] | None = None, parquet: Path | None = None) -> Audit:
    """Builds and audits the ledgers of a study.

    Args:
        graph: the study.
        tokens_dir: folder of its token stores.
        arms: which chains of the plan: see `chosen_chains`; None for all.
        parquet: folder for the raw ledgers, one file a stage run; None for none.

    Raises:
        UserError: there is no such chain, or a store is missing.
    """
    chains = chosen_chains(graph.chains, arms or [])
    windows: dict[tuple[str, int], int] = {}
    built: dict[Any, BuiltLedger] = {}
    of_run: dict[str, BuiltLedger] = {}
    chain_of = {run: chain for chain in chains for run in chain.runs.values()}
    for run, chain in chain_of.items():
        spec = graph.runs[run].spec
        key = (spec.stage, spec.seed, spec.order_seed, spec.seq_len, spec.data)  # all that the order depends on
        if key not in built:
            needed = _windows_of(spec, tokens_dir, windows)
            built[key] = BuiltLedger(spec, chain.arm, build_ledger(spec, needed), [])
        built[key].runs.append(run)
        of_run[run] = built[key]
        if parquet is not None:
            _write_parquet(built[key].ledger, parquet / f"{run}.parquet")
    return Audit([row for one in built.values() for row in _rows(one)], run_checks(chain_of, of_run))


def _windows_of(spec: StageSpec, tokens_dir: Path, known: dict[tuple[str, int], int]) -> dict[str, int]:
    """Training windows of each store that a stage reads; ``known`` is filled on the way."""
    stores = {use.store for use in spec.data.uses}
    for store in stores:
        key = (store, spec.seq_len)
        if key not in known:
            known[key] = TokenStore.open(tokens_dir / store).num_windows("train", spec.seq_len)
    return {store: known[store, spec.seq_len] for store in stores}


def _rows(built: BuiltLedger) -> list[UseAudit]:
    spec, ledger = built.spec, built.ledger
    realised, tenths, requested = ledger.tokens_by_source(), ledger.tokens_by_bin(PARTS), requested_tokens(built)
    return [
        UseAudit(built.runs, spec.stage, spec.seed, use, requested[use], realised[use], tenths[use])
        for use in ledger.uses
    ]


def _write_parquet(ledger: Ledger, path: Path) -> None:
    columns = {
        "row": np.arange(len(ledger), dtype=np.uint32),
        "source": pa.DictionaryArray.from_arrays(pa.array(ledger.source), pa.array(ledger.uses)),
        "window": ledger.window,
    }
    with atomic_write(path) as temporary:
        pq.write_table(
            pa.table(columns),
            temporary,
            compression="zstd",
            use_dictionary=["source"],  # windows are all different
            column_encoding={"row": "DELTA_BINARY_PACKED", "window": "PLAIN"},
        )
