"""Corpora that are only evaluated on: a store of the held-out side, made after the study's own and apart from them.

Nothing that is trained on depends on such a corpus, so that adding one to a finished study trains nothing again. Its
text is cut by the study's tokenizer, and held-out documents that a stage may have trained on are left out.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indelible.data.fingerprint import evaluation_fingerprint, fingerprints
from indelible.data.index import DISPOSITIONS, EXACT_LEAK, HELDOUT, TRAIN, Index
from indelible.data.leaks import Leaks
from indelible.data.parts import Pool, content_hex
from indelible.data.store import TokenStore
from indelible.data.store_job import (
    Progress,
    StoreJob,
    clear_work,
    preparation_lock,
    refuse_emptied,
    tokenise,
    work_folder,
    write_store,
)
from indelible.data.survey import Survey, is_streamed
from indelible.data.tokenizer import open_tokenizer
from indelible.study.corpus_spec import DataSpec

_METHOD = "content hash"  # signatures of what was trained on are not kept, so near duplicates are not searched for


def prepare_evaluation_corpus(
    corpus: str, data: DataSpec, trained: DataSpec, tokens_dir: Path, cache_dir: Path, progress: Progress
) -> None:
    """Makes the store of a corpus that is only evaluated on, if it is missing.

    Args:
        corpus: its name.
        data: what decides its tokens, but for the tokenizer, which is that of ``trained``.
        trained: the corpora of the study that are trained on, whose stores exist.
        tokens_dir: folder of the stores.
        cache_dir: of fetched text.
        progress: called with what is being done and which share of it (0 to 1) is.

    Raises:
        UserError: text cannot be fetched or read, or no held-out document is left.
    """
    names = fingerprints(trained, cache_dir)

    def identify() -> dict[str, str]:
        return {corpus: evaluation_fingerprint(corpus, data, fingerprints(trained, cache_dir), cache_dir)}

    digests = {corpus: evaluation_fingerprint(corpus, data, names, cache_dir)}
    manifest = tokens_dir / f"{corpus}-{digests[corpus][:12]}" / "manifest.json"
    if manifest.exists():
        return
    with preparation_lock(tokens_dir):
        if manifest.exists():  # another process made it
            return
        exact_only = data.model_copy(update={"leaks": data.leaks.model_copy(update={"near": False})})
        work = work_folder(tokens_dir, digests.values())
        job = StoreJob(exact_only, identify, digests, tokens_dir, cache_dir, work, progress)
        _make(job, corpus, tokens_dir / names.tokenizer_folder, {c: names.store_folder(c) for c in names.stores})
        clear_work(tokens_dir)


def _make(job: StoreJob, corpus: str, tokenizer_folder: Path, trained: Mapping[str, str]) -> None:
    spec = job.data.corpora[corpus]
    job.progress(f"reading {corpus}", 0.0)
    tokenizer = open_tokenizer(tokenizer_folder)
    look = not is_streamed(spec) and spec.max_tokens is not None
    survey = Survey(spec, job.cache_dir, job.data.split) if look else None
    with Pool() as pool:
        index, licences = tokenise(job, corpus, survey, tokenizer, pool)
    job.refuse_changes()
    stores = {name: TokenStore.open(job.tokens_dir / folder) for name, folder in trained.items()}
    found = trained_copies(index, list(licences), stores, remove=job.data.leaks.remove)
    advice = "give it text that the study does not train on, or set data.leaks.remove: false to evaluate on copies."
    refuse_emptied(index, found, HELDOUT, advice)
    job.progress(f"writing {corpus}", 0.0)
    write_store(job, index, licences, tokenizer, found, sides=(HELDOUT,))
    job.progress("tokens ready", 1.0)


def trained_copies(index: Index, sources: list[str], stores: Mapping[str, TokenStore], *, remove: bool) -> Leaks:
    """Finds held-out documents that equal a training document of another store.

    Args:
        index: the documents of the corpus; those found become exact leaks if ``remove``.
        sources: names of its sources, by their numbers.
        stores: the stores that are trained on, by corpus.
        remove: leave them out.

    Returns:
        What was found, each document once.
    """
    leaks = Leaks(method=_METHOD)
    rows = index.rows(HELDOUT)
    hashes = content_hex(index.records[rows])
    row_of = dict(zip(hashes, rows.tolist(), strict=True))
    for corpus, store in stores.items():
        for content, source in _documents_among(store, hashes):
            row = row_of.pop(content, None)  # found once, whatever else holds it
            if row is None:
                continue
            entry = {
                "kind": DISPOSITIONS[EXACT_LEAK],
                "similarity": 1.0,
                "document": content,
                "source": sources[index.records["source"][row]],
                "of": content,
                "of_corpus": corpus,
                "of_split": DISPOSITIONS[TRAIN],
                "of_source": source,
            }
            leaks.add(f"{entry['kind']} of {corpus} {entry['of_split']}", int(index.records["tokens"][row]), entry)
            if remove:
                index.disposition[row] = EXACT_LEAK
    return leaks


def _documents_among(store: TokenStore, hashes: list[str]) -> Iterator[tuple[str, str]]:
    """Content hash and source of the training documents of a store whose hash is among some, shard by shard."""
    for path in store.document_tables("train"):
        table = pq.read_table(path, columns=["content", "source"])
        found = table.filter(pc.is_in(table["content"], value_set=pa.array(hashes, table["content"].type)))
        yield from zip(found["content"].to_pylist(), found["source"].to_pylist(), strict=True)
