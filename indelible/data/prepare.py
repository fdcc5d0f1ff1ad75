"""Makes the token stores of a study: fetch, tokenizer, tokenise, split, leak check, shards."""

import shutil
from itertools import chain
from pathlib import Path

from indelible.corpora import provenance
from indelible.data.evaluation_corpora import prepare_evaluation_corpus
from indelible.data.fingerprint import Fingerprints, evaluation_fingerprint, fingerprints
from indelible.data.index import TRAIN, Index
from indelible.data.leaks import check_leaks
from indelible.data.parts import Pool
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
from indelible.data.survey import Survey, is_streamed, training_texts
from indelible.data.tokenizer import TokenizerInfo, copy_hf, open_tokenizer, train_bpe
from indelible.errors import UserError
from indelible.study.corpus_spec import BpeTokenizer, DataSpec, LocalCorpus
from indelible.study.load import Study

__all__ = ["Fingerprints", "evaluation_fingerprint", "fingerprints", "prepare", "prepare_study", "silent"]


def silent(what: str, done: float) -> None:
    """Reports no progress."""


def prepare_study(study: Study, tokens_dir: Path, cache_dir: Path, progress: Progress = silent) -> None:
    """Makes every missing store of a study and its tokenizer: `prepare`, then the corpora that are only evaluated on.

    Args:
        study: the study.
        tokens_dir: where the stores are put, under the names that `study_stores` gives.
        cache_dir: of fetched text.
        progress: called with what is being done and which share of it (0 to 1) is.

    Raises:
        UserError: text cannot be fetched or read, or a corpus is too small to be split.
    """
    prepare(study.data, tokens_dir, cache_dir, progress)
    for corpus in study.evaluation_corpora:
        prepare_evaluation_corpus(corpus, study.evaluation_data(corpus), study.data, tokens_dir, cache_dir, progress)


def prepare(data: DataSpec, tokens_dir: Path, cache_dir: Path, progress: Progress = silent) -> None:
    """Makes every missing store of the corpora that are trained on, and the tokenizer, under ``tokens_dir``.

    Doing it again does nothing. Of two processes at once one works and the other waits. A killed run is taken up where
    it was: parts that were written are not made again.

    Args:
        data: the corpora and what becomes of them.
        tokens_dir: where the stores are put.
        cache_dir: of fetched text.
        progress: called with what is being done and which share of it (0 to 1) is.

    Raises:
        UserError: text cannot be fetched or read, or a corpus is too small to be split.
    """
    _refuse_text_below(data, tokens_dir.parent)
    names = fingerprints(data, cache_dir)
    tokens_dir.mkdir(parents=True, exist_ok=True)
    if not _missing(names, tokens_dir):
        return
    with preparation_lock(tokens_dir):
        missing = _missing(names, tokens_dir)
        if missing:
            job = StoreJob(
                data,
                lambda: fingerprints(data, cache_dir).stores,
                names.stores,
                tokens_dir,
                cache_dir,
                work_folder(tokens_dir, names.stores.values()),
                progress,
            )
            _make(job, tokens_dir / names.tokenizer_folder, missing)
            clear_work(tokens_dir)


def _missing(names: Fingerprints, tokens_dir: Path) -> list[str]:
    """Corpora without a finished store; all of them if the tokenizer is gone."""
    if not (tokens_dir / names.tokenizer_folder / "indelible.json").exists():
        return list(names.stores)
    return [name for name in names.stores if not (tokens_dir / names.store_folder(name) / "manifest.json").exists()]


def _refuse_text_below(data: DataSpec, out: Path) -> None:
    """Raises if a corpus is the very folder that is written to: the next run would read what this one wrote."""
    for name, spec in data.corpora.items():
        if isinstance(spec, LocalCorpus) and any(Path(path).resolve() == out.resolve() for path in spec.path):
            raise UserError(f"{out} is also the folder of corpus {name}; choose another --out.")


def _files_of_others(name: str, job: StoreJob) -> str:
    """A sentence on the files that the other corpora are read from: a copy among them is the usual reason."""
    files = {
        other: [entry[1] for entry in provenance(spec, job.cache_dir)["files"]]
        for other, spec in job.data.corpora.items()
        if other != name and isinstance(spec, LocalCorpus)
    }
    shown = [f"{other} from {', '.join(names[:3])}{' ...' * (len(names) > 3)}" for other, names in files.items()]
    return f" Read are {'; '.join(shown)}." if shown else ""


def _make(job: StoreJob, tokenizer_folder: Path, missing: list[str]) -> None:
    data, progress = job.data, job.progress
    surveys: dict[str, Survey | None] = {}
    is_trained = isinstance(data.tokenizer, BpeTokenizer)
    for number, (name, spec) in enumerate(data.corpora.items()):
        progress(f"reading {name}", number / len(data.corpora))
        look = not is_streamed(spec) and (is_trained or spec.max_tokens is not None)
        surveys[name] = Survey(spec, job.cache_dir, data.split) if look else None
    tokenizer = _make_tokenizer(job, tokenizer_folder, surveys)
    indexes: dict[str, Index] = {}
    licences: dict[str, dict[str, str]] = {}
    with Pool() as pool:
        for name in data.corpora:
            indexes[name], licences[name] = tokenise(job, name, surveys[name], tokenizer, pool)
    job.refuse_changes()
    progress("leak check", 0.0)
    found = check_leaks(data, indexes, {name: list(licences[name]) for name in indexes})
    advice = "give it text of its own, or set data.leaks.remove: false to train on copies."
    for index in indexes.values():
        refuse_emptied(index, found[index.name], TRAIN, advice + _files_of_others(index.name, job))
    for number, name in enumerate(missing):
        progress(f"writing {name}", number / len(missing))
        write_store(job, indexes[name], licences[name], tokenizer, found[name])
    progress("tokens ready", 1.0)


def _make_tokenizer(job: StoreJob, folder: Path, surveys: dict[str, Survey | None]) -> TokenizerInfo:
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
