"""One preparation of token stores: what its steps share, and the steps from documents to a store's folder."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.corpora import documents, provenance
from indelible.data.folder_lock import folder_lock
from indelible.data.index import DISPOSITIONS, HELDOUT, TRAIN, Index, build_index
from indelible.data.leaks import Leaks
from indelible.data.manifest import write_manifest
from indelible.data.parts import EncodeSettings, Pool, encode_documents
from indelible.data.shards import write_shards
from indelible.data.split import FULL_RANGE
from indelible.data.survey import Survey, bytes_a_token, sampled
from indelible.data.tokenizer import TokenizerInfo, load_fast
from indelible.errors import UserError
from indelible.study.corpus_spec import DataSpec

Progress = Callable[[str, float], None]  # what is being done, and which share of it (0 to 1) is


@dataclass(frozen=True)
class StoreJob:
    """What every step of one preparation needs."""

    data: DataSpec
    identify: Callable[[], dict[str, str]]  # the fingerprint of each store, from the recipes as they are now
    fingerprints: dict[str, str]  # those that the stores are made for: corpus to 64 hex digits
    tokens_dir: Path
    cache_dir: Path
    work: Path  # parts, until the stores are made
    progress: Progress

    def refuse_changes(self) -> None:
        """Raises if what was read may not be what the fingerprints stand for."""
        if self.identify() != self.fingerprints:
            shutil.rmtree(self.work, ignore_errors=True)
            corpora = ", ".join(self.data.corpora)
            raise UserError(f"the files of {corpora} changed while they were read; run the command again.")


@contextmanager
def preparation_lock(tokens_dir: Path) -> Iterator[None]:
    """Lets one process at a time work in a tokens folder."""
    with folder_lock(tokens_dir / ".prepare.lock"):
        yield


def work_folder(tokens_dir: Path, digests: Iterable[str]) -> Path:
    """Where parts lie until the stores of these fingerprints are made."""
    return tokens_dir / f".work-{'-'.join(sorted(digest[:6] for digest in digests))}"


def clear_work(tokens_dir: Path) -> None:
    """Removes the parts of this preparation, and what killed runs of other settings left."""
    for left in tokens_dir.glob(".work-*"):
        shutil.rmtree(left)


def tokenise(
    job: StoreJob, name: str, survey: Survey | None, tokenizer: TokenizerInfo, pool: Pool
) -> tuple[Index, dict[str, str]]:
    """Tokenises as much of a corpus as its ``max_tokens`` needs; returns its index and its sources' licences."""
    spec, seed = job.data.corpora[name], job.data.split.seed
    settings = EncodeSettings(tokenizer, seed, job.data.leaks.near)
    limit, share = spec.max_tokens, 0.0
    if survey is not None and limit is not None:
        share = bytes_a_token(survey, spec, job.cache_dir, seed, load_fast(tokenizer.path))
    while True:
        bound = FULL_RANGE if survey is None or limit is None else survey.bound(round(limit * share))
        whole = survey.bytes_below(bound) if survey is not None else 0

        def report(tokens: int, chars: int, whole: int = whole) -> None:
            done = chars / whole if whole else tokens / limit if limit else 0.0
            job.progress(f"tokenising {name}: {tokens / 1e6:,.1f} M tokens", min(done, 1.0))

        parts, licences = encode_documents(
            sampled(documents(spec, job.cache_dir), bound, seed),
            job.work / name / f"{bound:x}",
            settings,
            pool,
            enough_tokens=limit if survey is None else None,
            progress=report,
        )
        index = build_index(name, parts, job.data.split, limit)
        total = int(index.records["tokens"].sum(dtype="int64"))
        if bound >= FULL_RANGE or limit is None or total > limit:
            return index, licences
        share *= 1.5  # the probe was not like the whole: take a larger sample, of which the smaller one is a prefix


def refuse_emptied(index: Index, leaks: Leaks, side: int, advice: str) -> None:
    """Raises if the leak check left no document on one side of a corpus."""
    if not (index.disposition == side).any():
        counts = ", ".join(f"{count:,} {label}" for label, count in leaks.counts.items())
        what = {TRAIN: "training", HELDOUT: "held-out"}[side]
        raise UserError(
            f"corpus {index.name}: the leak check found every {what} document in other splits ({counts}), so none is "
            f"left; {advice}"
        )


def write_store(
    job: StoreJob,
    index: Index,
    licences: dict[str, str],
    tokenizer: TokenizerInfo,
    leaks: Leaks,
    sides: tuple[int, ...] = (TRAIN, HELDOUT),
) -> None:
    """Writes a store beside its place and renames the whole folder.

    Args:
        job: the preparation.
        index: the documents of the corpus, with what becomes of each.
        licences: of every source, in the order of their numbers.
        tokenizer: that they were tokenised with.
        leaks: what the leak check found.
        sides: of the split that are written; the manifest lists no shard of another side.
    """
    name = index.name
    aside = job.work / f"store-{name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    leaks.write(aside / "leaks.jsonl")
    shards: dict[str, list[dict[str, Any]]] = {DISPOSITIONS[side]: [] for side in (TRAIN, HELDOUT)} | {
        DISPOSITIONS[side]: write_shards(index, side, list(licences), tokenizer.dtype, aside) for side in sides
    }
    write_manifest(
        aside,
        job.data,
        index,
        fingerprint=job.fingerprints[name],
        tokenizer=tokenizer,
        licences=licences,
        leaks=leaks,
        provenance=provenance(job.data.corpora[name], job.cache_dir),
        shards=shards,
    )
    folder = job.tokens_dir / f"{name}-{job.fingerprints[name][:12]}"
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
