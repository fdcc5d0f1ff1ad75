"""The ledgers of a study, audited: asked against realised tokens, where they lie, nesting and disjointness."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from indelible.data.ledger import Ledger, build_ledger, corpus_of
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.files import written_aside
from indelible.study.graph import Chain, Graph
from indelible.study.stages import StageSpec

PARTS = 10  # the stage is shown in tenths


@dataclass(frozen=True)
class Check:
    """One property of the ledgers, with what was compared."""

    name: str
    holds: bool
    compared: int  # pairs or runs that were looked at


@dataclass(frozen=True)
class StageAudit:
    """One source in one stage run."""

    run: str
    source: str
    asked_tokens: int
    realised_tokens: int
    tenths: list[int]  # realised tokens in each tenth of the stage


@dataclass(frozen=True)
class Audit:
    """What `indelible ledger` shows."""

    rows: list[StageAudit]
    checks: list[Check]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"rows": [vars(row) for row in self.rows], "checks": [vars(check) for check in self.checks]}

    def print(self, console: Console) -> None:
        """Two tables: tokens by source and tenth, then the checks."""
        table = Table(title="tokens, asked and realised, and by tenth of the stage")
        for heading in ("run", "source", "asked", "realised", "by tenth"):
            table.add_column(heading, justify="left" if heading in ("run", "source") else "right", overflow="fold")
        for row in self.rows:
            tenths = " ".join(f"{tokens:,}" for tokens in row.tenths)
            table.add_row(row.run, row.source, f"{row.asked_tokens:,}", f"{row.realised_tokens:,}", tenths)
        console.print(table)
        for check in self.checks:
            verdict = "holds" if check.holds else "DOES NOT HOLD"
            console.print(f"{check.name}: {verdict} ({check.compared:,} compared)", highlight=False)


def audit_study(graph: Graph, tokens_dir: Path, chain: int | None = None, parquet: Path | None = None) -> Audit:
    """Builds and audits the ledgers of a study.

    Args:
        graph: the study.
        tokens_dir: folder of its token stores.
        chain: number of one chain of the plan; None for all.
        parquet: folder for the raw ledgers, one file a stage run; None for none.

    Raises:
        UserError: there is no such chain, or a store is missing.
    """
    chains = _chosen(graph, chain)
    specs = {run: graph.runs[run].spec for picked in chains for run in picked.runs.values()}
    windows: dict[tuple[str, int], int] = {}
    ledgers: dict[str, Ledger] = {}
    for run, spec in specs.items():
        needed = {}
        for store in _stores(spec):
            key = (store, spec.seq_len)
            if key not in windows:
                windows[key] = TokenStore.open(tokens_dir / store).num_windows("train", spec.seq_len)
            needed[store] = windows[key]
        ledgers[run] = build_ledger(spec, needed)
        if parquet is not None:
            _write_parquet(ledgers[run], parquet / f"{run}.parquet")
    rows = [row for run, ledger in ledgers.items() for row in _rows(run, specs[run], ledger)]
    return Audit(rows, _checks(chains, specs, ledgers, rows))


def _chosen(graph: Graph, chain: int | None) -> tuple[Chain, ...]:
    if chain is None:
        return graph.chains
    if not 0 <= chain < len(graph.chains):
        raise UserError(f"--arm {chain}: the plan has {len(graph.chains)} chains, numbered from 0.")
    return (graph.chains[chain],)


def _stores(spec: StageSpec) -> list[str]:
    parts = (spec.data.exposure, spec.data.replay)
    return [spec.data.store, *(part.store for part in parts if part is not None)]


def _asked(spec: StageSpec, ledger: Ledger) -> dict[str, int]:
    """Tokens that the spec asks of each corpus, from its own numbers and not from the ledger."""
    data = spec.data
    asked = {corpus_of(data.store): data.total_windows}
    if data.exposure is not None:
        asked[corpus_of(data.exposure.store)] = data.exposure.windows
        if data.exposure.mode == "replace":
            asked[corpus_of(data.store)] -= data.exposure.windows
    if data.replay is not None:
        share = data.replay.windows / (data.windows + data.replay.windows) if data.windows else 0.0
        replayed = round(share * data.total_windows)
        asked[corpus_of(data.replay.store)] = replayed
        asked[corpus_of(data.store)] -= replayed
    if not len(ledger):
        asked = dict.fromkeys(asked, 0)
    return {corpus: count * spec.seq_len for corpus, count in asked.items()}


def _rows(run: str, spec: StageSpec, ledger: Ledger) -> list[StageAudit]:
    realised, tenths, asked = ledger.tokens_by_source(), ledger.tokens_by_bin(PARTS), _asked(spec, ledger)
    return [StageAudit(run, source, asked[source], realised[source], tenths[source]) for source in realised]


def _shown(ledger: Ledger, store: str) -> np.ndarray:
    """Windows of one store in the order in which they are trained on."""
    return ledger.window[ledger.source == ledger.sources.index(store)] if store in ledger.sources else np.zeros(0)


def _checks(
    chains: tuple[Chain, ...], specs: Mapping[str, StageSpec], ledgers: Mapping[str, Ledger], rows: list[StageAudit]
) -> list[Check]:
    pretrains = [run for run, spec in specs.items() if spec.stage == "pretrain"]
    orders, nested = [], []
    for i, one in enumerate(pretrains):
        for other in pretrains[i + 1 :]:
            first, second = specs[one], specs[other]
            if first.seed != second.seed or first.data.store != second.data.store:
                continue
            orders.append(_is_prefix(*(_shown(ledgers[run], first.data.store) for run in (one, other))))
            exposures = (first.data.exposure, second.data.exposure)
            if all(exposures) and exposures[0].store == exposures[1].store:
                parts = [
                    _shown(ledgers[run], exposure.store)[: exposure.unique_windows]
                    for run, exposure in zip((one, other), exposures, strict=True)
                ]
                nested.append(_is_prefix(*parts))
    complements = [_is_complement(chain, specs, ledgers) for chain in chains]
    complements = [result for result in complements if result is not None]
    exact = [abs(row.asked_tokens - row.realised_tokens) <= _tolerance(specs[row.run]) for row in rows]
    return [
        Check("realised tokens equal the asked ones to within one window a pass", all(exact), len(exact)),
        Check("the pretraining order of D_pre is the same in all arms of a seed", all(orders), len(orders)),
        Check("exposures of a seed nest", all(nested), len(nested)),
        Check("matched stage 2 is the exact complement of the exposure", all(complements), len(complements)),
    ]


def _tolerance(spec: StageSpec) -> int:
    """One window; with replay one window a pass, since the last pass may be cut anywhere."""
    replayed = spec.data.replay.windows if spec.data.replay else 0
    return spec.seq_len * max(1, replayed)


def _is_prefix(one: np.ndarray, other: np.ndarray) -> bool:
    shared = min(len(one), len(other))
    return bool(np.array_equal(one[:shared], other[:shared]))


def _is_complement(chain: Chain, specs: Mapping[str, StageSpec], ledgers: Mapping[str, Ledger]) -> bool | None:
    """Whether stages 1 and 2 show each window of D_post exactly once between them; None where that is not asked."""
    if chain.columns["allocation"] != "matched" or "pretrain" not in chain.runs:
        return None
    post = specs[chain.runs["posttrain"]]
    before = _shown(ledgers[chain.runs["pretrain"]], post.data.store)
    after = _shown(ledgers[chain.runs["posttrain"]], post.data.store)
    both = np.concatenate([before, after])
    return len(np.unique(both)) == len(both) == post.data.first_window + post.data.windows


def _write_parquet(ledger: Ledger, path: Path) -> None:
    names = [corpus_of(store) for store in ledger.sources]
    table = pl.DataFrame(
        {
            "row": np.arange(len(ledger), dtype=np.uint32),
            "source": pl.Series(ledger.source).replace_strict(dict(enumerate(names)), return_dtype=pl.String),
            "window": ledger.window,
        }
    )
    with written_aside(path) as temporary:
        table.write_parquet(temporary)
