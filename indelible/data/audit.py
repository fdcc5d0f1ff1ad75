"""The ledgers of a study, audited: requested against realised tokens, where they lie, nesting and disjointness."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indelible.data.audit_checks import Check, run_checks
from indelible.data.audit_rows import rows_are_counted, rows_hold_whole_documents
from indelible.data.built_ledger import BuiltLedger, requested_tokens
from indelible.data.ledger import Ledger, build_ledger
from indelible.data.row_reader import RowCounts, num_rows, row_counts
from indelible.data.store import TokenStore
from indelible.files import atomic_write
from indelible.study.graph import Graph
from indelible.study.row_rules import RowRules
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
    realised_tokens: int  # predicted tokens of its rows, padding included
    rows: int  # windows, or rows of whole documents
    tokens: int  # of them that are text: all but the padding of rows of whole documents
    trained_tokens: int  # targets that count in the loss
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
    stores = _Stores(tokens_dir)
    built: dict[Any, BuiltLedger] = {}
    of_run: dict[str, BuiltLedger] = {}
    chain_of = {run: chain for chain in chains for run in chain.runs.values()}
    for run, chain in chain_of.items():
        spec = graph.runs[run].spec
        key = (
            spec.stage,
            spec.seed,
            spec.order_seed,
            spec.seq_len,
            spec.data,
            spec.loss_on,
        )  # all that the order depends on
        if key not in built:
            built[key] = BuiltLedger(spec, chain.arm, build_ledger(spec, stores.windows_of(spec)), [])
        built[key].runs.append(run)
        of_run[run] = built[key]
        if parquet is not None:
            _write_parquet(built[key].ledger, parquet / f"{run}.parquet")
    rows = [row for one in built.values() for row in _rows(one, stores)]
    pairs = _pair_checks(list(built.values()), stores)
    return Audit(rows, [*run_checks(chain_of, of_run), *pairs, *stores.checks()])


def _pair_checks(built: list[BuiltLedger], stores: "_Stores") -> list[Check]:
    """Of a study with preference stages: whether every pair is shown with both answers as they lie in the store."""
    found = []
    for one in built:
        if one.spec.objective.needs_pairs and len(one.ledger):
            table, numbers = stores.open(one.spec.data.main.store).pairs("train"), one.ledger.shown(0)
            distinct = np.unique(numbers).astype(np.int64)
            read = table.read(distinct, one.spec.seq_len)
            found.append(bool(np.array_equal(read.answer_tokens, table.answer_tokens(distinct, one.spec.seq_len))))
    return [Check("pairs are shown whole, both answers uncut", all(found), len(found))] if found else []


class _Stores:
    """The token stores of a study, each opened once, with the rows that its stages know them by."""

    def __init__(self, tokens_dir: Path) -> None:
        self._tokens_dir = tokens_dir
        self._opened: dict[str, TokenStore] = {}
        self._counts: dict[tuple[str, int, RowRules], RowCounts] = {}

    def open(self, name: str) -> TokenStore:
        if name not in self._opened:
            self._opened[name] = TokenStore.open(self._tokens_dir / name)
        return self._opened[name]

    def windows_of(self, spec: StageSpec) -> dict[str, int]:
        """Training windows of each store that a stage reads."""
        return {
            name: num_rows(self.open(name), "train", spec.seq_len, rules) for name, rules in spec.store_rules.items()
        }

    def counts(self, name: str, seq_len: int, rules: RowRules) -> RowCounts:
        key = (name, seq_len, rules)
        if key not in self._counts:
            self._counts[key] = row_counts(self.open(name), "train", seq_len, rules)
        return self._counts[key]

    def checks(self) -> list[Check]:
        """What must hold of the rows of whole documents that were counted; nothing if there are none."""
        packed = [key for key in self._counts if key[2].packing != "stream"]
        if not packed:
            return []
        whole = [rows_hold_whole_documents(self.open(name), length, rules) for name, length, rules in packed]
        counted = [rows_are_counted(self.open(name), length, rules) for name, length, rules in packed]
        return [
            Check("every whole document stands in one row, and fits it", all(whole), len(whole)),
            Check("rows of whole documents train on the tokens that are counted", all(counted), len(counted)),
        ]


def _rows(built: BuiltLedger, stores: _Stores) -> list[UseAudit]:
    spec, ledger = built.spec, built.ledger
    realised, tenths, requested = ledger.tokens_by_source(), ledger.tokens_by_bin(PARTS), requested_tokens(built)
    found = []
    for index, use in enumerate(ledger.uses):
        counts, shown = stores.counts(ledger.stores[index], spec.seq_len, ledger.rules_of(index)), ledger.shown(index)
        there = shown[shown < len(counts.tokens)]  # a ledger that is wrong is to be told of, not to end the audit
        found.append(
            UseAudit(
                built.runs,
                spec.stage,
                spec.seed,
                use,
                requested[use],
                realised[use],
                len(shown),
                int(counts.tokens[there].sum()),
                int(counts.trained[there].sum()),
                tenths[use],
            )
        )
    return found


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
