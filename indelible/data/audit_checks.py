"""What must hold of the ledgers of a study, checked on the ledgers themselves; `audit` shows the outcome."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from indelible.data.ledger import Ledger, corpus_of
from indelible.study.graph import Chain
from indelible.study.stages import StageSpec


@dataclass(frozen=True)
class Check:
    """One property of the ledgers, with what was compared."""

    name: str
    holds: bool
    compared: int  # pairs or runs that were looked at


@dataclass(frozen=True)
class Built:
    """A ledger, the spec that it was built from and the stage runs that train in its order."""

    spec: StageSpec
    ledger: Ledger
    runs: list[str]
    exposure_tokens: int  # asked by the study: fraction x |D_post|, before it is cut into windows

    def shown(self, store: str) -> np.ndarray:
        """Windows of one store in the order in which they are trained on."""
        if store not in self.ledger.sources:
            return np.zeros(0, np.uint32)
        return self.ledger.window[self.ledger.source == self.ledger.sources.index(store)]


def asked_tokens(built: Built) -> dict[str, int]:
    """Tokens that are asked of each corpus: exposure by the study, the rest by the spec; not taken from the ledger."""
    spec, data = built.spec, built.spec.data
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
    if not len(built.ledger):
        asked = dict.fromkeys(asked, 0)
    tokens = {corpus: count * spec.seq_len for corpus, count in asked.items()}
    return tokens | ({corpus_of(data.exposure.store): built.exposure_tokens} if data.exposure is not None else {})


def run_checks(chains: tuple[Chain, ...], ledgers: list[Built], of_run: Mapping[str, Built]) -> list[Check]:
    """Checks every property.

    Args:
        chains: the chains that are looked at.
        ledgers: their ledgers, each once.
        of_run: the ledger of each of their stage runs.
    """
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
    exact = [is_exact for one in ledgers for is_exact in _counts_are_exact(one)]
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


def _counts_are_exact(built: Built) -> Iterator[bool]:
    """For each source, whether as many tokens are shown as the spec asks for."""
    realised = built.ledger.tokens_by_source()
    for source, tokens in asked_tokens(built).items():
        yield abs(tokens - realised[source]) <= _tolerance(built.spec)


def _tolerance(spec: StageSpec) -> int:
    """One window; with replay one window a pass, since the last pass may be cut anywhere."""
    replayed = spec.data.replay.windows if spec.data.replay else 0
    return spec.seq_len * max(1, replayed)


def _is_prefix(one: np.ndarray, other: np.ndarray) -> bool:
    shared = min(len(one), len(other))
    return bool(np.array_equal(one[:shared], other[:shared]))


def _passes_are_distinct(built: Built) -> Iterator[bool]:
    """For each source, whether each of its passes shows each window at most once."""
    data = built.spec.data
    lengths = {data.store: data.windows}
    lengths |= {part.store: part.unique_windows for part in (data.exposure,) if part}
    lengths |= {part.store: part.windows for part in (data.replay,) if part}
    for store, length in lengths.items():
        shown = built.shown(store)
        parts = [shown[start : start + length] for start in range(0, len(shown), max(1, length))]
        yield all(_num_distinct(part) == len(part) for part in parts)


def _num_distinct(windows: np.ndarray) -> int:
    """Different windows among some: marked, not sorted, since there may be millions."""
    marked = np.zeros(int(windows.max(initial=0)) + 1, bool)
    marked[windows] = True
    return int(marked.sum()) if len(windows) else 0


def _is_complement(chain: Chain, of_run: Mapping[str, Built]) -> bool | None:
    """Whether stages 1 and 2 show each window of D_post exactly once between them; None where that is not asked."""
    if chain.columns["allocation"] != "matched" or "pretrain" not in chain.runs:
        return None
    post = of_run[chain.runs["posttrain"]]
    before = of_run[chain.runs["pretrain"]].shown(post.spec.data.store)
    both = np.concatenate([before, post.shown(post.spec.data.store)])
    return _num_distinct(both) == len(both) == post.spec.data.first_window + post.spec.data.windows


def _replays_as_asked(chain: Chain, of_run: Mapping[str, Built]) -> Iterator[bool]:
    """For each later stage with replay, whether all its D_pre windows were seen in pretraining, or none was."""
    for stage in ("posttrain", "finetune"):
        built = of_run[chain.runs[stage]] if stage in chain.runs else None
        replay = built.spec.data.replay if built else None
        if built is None or replay is None or "pretrain" not in chain.runs or not len(built.ledger):
            continue
        seen = of_run[chain.runs["pretrain"]].shown(replay.store)
        is_seen = np.isin(built.shown(replay.store), seen)
        yield bool(is_seen.all() if replay.first_window == 0 else not is_seen.any())
