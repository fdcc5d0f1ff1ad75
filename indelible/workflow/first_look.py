"""A look at one's own text before a first study: which columns hold it, how much there is, what it may be called."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from indelible.corpora import default_cache_dir
from indelible.corpora.listing import format_of, list_files
from indelible.corpora.local import json_records, local_spec
from indelible.data.inspection import inspect_corpus
from indelible.errors import UserError
from indelible.files import is_there, printable
from indelible.study.corpus_spec import OFFLINE_NAMES, CorpusSpec, OfflineCorpus, check_names

_PAIR = ("prompt_column", "completion_column")
_TAKEN = ("pretrain", "posttrain", "finetune", "evaluate", "start", "L")  # what tables call something else


@dataclass(frozen=True)
class Look:
    """What was found in the text of a role."""

    role: str
    target: str
    spec: dict[str, Any]  # of the study file
    documents: int
    tokens: int  # estimated at the scale's vocabulary


def look_at(role: str, target: str, columns: Mapping[str, str], vocab_size: int) -> Look:
    """Reads a corpus and counts it.

    Args:
        role: pre, post or ft.
        target: an offline corpus, or a file or folder.
        columns: ``text_column``, or ``prompt_column`` and ``completion_column``, for files.
        vocab_size: of the tokenizer that tokens are estimated with.

    Raises:
        UserError: there is no such text, it cannot be read, or it is empty.
    """
    spec = _spec_of(role, target, columns)
    is_offline = isinstance(spec, OfflineCorpus)
    try:
        found = inspect_corpus(spec, default_cache_dir(), samples=0, vocab_size=vocab_size)
    except UserError as error:
        raise UserError(f"--{role} {target}: {error}") from None
    if not found["tokens_estimate"]:
        raise UserError(f"--{role} {target}: holds no text.")
    written = {"kind": "offline", "name": target} if is_offline else {"kind": "local", "path": target, **columns}
    return Look(role, target, written, found["documents"], found["tokens_estimate"])


def _spec_of(role: str, target: str, columns: Mapping[str, str]) -> CorpusSpec:
    if target in OFFLINE_NAMES:
        return OfflineCorpus.model_validate({"name": target})
    if target.strip() and is_there(target):
        return local_spec(target, columns)
    known = ", ".join(OFFLINE_NAMES)
    raise UserError(
        f"--{role} {printable(target)[:200]!r}: no such file or folder, and no offline corpus ({known}); give one of "
        "these."
    )


def columns_by_role(targets: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Which columns each text is read from: prompt and completion where a file has these and no text column.

    Args:
        targets: file, folder or offline corpus by role.
        columns: of all files, by field: ``text_column``, ``prompt_column``, ``completion_column``.

    Raises:
        UserError: there is no such text, a file has none of the columns, or no file has prompt and completion.
    """
    pair = {field: columns[field] for field in _PAIR if field in columns}
    text = {field: name for field, name in columns.items() if field not in _PAIR}
    found = {}
    for role, target in targets.items():
        present = _present(role, target, pair)
        has_pair = bool(pair) and set(pair.values()) <= set(present)
        has_text = text.get("text_column", "text") in present
        found[role] = pair if has_pair and (role == "post" or not has_text) else text
        if present and not has_pair and not has_text:
            raise _no_column(role, target, present, text.get("text_column", "text"), pair)
    if pair and pair not in found.values():
        raise UserError(f"{_flags(pair)}: none of {', '.join(targets.values())} has these columns; leave them out.")
    return found


def _no_column(role: str, target: str, present: list[str], text: str, pair: Mapping[str, str]) -> UserError:
    missing = " and ".join(repr(name) for name in (text, *(one for one in pair.values() if one not in present)))
    return UserError(
        f"--{role} {target}: no column {missing}; it has {', '.join(map(repr, present))}. Name the column of its text "
        "with --text-column, or those of prompts and answers with --prompt-column and --completion-column."
    )


def _flags(pair: Mapping[str, str]) -> str:
    return " ".join(f"--{field.replace('_', '-')} {name}" for field, name in pair.items())


def _present(role: str, target: str, pair: Mapping[str, str]) -> list[str]:
    """The columns of a text's first record; none of plain text, of offline corpora, and of what has no record."""
    spec = _spec_of(role, target, pair)
    if isinstance(spec, OfflineCorpus):
        return []
    for _, _, path, _ in islice(list_files(spec, default_cache_dir()), 1):  # type: ignore[arg-type]
        kind = format_of(path, "auto")
        if kind == "jsonl":
            return next((list(record) for _, record in json_records(path, [])), [])
        if kind == "parquet":
            return _parquet_columns(path)
    return []


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError):
        return []  # said when it is read


def corpus_names(targets: Mapping[str, str]) -> dict[str, str]:
    """What corpora are called by role: as their files are where all of these are plain and distinct, else as the roles.

    Args:
        targets: file, folder or offline corpus by role.
    """
    names = [Path(target).resolve().name.partition(".")[0] for target in targets.values()]
    try:
        check_names(names)
    except ValueError:
        return {role: role for role in targets}
    is_plain = all(name[:1].isalpha() and name not in _TAKEN for name in names)
    is_own = all(
        name not in OFFLINE_NAMES or name == target for name, target in zip(names, targets.values(), strict=True)
    )
    return (
        dict(zip(targets, names, strict=True))
        if is_plain and is_own and len(set(names)) == len(names)
        else {role: role for role in targets}
    )
