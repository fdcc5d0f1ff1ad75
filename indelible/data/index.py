"""The documents of one corpus as arrays: what each is, and what becomes of it (training, held out, or left out why)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indelible.data.parts import RECORD, read_records
from indelible.data.split import below, threshold
from indelible.errors import UserError
from indelible.files import read_json
from indelible.study.corpus_spec import SplitSpec

TRAIN, HELDOUT, DUPLICATE, BEYOND, EXACT_LEAK, NEAR_LEAK = range(6)
DISPOSITIONS = ("train", "heldout", "duplicate", "beyond max_tokens", "exact leak", "near leak")


@dataclass
class Index:
    """All documents of a corpus, part after part; arrays share their first axis."""

    name: str
    parts: list[Path]
    records: np.ndarray  # dtype RECORD; on disk, so that a corpus of any size fits the memory
    part: np.ndarray  # int32: which part a document is in
    first: np.ndarray  # int64 (parts + 1,): first document of each part
    disposition: np.ndarray  # uint8: index into DISPOSITIONS
    chat: dict[str, Any] | None = None  # of conversations: how many do not tell what the assistant says, and why

    @property
    def has_mask(self) -> bool:
        """Whether documents are of parts, of which some may not be trained on."""
        return self.chat is not None or bool((self.records["prompt_tokens"] > 0).any())

    def rows(self, disposition: int) -> np.ndarray:
        """Documents with one disposition, by rising order key: int64."""
        rows = np.flatnonzero(self.disposition == disposition)
        return rows[np.argsort(self.records["order"][rows], kind="stable")]

    def tokens(self, disposition: int) -> int:
        """Number of tokens, end-of-text included, of the documents with one disposition."""
        return int(self.records["tokens"][self.disposition == disposition].sum(dtype=np.int64))


def _collect(parts: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The records of all parts as one mapped file beside them, and the first document of each part."""
    first = np.concatenate([[0], np.cumsum([len(read_records(path)) for path in parts])]).astype(np.int64)
    if not parts or first[-1] == 0:
        return np.zeros(0, RECORD), first
    path = parts[0].with_name("all-records.npy")
    records = np.lib.format.open_memmap(path, mode="w+", dtype=RECORD, shape=(int(first[-1]),))
    for number, part in enumerate(parts):
        records[first[number] : first[number + 1]] = read_records(part)
    records.flush()
    return np.asarray(np.lib.format.open_memmap(path, mode="r")), first


def _chat_of(parts: list[Path]) -> dict[str, Any] | None:
    """What the parts say of their conversations; None if they hold none."""
    paths = [path for part in parts if (path := part.with_suffix(".chat.json")).exists()]
    if not paths:
        return None
    found = [read_json(path) for path in paths]
    reasons = [one["why_not"] for one in found if one["why_not"]]
    return {"unmarked": sum(one["unmarked"] for one in found), "why_not": reasons[0] if reasons else ""}


def build_index(name: str, parts: list[Path], split: SplitSpec, max_tokens: int | None) -> Index:
    """Reads the parts' records and decides duplicates, the cut at ``max_tokens`` and the held-out side.

    Raises:
        UserError: a side of the split is left without documents.
    """
    records, first = _collect(parts)
    part = np.repeat(np.arange(len(parts), dtype=np.int32), np.diff(first))
    disposition = np.full(len(records), TRAIN, np.uint8)
    order = np.lexsort((records["short"], records["order"]))  # stable: of equal texts the first met stays
    same = np.zeros(len(records), bool)
    ordered = records["short"][order]
    same[1:] = ordered[1:] == ordered[:-1]  # equal in both 64-bit hashes
    same[1:] &= np.diff(records["order"][order]) == 0
    disposition[order[same]] = DUPLICATE
    kept = order[~same]
    if max_tokens is not None:
        disposition[kept[np.cumsum(records["tokens"][kept], dtype=np.int64) > max_tokens]] = BEYOND
    _hold_out(records, disposition, split)
    index = Index(name, parts, records, part, first, disposition, _chat_of(parts))
    for side, rule in (
        (HELDOUT, "raise data.split.heldout_fraction or max_heldout_tokens"),
        (TRAIN, "lower data.split.heldout_fraction"),
    ):
        if not (disposition == side).any():
            usable = int(((disposition == TRAIN) | (disposition == HELDOUT)).sum())
            empty = "" if len(records) else " Every record, completion or assistant's message is empty."
            raise UserError(
                f"corpus {name}: of {usable} usable documents ({len(records)} read) none is on the "
                f"{DISPOSITIONS[side]} side; whole documents are held out, so give more documents or {rule}, now "
                f"{split.heldout_fraction} and {split.max_heldout_tokens}.{empty}"
            )
    return index


def _hold_out(records: np.ndarray, disposition: np.ndarray, split: SplitSpec) -> None:
    """Marks the documents with the smallest split keys, as far as the fraction and the cap on tokens reach."""
    candidates = np.flatnonzero((disposition == TRAIN) & below(records["split"], threshold(split.heldout_fraction)))
    candidates = candidates[np.argsort(records["split"][candidates], kind="stable")]
    if split.max_heldout_tokens is not None and len(candidates):
        size = np.cumsum(records["tokens"][candidates], dtype=np.int64)
        fits = int(np.searchsorted(size, split.max_heldout_tokens, side="right"))
        if fits < len(candidates):  # documents with one key (a group) stay together
            fits = int(np.searchsorted(records["split"][candidates], records["split"][candidates[fits]], side="left"))
        candidates = candidates[:fits]
    disposition[candidates] = HELDOUT
