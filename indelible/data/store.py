"""A token store: shards of tokens with a manifest, read in windows. docs/token-store.md describes the files."""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np

from indelible.data.manifest_file import read_manifest
from indelible.data.pairs import PairTable
from indelible.data.row_plan import RowPlan, plan_rows
from indelible.errors import UserError
from indelible.files import file_sha256


class _Split:
    """The shards of one side, opened as memory maps."""

    def __init__(self, folder: Path, shards: list[dict[str, Any]], has_mask: bool) -> None:
        self.tokens: list[np.ndarray] = []
        self.masks: list[np.ndarray] = []
        for shard in shards:
            self.tokens.append(_open_array(folder / shard["files"][0]["name"], shard["tokens"]))
            if has_mask:
                self.masks.append(_open_array(folder / shard["files"][1]["name"], shard["tokens"]))
        self.folder, self.shards = folder, shards
        self.sizes = np.array([shard["tokens"] for shard in shards], np.int64)
        self.bytes = sum(shard["bytes"] for shard in shards)

    @functools.cached_property
    def document_starts(self) -> list[np.ndarray]:
        """For each shard the first token of each of its documents: int64, rising from 0."""
        return [_document_starts(self.folder, shard) for shard in self.shards]

    @functools.cached_property
    def documents_before(self) -> np.ndarray:
        """Documents in front of each shard, and in all: int64 (shards + 1,)."""
        return np.cumsum([0, *map(len, self.document_starts)])

    @functools.cached_property
    def document_sizes(self) -> np.ndarray:
        """Tokens of each document, all shards together: int64 (documents,)."""
        ends = [np.append(starts[1:], size) for starts, size in zip(self.document_starts, self.sizes, strict=True)]
        sizes = [end - starts for end, starts in zip(ends, self.document_starts, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *sizes])

    def windows_before(self, seq_len: int) -> np.ndarray:
        """Windows in front of each shard, and in all: int64 (shards + 1,)."""
        return np.concatenate([[0], np.cumsum(np.maximum(self.sizes - 1, 0) // seq_len)])


def _open_array(path: Path, size: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:  # of the size that the manifest says, and no array
        raise UserError(f"{path}: cannot be read ({error}); delete the store and run again.") from None
    if array.shape != (size,):
        raise UserError(f"{path}: {array.shape} values where the manifest says {size}; delete the store and run again.")
    return np.asarray(array)  # a plain view of the mapping: indexing a memmap object is three times slower


def _document_table(folder: Path, shard: dict[str, Any]) -> Path:
    """The table of a shard's documents, beside it."""
    name = next((file["name"] for file in shard["files"] if file["name"].endswith(".documents.parquet")), None)
    if name is None:
        raise UserError(f"{folder}: its manifest names no table of documents; delete the store and run again.")
    return folder / name


def _document_starts(folder: Path, shard: dict[str, Any]) -> np.ndarray:
    """The first token of each document of a shard: int64."""
    import pyarrow.parquet as pq  # only evaluation needs it

    path = _document_table(folder, shard)
    try:
        return pq.read_table(path, columns=["start"])["start"].to_numpy().astype(np.int64)
    except (OSError, ValueError, KeyError) as error:  # of the size that the manifest says, and no such table
        raise UserError(f"{path}: cannot be read ({error}); delete the store and run again.") from None


class TokenStore:
    """The tokens of one corpus, both sides of the held-out split.

    Attributes:
        manifest: counts, sources, licences, hashes and fingerprint, as in ``manifest.json``.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.has_mask: bool = manifest["has_mask"]
        self.has_pairs: bool = manifest.get("has_pairs", False)  # documents are pairs of answers, not text for windows
        self._splits = {name: _Split(folder, shards, self.has_mask) for name, shards in manifest["shards"].items()}
        self._offsets: dict[tuple[str, int], np.ndarray] = {}
        self._ranges: dict[int, np.ndarray] = {}
        self._plans: dict[tuple[str, int, str, str], RowPlan] = {}
        self._pairs: dict[str, PairTable] = {}

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> "TokenStore":
        """Opens a store.

        Args:
            verify: read every file and compare its hash; without it only names and sizes are compared.

        Raises:
            UserError: it is not a store, or a file of it is missing or changed.
        """
        if not (folder / "manifest.json").exists():
            raise UserError(
                f"{folder}: no token store here (manifest.json is missing); run the command again to make it."
            )
        manifest = read_manifest(folder)
        if not folder.name.endswith(manifest["fingerprint"][:12]):
            raise UserError(f"{folder}: its manifest is that of fingerprint {manifest['fingerprint'][:12]}; delete it.")
        for file in (file for shards in manifest["shards"].values() for shard in shards for file in shard["files"]):
            path = folder / file["name"]
            if not path.is_file() or path.stat().st_size != file["bytes"]:
                found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
                raise UserError(f"{path}: found {found}, the manifest says {file['bytes']} bytes; delete the store.")
            if verify and file_sha256(path) != file["sha256"]:
                raise UserError(f"{path}: its content is not what the manifest's sha256 says; delete the store.")
        return cls(folder, manifest)

    def left_out(self) -> str:
        """One sentence on the text that was read and is in neither split, empty if there is none."""
        parts = []
        for disposition, sums in self.manifest["fates"].items():
            if sums["tokens"] and disposition not in self._splits:
                is_sampled = disposition.startswith("beyond")  # beyond max_tokens only a sample was read: no number
                parts.append(disposition if is_sampled else f"{sums['tokens']:,} tokens as {disposition}")
        return f" Left out of what was read: {', '.join(parts)} (docs/token-store.md)." if parts else ""

    def document_tables(self, split: str) -> list[Path]:
        """The Parquet files with the documents of a side, shard by shard: docs/token-store.md has the columns.

        Raises:
            UserError: the store has none.
        """
        return [_document_table(self.folder, shard) for shard in self._splits[split].shards]

    def num_tokens(self, split: str) -> int:
        """Tokens of a side (``train`` or ``heldout``), end-of-text tokens included."""
        return int(self._splits[split].sizes.sum())

    def num_windows(self, split: str, seq_len: int) -> int:
        """Windows of ``seq_len`` predicted tokens; none crosses a shard's border. Of pairs: those that fit."""
        if self.has_pairs:
            return len(self.pairs(split).fitting(seq_len))
        return int(self._before(split, seq_len)[-1])

    def pairs(self, split: str) -> PairTable:
        """The pairs of a side of a store of pairs."""
        assert self.has_pairs, f"{self.folder} holds text, not pairs"
        if split not in self._pairs:
            data = self._splits[split]
            parts = data.masks if "chat" in self.manifest else None  # other pairs train on all of an answer
            self._pairs[split] = PairTable(self.document_tables(split), data.tokens, parts)
        return self._pairs[split]

    def bytes_per_token(self, split: str) -> float:
        """UTF-8 bytes of text a token, end-of-text tokens counted: turns nats per token into bits per byte."""
        return self._splits[split].bytes / self.num_tokens(split)

    def document(self, split: str, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The tokens of a document, and of a store with prompts or conversations its mask; views, not copies.

        Args:
            split: ``train`` or ``heldout``.
            number: of the document, counted through the split.
        """
        data = self._splits[split]
        shard = int(np.searchsorted(data.documents_before, number, side="right")) - 1
        start = int(data.document_starts[shard][number - data.documents_before[shard]])
        here = slice(start, start + int(data.document_sizes[number]))
        return data.tokens[shard][here], data.masks[shard][here] if self.has_mask else None

    def masks(self, split: str) -> list[np.ndarray]:
        """The masks of a side, shard by shard; empty in a store without prompts or conversations."""
        return self._splits[split].masks

    def row_plan(
        self,
        split: str,
        seq_len: int,
        packing: Literal["documents", "best_fit"],
        too_long: Literal["error", "drop", "cut"],
    ) -> RowPlan:
        """Which documents stand in which row, where documents stay whole.

        Raises:
            UserError: a document is longer than a row, and ``too_long`` is `error`.
        """
        key = (split, seq_len, packing, too_long)
        if key not in self._plans:
            plan = plan_rows(self._splits[split].document_sizes, seq_len, packing, too_long)
            if plan.too_long and too_long == "error":
                where = f"corpora.{self.manifest['corpus']}"
                raise UserError(
                    f"{where}.packing = {packing}: {plan.too_long:,} of its {plan.documents:,} {split} documents are "
                    f"longer than seq_len + 1 = {seq_len + 1} tokens (the longest has {plan.longest:,}), and none may "
                    f"be divided; raise seq_len, or say {where}.too_long: drop to leave them out, or cut to train on "
                    "their first tokens."
                )
            self._plans[key] = plan
        return self._plans[key]

    def _before(self, split: str, seq_len: int) -> np.ndarray:
        key = (split, seq_len)
        if key not in self._offsets:
            self._offsets[key] = self._splits[split].windows_before(seq_len)
        return self._offsets[key]

    def _checked(self, split: str, windows: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
        """Window numbers as int64, each found to be in the split; and the windows in front of each shard."""
        before = self._before(split, seq_len)
        windows = np.asarray(windows, np.int64)
        if len(windows) and not 0 <= int(windows.min()) <= int(windows.max()) < before[-1]:
            raise IndexError(f"windows {windows.min()}..{windows.max()} of {split}, which has {before[-1]}")
        return windows, before

    def read(self, split: str, windows: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads windows by number.

        Window i of a shard covers its tokens [i x seq_len, i x seq_len + seq_len], both ends included: inputs are all
        but the last, targets all but the first, so that every token is predicted at most once.

        Args:
            windows: int64 (N,), each below `num_windows`.

        Returns:
            Tokens int64 (N, seq_len + 1), and for stores with prompts bool (N, seq_len): the targets that belong to a
            completion; for stores of conversations uint8, the bits of `indelible.data.chat`; else None.
        """
        assert not self.has_pairs, f"{self.folder} holds pairs, which are no windows"
        windows, before = self._checked(split, windows, seq_len)
        if seq_len not in self._ranges:
            self._ranges[seq_len] = np.arange(seq_len + 1)
        data, offsets = self._splits[split], self._ranges[seq_len]
        if len(data.tokens) == 1:
            places = (windows * seq_len)[:, None] + offsets
            mask = data.masks[0][places[:, 1:]] if self.has_mask else None
            return data.tokens[0][places].astype(np.int64), mask
        tokens = np.empty((len(windows), seq_len + 1), np.int64)
        mask = np.empty((len(windows), seq_len), data.masks[0].dtype) if self.has_mask else None
        shard_of = np.searchsorted(before, windows, side="right") - 1
        for shard in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == shard)
            places = ((windows[chosen] - before[shard]) * seq_len)[:, None] + offsets
            tokens[chosen] = data.tokens[shard][places]
            if mask is not None:
                mask[chosen] = data.masks[shard][places[:, 1:]]
        return tokens, mask

    def target_documents(self, split: str, windows: np.ndarray, seq_len: int) -> np.ndarray:
        """The document that each target of some windows belongs to.

        Args:
            split: ``train`` or ``heldout``.
            windows: int64 (N,), each below `num_windows`.
            seq_len: predicted tokens a window.

        Returns:
            int64 (N, seq_len): the number of the document, counted through the split. A document's end-of-text token
            is its own.

        Raises:
            UserError: the store has no table of documents.
        """
        windows, before = self._checked(split, windows, seq_len)
        data = self._splits[split]
        documents = np.empty((len(windows), seq_len), np.int64)
        shard_of = np.searchsorted(before, windows, side="right") - 1
        for shard in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == shard)
            places = ((windows[chosen] - before[shard]) * seq_len)[:, None] + np.arange(1, seq_len + 1)
            found = np.searchsorted(data.document_starts[shard], places, side="right") - 1
            documents[chosen] = data.documents_before[shard] + found
        return documents
