"""Parts to shards: the documents of each side, in the order of their keys, gathered into files of bounded size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from indelible.data.index import DISPOSITIONS, Index
from indelible.data.parts import content_hex
from indelible.files import file_sha256

SHARD_TOKENS = 1 << 26  # tokens a shard, about: 128 MiB of uint16


def _spans(sizes: np.ndarray, limit: int) -> Iterator[slice]:
    """Cuts consecutive documents into runs of at most ``limit`` tokens (at least one document each)."""
    ends = np.cumsum(sizes, dtype=np.int64)
    first = 0
    while first < len(sizes):
        base = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, base + limit, side="right")))
        yield slice(first, last)
        first = last


def gather(index: Index, rows: np.ndarray, dtype: np.dtype[Any], ending: str = ".tokens.npy") -> np.ndarray:
    """The tokens of some documents, or what another file of the parts says of each, one after the other.

    Reads part after part; the documents of a part that are wanted together lie together in it.
    """
    sizes = index.records["tokens"][rows].astype(np.int64)
    targets = np.cumsum(sizes) - sizes
    out = np.empty(int(sizes.sum()), dtype)
    part_of = index.part[rows]
    by_part = np.argsort(part_of, kind="stable")
    borders = np.flatnonzero(np.diff(part_of[by_part])) + 1
    for group in np.split(by_part, borders):
        if not len(group):
            continue
        tokens = np.load(index.parts[part_of[group[0]]].with_suffix(ending), mmap_mode="r", allow_pickle=False)
        starts = index.records["start"][rows[group]].astype(np.int64)
        low, high = int(starts.min()), int((starts + sizes[group]).max())
        local = np.asarray(tokens[low:high])
        lengths = sizes[group]
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        out[np.repeat(targets[group], lengths) + within] = local[np.repeat(starts - low, lengths) + within]
    return out


def completion_mask(records: np.ndarray) -> np.ndarray:
    """Which tokens of consecutive documents belong to a completion (all of a document without prompt): bool."""
    ends = np.cumsum(records["tokens"], dtype=np.int64)
    starts = ends - records["tokens"]
    mask = np.ones(int(ends[-1]) if len(ends) else 0, bool)
    for start, size in zip(starts.tolist(), records["prompt_tokens"].tolist(), strict=True):
        mask[start : start + size] = False  # whole arrays of positions would take gigabytes
    return mask


def _document_table(records: np.ndarray, sources: list[str]) -> pl.DataFrame:
    sizes = records["tokens"].astype(np.int64)
    pairs = {"chosen_tokens": records["chosen_tokens"]} if (records["chosen_tokens"] > 0).any() else {}
    return pl.DataFrame(
        {
            "content": content_hex(records),
            "source": pl.Series([sources[number] for number in records["source"]], dtype=pl.String),
            "start": np.cumsum(sizes) - sizes,
            "tokens": records["tokens"],
            "prompt_tokens": records["prompt_tokens"],
            "bytes": records["bytes"],
            **pairs,
        }
    )


def write_shards(
    index: Index, side: int, sources: list[str], dtype: np.dtype[Any], folder: Path
) -> list[dict[str, Any]]:
    """Writes the shards of one side; returns the manifest's list of them."""
    has_mask = index.has_mask
    written = []
    rows = index.rows(side)
    for number, span in enumerate(_spans(index.records["tokens"][rows], SHARD_TOKENS)):
        chosen = rows[span]
        records = index.records[chosen]
        stem = folder / f"{DISPOSITIONS[side]}-{number:05d}"
        tokens = gather(index, chosen, dtype)
        np.save(stem.with_suffix(".npy"), tokens, allow_pickle=False)
        files = [stem.with_suffix(".npy")]
        if has_mask:
            is_chat = index.chat is not None
            mask = gather(index, chosen, np.dtype(np.uint8), ".mask.npy") if is_chat else completion_mask(records)
            np.save(stem.with_suffix(".mask.npy"), mask, allow_pickle=False)
            files.append(stem.with_suffix(".mask.npy"))
        _document_table(records, sources).write_parquet(stem.with_suffix(".documents.parquet"))
        files.append(stem.with_suffix(".documents.parquet"))
        written.append(
            {
                "tokens": len(tokens),
                "documents": len(records),
                "bytes": int(records["bytes"].sum(dtype=np.int64)),
                "completion_tokens": len(tokens) - int(records["prompt_tokens"].sum(dtype=np.int64)),
                "files": [{"name": f.name, "bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in files],
            }
        )
    return written
