"""What must hold of the ledgers of a study, checked on the ledgers themselves; `audit` gathers the outcome."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from indelible.data.built_ledger import (
    BuiltLedger,
    counts_are_exact,
    lie_in_place,
    marked,
    num_distinct,
    passes_are_distinct,
)
from indelible.study.graph import Chain
from indelible.study.stage_spec import CorpusUse


@dataclass(frozen=True)
class Check:
    """One property of the ledgers, with what was compared."""

    name: str
    holds: bool
    compared: int  # uses, pairs or runs that were looked at


def run_checks(chain_of: Mapping[str, Chain], of_run: Mapping[str, BuiltLedger]) -> list[Check]:
    """Checks every property.

    Args:
        chain_of: the stage runs that are looked at, each with a chain that it is in.
        of_run: the ledger of each stage run; runs that differ only in how they train share it.
    """
    ledgers = list({id(built): built for built in of_run.values()}.values())

    def of_each(check: Callable[[BuiltLedger], Iterator[bool]]) -> list[bool]:
        return [holds for built in ledgers for holds in check(built)]

    def of_runs(check: Callable[[str, Chain, Mapping[str, BuiltLedger]], Iterator[bool]]) -> list[bool]:
        return [holds for run, chain in chain_of.items() for holds in check(of_run[run].spec.stage, chain, of_run)]

    results = {
        "realised tokens equal the requested ones to within one window a pass": of_each(counts_are_exact),
        "no window stands twice in one pass": of_each(passes_are_distinct),
        "mixed windows lie where their placement says": of_each(lie_in_place),
        "the order of a stage's own corpus is the same in all arms of a seed": list(_orders_agree(ledgers)),
        "the windows of a mix nest over its sizes": list(_mixes_nest(ledgers)),
        "a stage that shows the rest shows exactly what the named stages did not": of_runs(_shows_the_rest),
        "replayed windows are such that earlier stages showed, or did not, as requested": of_runs(
            _replays_as_requested
        ),
    }
    return [Check(name, all(found), len(found)) for name, found in results.items()]


def _orders_agree(ledgers: list[BuiltLedger]) -> Iterator[bool]:
    """Pair by pair, whether the shorter order of a stage's own corpus is the beginning of the longer one.

    Stages of one data set are compared over all passes; of two sizes only what both show of the corpus's own order.
    """

    def key(built: BuiltLedger) -> Hashable:
        data = built.spec.data
        is_one_size = data.main.windows if data.order == "shuffled" else None
        return _place(built, data.main), data.order, is_one_size

    for group in _grouped([built for built in ledgers if len(built.ledger)], key):
        group.sort(key=lambda built: (built.spec.data.main.windows, built.base_windows))
        for one, other in pairwise(group):
            yield _starts_alike(one, other)


def _starts_alike(one: BuiltLedger, other: BuiltLedger) -> bool:
    size, larger = one.spec.data.main.windows, other.spec.data.main.windows
    first, second = one.ledger.shown(0), other.ledger.shown(0)
    shared = min(len(first), len(second), size if size != larger else len(first))
    return bool(np.array_equal(first[:shared], second[:shared]))


def _mixes_nest(ledgers: list[BuiltLedger]) -> Iterator[bool]:
    """Pair by pair, whether the windows of the smaller mix are among those of the larger one, in the same order.

    Mixes that are shown in each pass are shuffled: of them the windows of one whole pass are compared.
    """
    uses = [(built, index) for built in ledgers for index in range(1, len(built.spec.data.uses)) if len(built.ledger)]

    def key(item: tuple[BuiltLedger, int]) -> Hashable:
        use = item[0].spec.data.mix[item[1] - 1]
        return _place(item[0], use), use.per

    for group in _grouped(uses, key):
        group.sort(key=lambda item: item[0].spec.data.uses[item[1]].windows)
        for smaller, larger in pairwise(group):
            few, many = (_first_pass(*item) for item in (smaller, larger))
            if few is None or many is None:
                continue
            if smaller[0].spec.data.mix[smaller[1] - 1].per == "pass":
                yield _are_among(few, many)
            else:
                yield bool(np.array_equal(few, many[: len(few)]))


def _first_pass(built: BuiltLedger, index: int) -> np.ndarray | None:
    """Windows of the first pass of a mix; None where the stage ends before."""
    data = built.spec.data
    use = data.mix[index - 1]
    if use.per == "pass" and built.base_windows < data.pass_windows:
        return None
    return built.ledger.shown(index)[: use.windows]


def _place(built: BuiltLedger, use: CorpusUse) -> Hashable:
    """What two ledgers must have in common for a use of theirs to be compared."""
    spec = built.spec
    return spec.stage, spec.seed, spec.order_seed, spec.seq_len, use.purpose, use.store, use.first_window


def _grouped(items: Iterable, key: Callable[..., Hashable]) -> Iterator[list]:
    groups: dict[Hashable, list] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    yield from groups.values()


def _shows_the_rest(stage: str, chain: Chain, of_run: Mapping[str, BuiltLedger]) -> Iterator[bool]:
    """If a stage has `not_shown_in`: whether it shows, once, exactly what the named stages left of its data."""
    named = chain.arm.stages[stage].not_shown_in
    if not named or not set(named) <= set(chain.runs):
        return
    built = of_run[chain.runs[stage]]
    main, rest = built.spec.data.main, built.ledger.shown(0)
    before = _seen(named, main.store, chain, of_run)
    is_once = num_distinct(rest) == len(rest)
    everything = max(main.first_window + main.windows, num_distinct(before))
    yield is_once and not _share_any(rest, before) and num_distinct(before) + len(rest) == everything


def _replays_as_requested(stage: str, chain: Chain, of_run: Mapping[str, BuiltLedger]) -> Iterator[bool]:
    """For each replay: whether its windows were shown before, if so many were; or by none of the named stages."""
    stages, built = list(chain.arm.stages), of_run[chain.runs[stage]]
    for index, use in enumerate(built.spec.data.mix, start=1):
        named = built.setting_of(use).not_shown_in
        earlier = named or stages[: stages.index(stage)]
        is_replay = use.purpose.split()[0] == "replay"
        if not (named or is_replay) or not set(earlier) <= set(chain.runs) or not len(built.ledger):
            continue
        again, before = built.ledger.shown(index), _seen(earlier, use.store, chain, of_run)
        if named:
            yield not _share_any(again, before)
        elif use.windows <= num_distinct(before):
            yield _are_among(again, before)
        else:  # more than there was: then all that was shown comes again, if a whole pass is shown
            first = _first_pass(built, index)
            if first is not None:
                yield _are_among(before, first)


def _seen(stages: Iterable[str], store: str, chain: Chain, of_run: Mapping[str, BuiltLedger]) -> np.ndarray:
    """Windows of a store that some stages of a chain show, by whatever use."""
    return np.concatenate([of_run[chain.runs[stage]].shown(store) for stage in stages])


def _are_among(windows: np.ndarray, others: np.ndarray) -> bool:
    known = marked(others)
    return not len(windows) or (len(others) > 0 and int(windows.max()) < len(known) and bool(known[windows].all()))


def _share_any(windows: np.ndarray, others: np.ndarray) -> bool:
    return bool(len(windows)) and bool(len(others)) and bool(np.isin(windows, others, kind="table").any())
