"""Makes the token stores of a study: fetch, tokenizer, tokenise, split, leak check, shards."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from indelible.corpora import documents, provenance
from indelible.data.fingerprint import Fingerprints, fingerprints
from indelible.data.index import TRAIN, Index, build_index
from indelible.data.leaks import Leaks, check_leaks
from indelible.data.manifest import write_manifest
from indelible.data.parts import EncodeSettings, Pool, encode_documents
from indelible.data.shards import write_shards
from indelible.data.split import FULL_RANGE
from indelible.data.survey import Survey, bytes_a_token, is_streamed, sampled, training_texts
from indelible.data.tokenizer import TokenizerInfo, copy_hf, load_fast, open_tokenizer, train_bpe
from indelible.errors import UserError
from indelible.study.corpus_spec import BpeTokenizer, DataSpec

__all__ = ["Fingerprints", "fingerprints", "prepare"]
Progress = Callable[[str, float], None]


def prepare(data: DataSpec, tokens_dir: Path, cache_dir: Path, progress: Progress = lambda what, done: None) -> None:
    """Makes every missing store and the tokenizer under ``tokens_dir``.

    Doing it again does nothing. Of two processes at once one works and the other waits. A killed run is taken up where
    it was: parts that were written are not made again.

    Args:
        progress: called with what is being done and which share of it (0 to 1) is.

    Raises:
        UserError: text cannot be fetched or read, or a corpus is too small to be split.
    """
    names = fingerprints(data, cache_dir)
    tokens_dir.mkdir(parents=True, exist_ok=True)
    if not _missing(names, tokens_dir):
        return
    with _lock(tokens_dir / ".prepare.lock"):
        missing = _missing(names, tokens_dir)
        if missing:
            work = tokens_dir / f".work-{'-'.join(sorted(digest[:6] for digest in names.stores.values()))}"
            job = _Job(data, names, tokens_dir, cache_dir, work, progress)
            _make(job, missing)
            for left in tokens_dir.glob(".work-*"):  # this one, and what killed runs of other settings left
                shutil.rmtree(left)


@dataclass(frozen=True)
class _Job:
    """What every step of one preparation needs."""

    data: DataSpec
    names: Fingerprints
    tokens_dir: Path
    cache_dir: Path
    work: Path  # parts, until the stores are made
    progress: Progress

    def refuse_changes(self) -> None:
        """Raises if what was read may not be what the fingerprints stand for."""
        if fingerprints(self.data, self.cache_dir) != self.names:
            shutil.rmtree(self.work, ignore_errors=True)
            corpora = ", ".join(self.data.corpora)
            raise UserError(f"the files of {corpora} changed while they were read; run the command again.")


def _missing(names: Fingerprints, tokens_dir: Path) -> list[str]:
    """Corpora without a finished store; all of them if the tokenizer is gone."""
    if not (tokens_dir / names.tokenizer_folder / "indelible.json").exists():
        return list(names.stores)
    return [name for name in names.stores if not (tokens_dir / names.store_folder(name) / "manifest.json").exists()]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds a file lock; the system lets it go when the process ends, however it ends."""
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(job: _Job, missing: list[str]) -> None:
    data, progress = job.data, job.progress
    surveys: dict[str, Survey | None] = {}
    is_trained = isinstance(data.tokenizer, BpeTokenizer)
    for number, (name, spec) in enumerate(data.corpora.items()):
        progress(f"reading {name}", number / len(data.corpora))
        look = not is_streamed(spec) and (is_trained or spec.max_tokens is not None)
        surveys[name] = Survey(spec, job.cache_dir, data.split) if look else None
    tokenizer = _make_tokenizer(job, surveys)
    indexes: dict[str, Index] = {}
    licences: dict[str, dict[str, str]] = {}
    with Pool() as pool:
        for name in data.corpora:
            indexes[name], licences[name] = _tokenise(job, name, surveys[name], tokenizer, pool)
    job.refuse_changes()
    progress("leak check", 0.0)
    found = check_leaks(data, indexes, {name: list(licences[name]) for name in indexes})
    for index in indexes.values():
        _refuse_emptied(index, found[index.name])
    for number, name in enumerate(missing):
        progress(f"writing {name}", number / len(missing))
        _write_store(job, indexes[name], licences[name], tokenizer, found[name])
    progress("tokens ready", 1.0)


def _make_tokenizer(job: _Job, surveys: dict[str, Survey | None]) -> TokenizerInfo:
    folder = job.tokens_dir / job.names.tokenizer_folder
    if not (folder / "indelible.json").exists():
        job.progress("tokenizer", 0.0)
        aside = folder.with_name(f".new-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        spec, split = job.data.tokenizer, job.data.split
        if isinstance(spec, BpeTokenizer):
            size = spec.sample_bytes
            corpora = job.data.corpora.items()
            texts = (training_texts(corpus, job.cache_dir, split, surveys[name], size) for name, corpus in corpora)
            train_bpe(spec, chain.from_iterable(texts), aside)
        else:
            copy_hf(spec, aside)
        job.refuse_changes()
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    return open_tokenizer(folder)


def _tokenise(
    job: _Job, name: str, survey: Survey | None, tokenizer: TokenizerInfo, pool: Pool
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
        total = int(index.facts["tokens"].sum(dtype="int64"))
        if bound >= FULL_RANGE or limit is None or total > limit:
            return index, licences
        share *= 1.5  # the probe was not like the whole: take a larger sample, of which the smaller one is a prefix


def _refuse_emptied(index: Index, leaks: Leaks) -> None:
    if not (index.fate == TRAIN).any():
        counts = ", ".join(f"{count:,} {label}" for label, count in leaks.counts.items())
        raise UserError(
            f"corpus {index.name}: the leak check found every training document in other splits ({counts}), so none is "
            "left; give it text of its own, or set data.leaks.remove: false to train on copies."
        )


def _write_store(job: _Job, index: Index, licences: dict[str, str], tokenizer: TokenizerInfo, leaks: Leaks) -> None:
    """Writes a store aside and renames the whole folder."""
    name = index.name
    aside = job.work / f"store-{name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    leaks.write(aside / "leaks.jsonl")
    write_manifest(
        aside,
        job.data,
        index,
        fingerprint=job.names.stores[name],
        tokenizer=tokenizer,
        licences=licences,
        leaks=leaks,
        provenance=provenance(job.data.corpora[name], job.cache_dir),
        shards=write_shards(index, list(licences), tokenizer.dtype, aside),
    )
    folder = job.tokens_dir / job.names.store_folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
