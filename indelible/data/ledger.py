"""The ledger: which window of which source is trained on when, as a pure function of (spec, seed).

Every source's order is seeded by the source's name and the seed, never by its position in a list: the k-th D_pre window
is the same in every arm, with or without exposure. Each purpose draws from a random stream of its own name.
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
from indelible.study.stages import ExposureData, StageData, StageSpec

Windows = npt.NDArray[np.uint32]
PLACEMENTS = {"uniform": (0.0, 1.0), "early": (0.0, 1 / 3), "late": (2 / 3, 1.0)}  # fractions of the stage


@dataclass(frozen=True)
class Ledger:
    """The data order of one stage. Row i is the i-th window that is trained on."""

    sources: tuple[str, ...]  # token store folder names
    source: npt.NDArray[np.uint8]  # (num_windows,) index into `sources`
    window: Windows  # (num_windows,) window index within the store's training split
    seq_len: int  # predicted tokens per window

    def __len__(self) -> int:
        return len(self.window)

    @property
    def sha256(self) -> str:
        """Hex digest over sources, order and window length."""
        digest = hashlib.sha256(repr((self.sources, self.seq_len)).encode())
        digest.update(self.source.tobytes())
        digest.update(self.window.tobytes())
        return digest.hexdigest()

    def tokens_by_source(self, end: int | None = None) -> dict[str, int]:
        """Tokens of the first ``end`` windows (all by default) by corpus name."""
        counts = np.bincount(self.source[:end], minlength=len(self.sources))
        return {corpus_of(s): int(n) * self.seq_len for s, n in zip(self.sources, counts, strict=True)}

    def tokens_by_bin(self, bins: int, end: int | None = None) -> dict[str, list[int]]:
        """Tokens by corpus name in each of ``bins`` equal parts of the stage."""
        edges = np.linspace(0, len(self) if end is None else end, bins + 1).round().astype(int)
        parts = [self.source[a:b] for a, b in pairwise(edges)]
        counts = np.array([np.bincount(part, minlength=len(self.sources)) for part in parts]) * self.seq_len
        return {corpus_of(s): counts[:, i].tolist() for i, s in enumerate(self.sources)}


def corpus_of(store: str) -> str:
    """Corpus name of a token store folder ``<corpus>-<fingerprint>``."""
    return store.rpartition("-")[0]


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

    Args:
        spec: the stage run.
        store_windows: training windows that each store holds at ``spec.seq_len``, by store folder name.

    Raises:
        UserError: a corpus is smaller than asked, or the exposure does not fit into its place.
    """
    check_fits(spec, store_windows)
    data = spec.data
    main = _stretch(data.store, data.first_window, data.windows, spec, store_windows)
    if spec.stage == "pretrain":
        return _pretrain_ledger(spec, main, store_windows)
    sources = [data.store]
    replayed = np.zeros(0, np.uint32)
    if data.replay is not None:
        sources.append(data.replay.store)
        replayed = _stretch(data.replay.store, data.replay.first_window, data.replay.windows, spec, store_windows)
    if not len(main):  # nothing of D_post is left: stage 2 is empty, replay or not
        return Ledger(tuple(sources), np.zeros(0, np.uint8), main, spec.seq_len)
    purpose = {"posttrain": "post", "finetune": "ft"}[spec.stage]
    passes = math.ceil(data.total_windows / (len(main) + len(replayed)))
    rows = [_mixed_pass(main, replayed, spec.seed, purpose, number) for number in range(passes)]
    source = np.concatenate([part[0] for part in rows])[: data.total_windows]
    window = np.concatenate([part[1] for part in rows])[: data.total_windows]
    return Ledger(tuple(sources), source, window, spec.seq_len)


