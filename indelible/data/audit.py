"""The ledgers of a study, audited: asked against realised tokens, where they lie, nesting and disjointness."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from indelible.data.audit_checks import Built, Check, asked_tokens, run_checks
from indelible.data.ledger import Ledger, build_ledger, corpus_of
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.files import written_aside
from indelible.study.graph import Chain, Graph
from indelible.study.stages import StageSpec

PARTS = 10  # the stage is shown in tenths


@dataclass(frozen=True)
class StageAudit:
    """One source in one ledger. Stage runs that differ only in how they train share it."""

    runs: list[str]
    stage: str
    seed: int
    source: str
    asked_tokens: int
    realised_tokens: int
    tenths: list[int]  # realised tokens in each tenth of the stage


@dataclass(frozen=True)
class Audit:
    """What `indelible ledger` shows."""

    rows: list[StageAudit]
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """True if every check holds."""
        return all(check.holds for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"rows": [vars(row) for row in self.rows], "checks": [vars(check) for check in self.checks]}

    def print(self, console: Console) -> None:
        """A table of tokens by source and tenth, then the checks."""
        table = Table(title="Tokens by source: asked, realised, and in each tenth of the stage")
        for heading in ("stage", "seed", "runs", "source", "asked", "realised", "by tenth"):
            table.add_column(heading, justify="left" if heading in ("stage", "source", "by tenth") else "right")
        last: list[str] = []
        for row in self.rows:
            table.add_row(
                *(("", "", "") if row.runs == last else (row.stage, str(row.seed), str(len(row.runs)))),
                row.source,
                f"{row.asked_tokens:,}",
                f"{row.realised_tokens:,}",
                " ".join(f"{short_count(tokens):>5}" for tokens in row.tenths),
            )
            last = row.runs
        console.print(table)
        for check in self.checks:
            verdict = "holds" if check.holds else "DOES NOT HOLD"
            outcome = f"{verdict} ({check.compared:,} compared)" if check.compared else "nothing to compare"
            console.print(f"{check.name}: {outcome}", highlight=False, soft_wrap=True)


def short_count(count: int) -> str:
    """A count in at most five characters: 950, 12.3k, 200k, 870M."""
    for unit in ("", "k", "M"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}B"


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
    chains = chosen_chains(graph, arms or [])
    windows: dict[tuple[str, int], int] = {}
    built: dict[Any, Built] = {}
    of_run: dict[str, Built] = {}
    for run, chain in {run: one for one in chains for run in one.runs.values()}.items():
        spec = graph.runs[run].spec
        key = (spec.stage, spec.seed, spec.seq_len, spec.data)  # all that the order depends on
        if key not in built:
            needed = _windows_of(spec, tokens_dir, windows)
            exposed = round(chain.columns["exposure_fraction"] * chain.columns["post_tokens"])
            built[key] = Built(spec, build_ledger(spec, needed), [], exposed)
        built[key].runs.append(run)
        of_run[run] = built[key]
        if parquet is not None:
            _write_parquet(built[key].ledger, parquet / f"{run}.parquet")
    ledgers = list(built.values())
    return Audit([row for one in ledgers for row in _rows(one)], run_checks(chains, ledgers, of_run))


def _windows_of(spec: StageSpec, tokens_dir: Path, known: dict[tuple[str, int], int]) -> dict[str, int]:
    """Training windows of each store that a stage reads; ``known`` is filled on the way."""
    for store in _stores(spec):
        key = (store, spec.seq_len)
        if key not in known:
            known[key] = TokenStore.open(tokens_dir / store).num_windows("train", spec.seq_len)
    return {store: known[store, spec.seq_len] for store in _stores(spec)}


def chosen_chains(graph: Graph, arms: list[str]) -> tuple[Chain, ...]:
    """The chains that fulfil all of ``arms``: a number in the plan, the name of an arm, or ``column=value``.

    Columns are those of the results table, e.g. ``exposure_fraction=0.5`` or ``seed=0``.

    Raises:
        UserError: nothing fulfils them.
    """
    chosen = list(enumerate(graph.chains))
    for arm in arms:
        column, equals, value = arm.partition("=")
        if equals and column not in graph.chains[0].columns:
            known = ", ".join(graph.chains[0].columns)
            raise UserError(f"--arm {arm}: the plan's chains have no column {column!r}; they have {known}.")
        if equals:
            chosen = [(i, chain) for i, chain in chosen if _equals(chain.columns[column], value)]
        else:
            chosen = [(i, chain) for i, chain in chosen if arm in (str(i), chain.columns["arm"])]
        if not chosen:
            number = len(graph.chains)
            raise UserError(
                f"--arm {arm}: none of the plan's {number} chains; give a number below {number}, the name of an arm, "
                "or column=value as in the results table, e.g. exposure_fraction=0.5 or seed=0."
            )
    return tuple(chain for _, chain in chosen)


def _equals(found: Any, asked: str) -> bool:
    try:
        return float(found) == float(asked)
    except (TypeError, ValueError):
        return str(found) == asked


def _stores(spec: StageSpec) -> list[str]:
    parts = (spec.data.exposure, spec.data.replay)
    return [spec.data.store, *(part.store for part in parts if part is not None)]


def _rows(built: Built) -> list[StageAudit]:
    spec, ledger = built.spec, built.ledger
    realised, tenths, asked = ledger.tokens_by_source(), ledger.tokens_by_bin(PARTS), asked_tokens(built)
    return [
        StageAudit(built.runs, spec.stage, spec.seed, source, asked[source], realised[source], tenths[source])
        for source in realised
    ]


def _write_parquet(ledger: Ledger, path: Path) -> None:
    names = pa.array([corpus_of(store) for store in ledger.sources])
    columns = {
        "row": np.arange(len(ledger), dtype=np.uint32),
        "source": pa.DictionaryArray.from_arrays(pa.array(ledger.source), names),
        "window": ledger.window,
    }
    with written_aside(path) as temporary:
        pq.write_table(
            pa.table(columns),
            temporary,
            compression="zstd",
            use_dictionary=["source"],  # windows are all different
            column_encoding={"row": "DELTA_BINARY_PACKED", "window": "PLAIN"},
        )
