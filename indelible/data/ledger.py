"""The ledger: which window of which corpus is trained on when, as a pure function of (spec, seed).

A stage shows stretches of its corpora's permutations, one for each use: the stage's own corpus and what is mixed in. A
permutation is drawn from a random stream of the corpus's name, and everything else about a use from streams of its
purpose, never of its position in a list: the k-th window of a stage's own corpus is the same whatever is mixed in.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from indelible.errors import UserError
from indelible.study.row_rules import RowRules
from indelible.study.stage_spec import MixUse, StageData, StageSpec

Windows = npt.NDArray[np.uint32]
Sources = npt.NDArray[np.uint8]
MAX_ROWS = 2**32  # of a ledger: 20 GB of memory, and what 32 bits number
PLACEMENTS = {"uniform": (0.0, 1.0), "early": (0.0, 1 / 3), "late": (2 / 3, 1.0)}  # fractions of the stage


@dataclass(frozen=True)
class Ledger:
    """The data order of one stage. Row i is the i-th window that is trained on."""

    stores: tuple[str, ...]  # token store folder of each use, the stage's own corpus first
    uses: tuple[str, ...]  # the name of each use: see `use_names`
    source: Sources  # (num_windows,) index into `stores` and `uses`
    window: Windows  # (num_windows,) window index within the store's training split
    seq_len: int  # predicted tokens per window
    rules: tuple[RowRules, ...] = ()  # of each use: how documents become its windows; empty = streams, all tokens count
    sequences: tuple[int, ...] = ()  # of seq_len tokens that a row of each use is: 2 for pairs; empty = 1 of all

    def __len__(self) -> int:
        return len(self.window)

    @property
    def sha256(self) -> str:
        """Hex digest over stores, order and window length, and what a row is where documents stay whole."""
        digest = hashlib.sha256(repr((self.stores, self.seq_len)).encode())
        if any(rules.packing != "stream" for rules in self.rules):  # else a number means the same window as ever
            digest.update(repr([(rules.packing, rules.too_long) for rules in self.rules]).encode())
        digest.update(self.source.tobytes())
        digest.update(self.window.tobytes())
        return digest.hexdigest()

    def rules_of(self, use: int) -> RowRules:
        """How the documents of a use become windows."""
        return self.rules[use] if self.rules else RowRules()

    def tokens_by_source(self, end: int | None = None) -> dict[str, int]:
        """Tokens of the first ``end`` windows (all by default) by use."""
        counts = np.bincount(self.source[:end], minlength=len(self.uses))
        sizes = self._row_tokens().tolist()
        return {use: int(count) * size for use, count, size in zip(self.uses, counts, sizes, strict=True)}

    def tokens_by_bin(self, bins: int, end: int | None = None) -> dict[str, list[int]]:
        """Tokens by use in each of ``bins`` equal parts of the stage."""
        edges = np.linspace(0, len(self) if end is None else end, bins + 1).round().astype(int)
        parts = [self.source[a:b] for a, b in pairwise(edges)]
        counts = np.array([np.bincount(part, minlength=len(self.uses)) for part in parts]) * self._row_tokens()
        return {use: counts[:, i].tolist() for i, use in enumerate(self.uses)}

    def _row_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of a row of each use, padding included."""
        return self.seq_len * np.array(self.sequences or [1] * len(self.uses), np.int64)

    def shown(self, use: int) -> Windows:
        """Windows of one use, in the order in which they are trained on."""
        return self.window[self.source == use]


def corpus_of(store: str) -> str:
    """Corpus name of a token store folder ``<corpus>-<fingerprint>``."""
    return store.rpartition("-")[0]


def use_names(data: StageData) -> tuple[str, ...]:
    """The name of each use of a stage, in the order of `StageData.uses`.

    It is the corpus, or ``corpus:purpose`` for a mix of a corpus that another use of the stage has too.
    """
    corpora = [corpus_of(use.store) for use in data.uses]
    mixed = [
        f"{corpus}:{use.purpose}" if corpora.count(corpus) > 1 else corpus
        for use, corpus in zip(data.mix, corpora[1:], strict=True)
    ]
    names = (corpora[0], *mixed)
    assert len(set(names)) == len(names), f"two uses of one purpose in a stage: {names}"
    return names


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream that belongs to one purpose; different names are independent."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def source_order(store: str, store_windows: int, seed: int) -> Windows:
    """The one permutation of a corpus's training windows; every subset used anywhere is a stretch of it."""
    order = np.arange(store_windows, dtype=np.uint32)
    stream(seed, f"{corpus_of(store)} order").shuffle(order)
    return order


