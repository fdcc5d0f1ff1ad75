"""Data sets of the Hugging Face hub, streamed, at a pinned revision; and folders laid out like one."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from indelible.corpora.catalog import HUB
from indelible.corpora.document import Document
from indelible.corpora.fields import document_of, missing_column, template_recipe, wanted_columns
from indelible.corpora.listing import list_files
from indelible.errors import UserError
from indelible.files import read_as, write_json
from indelible.study.corpus_spec import CatalogueCorpus, HubCorpus, LocalCorpus, text_recipe

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PINS = TypeAdapter(dict[str, str])


def from_catalogue(spec: CatalogueCorpus) -> HubCorpus:
    """The hub corpus behind a catalogue entry.

    Raises:
        UserError: there is no such entry.
    """
    if spec.name not in HUB:
        raise UserError(f"no catalogue entry {spec.name!r}; there are {', '.join(HUB)}.")
    entry = HUB[spec.name]
    return HubCorpus(
        id=entry.id,
        config=spec.config or entry.config,
        revision=spec.revision,
        text_column=entry.text_column,
        prompt_column=entry.prompt_column,
        completion_column=entry.completion_column,
        source_column=entry.source_column,
        licence=entry.licence,
        filter=spec.filter,
        max_tokens=spec.max_tokens,
    )


def is_folder(spec: HubCorpus) -> bool:
    """True if the id is the path of a folder."""
    return spec.id.startswith((".", "/"))


def _folder_files(spec: HubCorpus, cache_dir: Path) -> list[list[str]]:
    listing = LocalCorpus(path=spec.id, format="text", odd_files="skip")  # any file counts
    return [[name, sha256] for _, name, _, sha256 in list_files(listing, cache_dir)]


def _met_commit(spec: HubCorpus, cache_dir: Path) -> str:
    """The commit that the revision stands for now: asked of the hub, or the hash of a folder's files."""
    if is_folder(spec):
        return hashlib.sha256(json.dumps(_folder_files(spec, cache_dir)).encode()).hexdigest()[:40]
    if _COMMIT.fullmatch(spec.revision):
        return spec.revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(spec.id, revision=spec.revision).sha
    except Exception as error:  # the hub's client raises a dozen kinds, all of them mean the same to the user
        raise _unreachable(spec, error) from None
    assert commit is not None
    return commit


def _reason(error: Exception) -> str:
    """The first line of what a library says, or the error's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _unreachable(spec: HubCorpus, error: Exception) -> UserError:
    place = f"{spec.id}{f' ({spec.config})' if spec.config else ''}, split {spec.split}, revision {spec.revision}"
    return UserError(
        f"data set {place} could not be opened: {_reason(error)}. Check id, config, split and revision and that this "
        "machine reaches the hub; the offline corpora (kind: offline) need no hub."
    )


def pinned_commit(spec: HubCorpus, cache_dir: Path, resolve: Callable[[HubCorpus, Path], str] = _met_commit) -> str:
    """The commit of a corpus; a revision is pinned when it is first met.

    Raises:
        UserError: the revision's name now stands for another commit than before.
    """
    path = cache_dir / "hub-pins.json"
    pins = read_as(path, _PINS) if path.exists() else {}
    place = Path(spec.id).resolve().as_posix() if is_folder(spec) else spec.id  # ./set is another one elsewhere
    key = f"{place}@{spec.revision}"
    commit = resolve(spec, cache_dir)
    if pins.setdefault(key, commit) != commit:
        raise UserError(
            f"data set {spec.id}: revision {spec.revision!r} was commit {pins[key]} and is {commit} now, so the text "
            f"is not the same. Set revision to the commit that you mean, or remove the line {key!r} from {path}."
        )
    write_json(path, pins)
    return commit


def hub_documents(spec: HubCorpus, cache_dir: Path) -> Iterator[Document]:
    """Streams the documents of a data set, shuffled through a seeded buffer.

    Raises:
        UserError: the data set cannot be opened, its revision moved, or a record is not what the columns say.
    """
    import datasets  # takes a second to import and is needed only here

    commit = pinned_commit(spec, cache_dir)
    try:
        stream = datasets.load_dataset(
            spec.id,
            name=spec.config,
            split=spec.split,
            revision=None if is_folder(spec) else commit,
            streaming=True,
            cache_dir=str(cache_dir / "hub"),
        )
    except Exception as error:  # many kinds again: missing data set, config, split, network
        raise _unreachable(spec, error) from None
    columns = wanted_columns(spec)
    if stream.column_names is not None:
        for column in columns:
            if column not in stream.column_names:
                raise missing_column(column, stream.column_names, f"data set {spec.id}")
        stream = stream.select_columns(columns)
    if spec.shuffle:
        stream = stream.shuffle(seed=spec.seed, buffer_size=spec.shuffle_buffer)
    for number, record in enumerate(_records(stream, spec), 1):
        if document := document_of(record, spec, spec.id.rstrip("/").rsplit("/", 1)[-1], f"{spec.id} record {number}"):
            yield document


def _records(stream: Iterable[dict[str, Any]], spec: HubCorpus) -> Iterator[dict[str, Any]]:
    """The records of a stream; whatever ends it before its end is told as one error."""
    records, number = iter(stream), 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # the network, a damaged file, text that is not UTF-8: a dozen kinds
            raise UserError(
                f"data set {spec.id}: reading stopped after record {number:,}: {_reason(error)}. If the network did "
                "it, run the command again: what has been tokenised is kept."
            ) from None
        number += 1
        yield record


def hub_recipe(spec: HubCorpus, cache_dir: Path) -> dict[str, Any]:
    """What decides the documents; for a folder, its files. Asks nothing of the hub."""
    recipe = text_recipe(spec) | template_recipe(spec)
    if is_folder(spec):
        recipe |= {"id": Path(spec.id).name, "files": _folder_files(spec, cache_dir)}
    return recipe
