"""The ledgers of a study, audited: asked against realised tokens, where they lie, nesting and disjointness."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


@dataclass(frozen=True)
class _Built:
    """A ledger, the spec that it was built from and the stage runs that train in its order."""

    spec: StageSpec
    ledger: Ledger
    runs: list[str]

    def shown(self, store: str) -> np.ndarray:
        """Windows of one store in the order in which they are trained on."""
        if store not in self.ledger.sources:
            return np.zeros(0, np.uint32)
        return self.ledger.window[self.ledger.source == self.ledger.sources.index(store)]


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
    built: dict[Any, _Built] = {}
    of_run: dict[str, _Built] = {}
    for run in dict.fromkeys(run for chain in chains for run in chain.runs.values()):
        spec = graph.runs[run].spec
        key = (spec.stage, spec.seed, spec.seq_len, spec.data)  # all that the order depends on
        if key not in built:
            needed = _windows_of(spec, tokens_dir, windows)
            built[key] = _Built(spec, build_ledger(spec, needed), [])
        built[key].runs.append(run)
        of_run[run] = built[key]
        if parquet is not None:
            _write_parquet(built[key].ledger, parquet / f"{run}.parquet")
    ledgers = list(built.values())
    return Audit([row for one in ledgers for row in _rows(one)], _checks(chains, ledgers, of_run))


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


def _rows(built: _Built) -> list[StageAudit]:
    spec, ledger = built.spec, built.ledger
    realised, tenths, asked = ledger.tokens_by_source(), ledger.tokens_by_bin(PARTS), _asked(spec, ledger)
    return [
        StageAudit(built.runs, spec.stage, spec.seed, source, asked[source], realised[source], tenths[source])
        for source in realised
    ]


def _checks(chains: tuple[Chain, ...], ledgers: list[_Built], of_run: Mapping[str, _Built]) -> list[Check]:
    orders, nested = [], []
    for one, other in combinations([built for built in ledgers if built.spec.stage == "pretrain"], 2):
        first, second = one.spec, other.spec
        if first.seed != second.seed or first.data.store != second.data.store:
            continue
        orders.append(_is_prefix(one.shown(first.data.store), other.shown(first.data.store)))
        exposures = (first.data.exposure, second.data.exposure)
        if exposures[0] and exposures[1] and exposures[0].store == exposures[1].store:
            parts = [b.shown(e.store)[: e.unique_windows] for b, e in zip((one, other), exposures, strict=True) if e]
            nested.append(_is_prefix(*parts))
    exact = [
        abs(row.asked_tokens - row.realised_tokens) <= _tolerance(one.spec) for one in ledgers for row in _rows(one)
    ]
    results = {
        "realised tokens equal the asked ones to within one window a pass": exact,
        "no window stands twice in one pass": [result for one in ledgers for result in _passes_are_distinct(one)],
        "the pretraining order of D_pre is the same in all arms of a seed": orders,
        "exposures of a seed nest": nested,
        "matched stage 2 is the exact complement of the exposure": [_is_complement(c, of_run) for c in chains],
        "replayed windows are such that pretraining showed, or did not, as asked": [
            result for chain in chains for result in _replays_as_asked(chain, of_run)
        ],
    }
    checks = []
    for name, found in results.items():
        told = [result for result in found if result is not None]
        checks.append(Check(name, all(told), len(told)))
    return checks


def _tolerance(spec: StageSpec) -> int:
    """One window; with replay one window a pass, since the last pass may be cut anywhere."""
    replayed = spec.data.replay.windows if spec.data.replay else 0
    return spec.seq_len * max(1, replayed)


def _is_prefix(one: np.ndarray, other: np.ndarray) -> bool:
    shared = min(len(one), len(other))
    return bool(np.array_equal(one[:shared], other[:shared]))


def _passes_are_distinct(built: _Built) -> Iterator[bool]:
    """For each source, whether each of its passes shows each window at most once."""
    data = built.spec.data
    lengths = {data.store: data.windows}
    lengths |= {part.store: part.unique_windows for part in (data.exposure,) if part}
    lengths |= {part.store: part.windows for part in (data.replay,) if part}
    for store, length in lengths.items():
        shown = built.shown(store)
        parts = [shown[start : start + length] for start in range(0, len(shown), max(1, length))]
        yield all(len(np.unique(part)) == len(part) for part in parts)


def _is_complement(chain: Chain, of_run: Mapping[str, _Built]) -> bool | None:
    """Whether stages 1 and 2 show each window of D_post exactly once between them; None where that is not asked."""
    if chain.columns["allocation"] != "matched" or "pretrain" not in chain.runs:
        return None
    post = of_run[chain.runs["posttrain"]]
    before = of_run[chain.runs["pretrain"]].shown(post.spec.data.store)
    both = np.concatenate([before, post.shown(post.spec.data.store)])
    return len(np.unique(both)) == len(both) == post.spec.data.first_window + post.spec.data.windows


def _replays_as_asked(chain: Chain, of_run: Mapping[str, _Built]) -> Iterator[bool]:
    """For each later stage with replay, whether all its D_pre windows were seen in pretraining, or none was."""
    for stage in ("posttrain", "finetune"):
        built = of_run[chain.runs[stage]] if stage in chain.runs else None
        replay = built.spec.data.replay if built else None
        if built is None or replay is None or "pretrain" not in chain.runs or not len(built.ledger):
            continue
        seen = of_run[chain.runs["pretrain"]].shown(replay.store)
        is_seen = np.isin(built.shown(replay.store), seen)
        yield bool(is_seen.all() if replay.first_window == 0 else not is_seen.any())


def _write_parquet(ledger: Ledger, path: Path) -> None:
    names = pa.array([corpus_of(store) for store in ledger.sources])
    columns = {
        "row": np.arange(len(ledger), dtype=np.uint32),
        "source": pa.DictionaryArray.from_arrays(pa.array(ledger.source), names),
        "window": ledger.window,
    }
    with written_aside(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