def build_ledger(spec: StageSpec, store_windows: Mapping[str, int]) -> Ledger:
    """The data order of a stage.

    Passes over the stage's own corpus come first, with the mixes that are shown in each pass, cut to the stage's
    budget; then the mixes that are shown over the whole stage take their rows, the narrowest placement first.

    Args:
        spec: the stage run.
        store_windows: training windows that each store holds at ``spec.seq_len``, by store folder name.

    Raises:
        UserError: a corpus is smaller than asked, or a mix does not fit into its place.
    """
    check_fits(spec, store_windows)
    data = spec.data
    source, window = np.zeros(0, np.uint8), np.zeros(0, np.uint32)
    if data.main.windows:  # else nothing of the stage's own corpus is left: the stage is empty, mixes or not
        orders = {use.store: source_order(use.store, store_windows[use.store], spec.order_seed) for use in data.uses}
        stretches = [orders[use.store][use.first_window : use.first_window + use.windows] for use in data.uses]
        source, window = _passes(data, stretches, spec.seed)
        if any(use.per == "stage" for use in data.mix):
            source, window = _with_stage_mixes(spec, stretches, source, window)
    stores, sequences = tuple(use.store for use in data.uses), tuple(use.sequences for use in data.uses)
    rules = tuple(spec.rules(use) for use in data.uses)
    return Ledger(stores, use_names(data), source, window, spec.seq_len, rules, sequences)