def _pretrain_ledger(spec: StageSpec, pre: Windows, store_windows: Mapping[str, int]) -> Ledger:
    data, exposure = spec.data, spec.data.exposure
    shown = exposure.windows if exposure else 0
    num_pre = data.total_windows - (shown if exposure and exposure.mode == "replace" else 0)
    if num_pre <= 0:
        raise UserError(
            f"exposure.mode = replace: {shown} exposure windows leave nothing of the {data.total_windows} pretraining "
            "windows; lower exposure.fraction or posttrain.tokens, or use mode: add."
        )
    pre = _in_passes(pre, num_pre, spec.seed, "pre")
    if exposure is None:
        return Ledger((data.store,), np.zeros(len(pre), np.uint8), pre, spec.seq_len)
    prefix = _stretch(exposure.store, 0, exposure.unique_windows, spec, store_windows)
    exposed = _in_passes(prefix, exposure.windows, spec.seed, "exposure")
    slots = _exposure_slots(exposure, data, len(pre) + shown, spec.seed)
    source, window = _interleaved(pre, exposed, slots)
    return Ledger((data.store, exposure.store), source, window, spec.seq_len)


def check_fits(
    spec: StageSpec, store_windows: Mapping[str, int], left_out: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Checks, without building the ledger, that every corpus holds what a stage asks for.

    Args:
        spec: the stage run.
        store_windows: training windows that each store holds at ``spec.seq_len``, by store folder name.
        left_out: what of a store's text is in neither split, in words for the message.

    Raises:
        UserError: a corpus is smaller than asked.
    """
    for store, count in spec.data.asked_windows.items():
        available = store_windows[store]
        if count > available:
            raise UserError(
                f"corpus {corpus_of(store)!r} is smaller than asked: its training split has "
                f"{available * spec.seq_len:,} tokens in windows of {spec.seq_len}, and {spec.stage} asks for "
                f"{count * spec.seq_len:,}; lower that stage's tokens, or give the corpus more text."
                f"{left_out.get(store, '')}"
            )


def _stretch(store: str, first: int, count: int, spec: StageSpec, store_windows: Mapping[str, int]) -> Windows:
    """``count`` windows of a store's permutation from ``first`` on."""
    return source_order(store, store_windows[store], spec.seed)[first : first + count]


def _in_passes(windows: Windows, total: int, seed: int, purpose: str) -> Windows:
    """``total`` windows: the given order first, then passes shuffled anew, the last one cut."""
    parts = [windows]
    for number in range(1, math.ceil(total / len(windows))):
        again = windows.copy()
        stream(seed, f"{purpose} order, pass {number}").shuffle(again)
        parts.append(again)
    return np.concatenate(parts)[:total]


def _exposure_slots(exposure: ExposureData, data: StageData, total: int, seed: int) -> npt.NDArray[np.int64]:
    """Sorted rows of the stage that hold exposure windows, drawn without replacement within the placement."""
    placement = exposure.placement
    begin, end = PLACEMENTS[placement] if isinstance(placement, str) else placement
    if exposure.mode == "replace":
        total = data.total_windows
    low, high = math.floor(begin * total), math.ceil(end * total)
    if high - low < exposure.windows:
        raise UserError(
            f"exposure.placement = [{begin:g}, {end:g}] has room for {high - low} windows of the stage and the "
            f"exposure has {exposure.windows}; widen the placement or lower exposure.fraction."
        )
    drawn = stream(seed, "exposure positions").choice(high - low, exposure.windows, replace=False, shuffle=False)
    return np.sort(drawn) + low


def _mixed_pass(
    main: Windows, replayed: Windows, seed: int, purpose: str, number: int
) -> tuple[npt.NDArray[np.uint8], Windows]:
    """One pass over a stage's data, shuffled, with the replay windows at random rows.

    The order of ``main`` does not depend on whether there is replay.
    """
    order = main.copy()
    stream(seed, f"{purpose} order, pass {number}").shuffle(order)
    if not len(replayed):
        return np.zeros(len(order), np.uint8), order
    total = len(main) + len(replayed)
    slots = stream(seed, f"replay positions, pass {number}").choice(total, len(replayed), replace=False, shuffle=False)
    slots.sort()  # in place: a sorted copy of millions of positions is memory
    again = replayed.copy()
    stream(seed, f"replay order, pass {number}").shuffle(again)
    return _interleaved(order, again, slots)


def _interleaved(
    base: Windows, inserted: Windows, slots: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], Windows]:
    """``inserted`` at rows ``slots`` of the result, ``base`` in the rows between, both in their own order."""
    source = np.zeros(len(base) + len(inserted), np.uint8)
    source[slots] = 1
    window = np.empty(len(source), np.uint32)
    window[source == 1] = inserted
    window[source == 0] = base
    return source, window