def check_fits(
    spec: StageSpec, store_windows: Mapping[str, int], left_out: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Checks, without building the ledger, that every corpus holds what a stage asks for.

    Args:
        spec: the stage run.
        store_windows: training windows that each store holds at ``spec.seq_len``, by store folder name.
        left_out: what of a store's text is in neither split, in words for the message.

    Raises:
        UserError: a corpus is smaller than asked, or a mix does not fit into its place.
    """
    check_places(spec)
    for store, count in spec.data.asked_windows.items():
        available = store_windows[store]
        if count > available and spec.objective.needs_pairs and store == spec.data.main.store:
            raise UserError(
                f"corpus {corpus_of(store)!r} has fewer pairs than asked: {available:,} of its training split fit into "
                f"rows of {spec.seq_len} tokens, and {spec.stage} asks for {count:,} (a pair counts as 2 rows, "
                f"{2 * spec.seq_len} tokens); set that stage's tokens to at most {2 * spec.seq_len * available:,}, or "
                f"give the corpus more pairs.{left_out.get(store, '')}"
            )
        if count > available:
            raise UserError(
                f"corpus {corpus_of(store)!r} is smaller than asked: its training split has "
                f"{available * spec.seq_len:,} tokens in windows of {spec.seq_len}, and {spec.stage} asks for "
                f"{count * spec.seq_len:,}; lower that stage's tokens, or give the corpus more text."
                f"{left_out.get(store, '')}"
            )


def check_places(spec: StageSpec) -> None:
    """Checks what needs no tokens: that each mix has room in the stage, and the stage's own corpus too.

    Raises:
        UserError: a mix does not fit into its place.
    """
    data = spec.data
    if (rows := data.total_windows + data.added_windows) > MAX_ROWS:
        raise UserError(
            f"{spec.stage}: {rows:,} windows of {spec.seq_len} tokens, and a stage has at most {MAX_ROWS:,}; lower its "
            "tokens, max_tokens or the fraction of a mix, or raise seq_len."
        )
    if not data.main.windows:
        return
    if data.replaced_windows >= data.total_windows:
        raise UserError(
            f"{spec.stage}: mode: replace shows {data.replaced_windows:,} windows of other corpora and leaves nothing "
            f"of the stage's {data.total_windows:,} to {corpus_of(data.main.store)}; lower the fraction of the mix "
            "or what it is a share of, or use mode: add."
        )
    placed = [(use, *placed_rows(use, data)) for use in data.mix if use.per == "stage"]
    for use, low, high in placed:
        others = sum(o.total_windows for o, begin, end in placed if o is not use and low <= begin and end <= high)
        if high - low < use.total_windows + others:
            raise _no_room(use, spec, high - low - others)


def placed_rows(use: MixUse, data: StageData) -> tuple[int, int]:
    """The rows of a stage between which the windows of a mix lie: the first, and the one behind the last."""
    begin, end = PLACEMENTS[use.placement] if isinstance(use.placement, str) else use.placement
    total = data.total_windows + data.added_windows
    return math.floor(begin * total), math.ceil(end * total)


def _width(use: MixUse, data: StageData) -> int:
    low, high = placed_rows(use, data)
    return high - low


def _no_room(use: MixUse, spec: StageSpec, room: int) -> UserError:
    placement = use.placement if isinstance(use.placement, str) else list(use.placement)
    return UserError(
        f"{spec.stage}: placement {placement} has room for {room:,} windows of the stage and the mix of "
        f"{corpus_of(use.store)} ({use.purpose}) has {use.total_windows:,}; widen the placement or lower its fraction."
    )


def _passes(data: StageData, stretches: list[Windows], seed: int) -> tuple[Sources, Windows]:
    """Passes over the stage's own corpus, with what is mixed into each of them, the last one cut."""
    total, length = data.total_windows - data.replaced_windows, data.pass_windows
    source, window = np.zeros(total, np.uint8), np.empty(total, np.uint32)
    for number, start in enumerate(range(0, total, length)):
        rows = slice(start, min(start + length, total))
        one_source, one_window = _one_pass(data, stretches, seed, number)
        window[rows] = one_window[: rows.stop - start]
        if one_source is not None:
            source[rows] = one_source[: rows.stop - start]
    return source, window


def _one_pass(data: StageData, stretches: list[Windows], seed: int, number: int) -> tuple[Sources | None, Windows]:
    """One pass; without a mix in it, it has no sources."""
    source, window = None, stretches[0]
    if number or data.order == "shuffled":
        window = _shuffled(window, seed, f"{data.main.purpose} order, pass {number}")
    for index, use in enumerate(data.mix, start=1):
        if use.per != "pass":
            continue
        total, count = len(window) + use.windows, use.windows
        positions = stream(seed, f"{use.purpose} positions, pass {number}")
        is_mixed = np.zeros(total, np.bool_)
        is_mixed[positions.choice(total, count, replace=False, shuffle=False)] = True
        again = _shuffled(stretches[index], seed, f"{use.purpose} order, pass {number}")
        before = source
        source, both = is_mixed.view(np.uint8) * np.uint8(index), np.empty(total, np.uint32)
        both[is_mixed] = again
        np.logical_not(is_mixed, out=is_mixed)
        both[is_mixed] = window
        if before is not None:
            source[is_mixed] = before
        window = both
    return source, window


def _with_stage_mixes(
    spec: StageSpec, stretches: list[Windows], base_source: Sources, base: Windows
) -> tuple[Sources, Windows]:
    """The stage with what is shown once over all of it; ``base`` fills the rows between."""
    mixes = [(index, use) for index, use in enumerate(spec.data.mix, start=1) if use.per == "stage"]
    mixes.sort(key=lambda mix: _width(mix[1], spec.data))  # who may lie anywhere leaves room to who may not
    total = len(base) + sum(use.total_windows for _, use in mixes)
    source, window = np.zeros(total, np.uint8), np.empty(total, np.uint32)
    for index, use in mixes:
        source[_drawn_rows(use, source, spec)] = index
        window[source == index] = _in_passes(stretches[index], use, spec.seed)
    is_free = source == 0
    window[is_free] = base
    source[is_free] = base_source
    return source, window


def _drawn_rows(use: MixUse, source: Sources, spec: StageSpec) -> npt.NDArray[np.int64]:
    """Rows of the stage for a mix, drawn without replacement among those of its placement that have no source yet."""
    low, high = placed_rows(use, spec.data)
    room = high - low - int(np.count_nonzero(source[low:high]))
    if room < use.total_windows:
        raise _no_room(use, spec, room)
    drawn = stream(spec.seed, f"{use.purpose} positions").choice(room, use.total_windows, replace=False, shuffle=False)
    if room < high - low:  # other mixes are there already
        drawn = np.flatnonzero(source[low:high] == 0)[drawn]
    drawn += low
    return drawn


def _in_passes(windows: Windows, use: MixUse, seed: int) -> Windows:
    """All windows of a mix: the corpus's own order first, then passes shuffled anew, the last one cut."""
    shown = np.empty(use.total_windows, np.uint32)
    for number, start in enumerate(range(0, len(shown), len(windows))):
        one = _shuffled(windows, seed, f"{use.purpose} order, pass {number}") if number else windows
        shown[start : start + len(one)] = one[: len(shown) - start]
    return shown


def _shuffled(windows: Windows, seed: int, name: str) -> Windows:
    """A copy of windows in the order that a stream gives them."""
    copy = windows.copy()
    stream(seed, name).shuffle(copy)
    return copy
