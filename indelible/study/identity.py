"""Identity of stage runs and evaluations: a hash of the canonical spec. The same spec is the same run, anywhere.

All fields count by default. A field that was added later (`indelible.strict.added_later`) is left out of the hash while
it has its default, so that old runs keep their ids. Specs that are equal have equal digests.
"""

import functools
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from indelible.errors import UserError
from indelible.strict import HASHED_AT_DEFAULT
from indelible.study.stage_spec import EvaluationSpec, StageSpec, TaskEvaluation

ID_DIGITS = 12  # hex digits: 48 bits, one collision expected among 16 million runs
MAX_LABEL = 80  # characters: a file name must hold the id

CODE_VERSION = 2
"""Of the engine. Raised by hand when a change makes the same spec give another result (CONTRIBUTING.md).

2: stages of any number, streams by corpus and purpose, stopping windows apart from reported ones (docs/log.md)."""

_PLAIN = frozenset({bool, int, str, type(None)})
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@functools.cache
def _fields(model: type[BaseModel]) -> tuple[tuple[str, bool, Any], ...]:
    """Name, whether it is hashed at its default, and the default."""
    found = []
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        is_hashed = extra.get(HASHED_AT_DEFAULT, True) if isinstance(extra, dict) else True
        found.append((name, bool(is_hashed), info.get_default(call_default_factory=True)))
    return tuple(found)


def canonical(value: Any) -> Any:
    """A JSON-able form with class tags: two classes with equal fields stay apart, equal numbers look alike.

    Raises:
        TypeError: a value has no canonical form (sets, floats that are not finite, foreign objects).
    """
    kind = type(value)
    if kind in _PLAIN:  # first, as nearly all values are plain
        return value
    if kind is float and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value  # 128 and 128.0 are equal
    if isinstance(value, BaseModel):
        form = {"class": type(value).__name__}
        for field, is_hashed, default in _fields(type(value)):
            item = getattr(value, field)
            if is_hashed or item != default:
                form[field] = canonical(item)
        return form
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"cannot hash a mapping with keys that are not strings: {value!r}")
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise TypeError(f"cannot hash {value!r} of type {type(value).__name__}")


def digest(value: Any) -> str:
    """Hex digest of a value's canonical form."""
    return digest_of(canonical(value))


def digest_of(form: Any) -> str:
    """Hex digest of a canonical form."""
    return hashlib.sha256(_JSON.encode(form).encode("utf-8")).hexdigest()


def run_id(spec: StageSpec, label: str, known_digest: str | None = None) -> str:
    """``<stage>-<label>-s<seed>-<12 hex>``; the label is for people and is not hashed.

    Args:
        spec: the stage run.
        label: letters, digits, dots, dashes, plus signs and underscores; others become underscores.
        known_digest: of the spec, where it is known already.
    """
    safe = "".join(c if (c.isascii() and c.isalnum()) or c in "._-+" else "_" for c in label)[:MAX_LABEL]
    return f"{spec.stage}-{safe}-s{spec.seed}-{(known_digest or digest(spec))[:ID_DIGITS]}"


def evaluation_id(spec: EvaluationSpec, checkpoint: str | None = None) -> str:
    """``<corpus>-<12 hex>``.

    Args:
        spec: the evaluation.
        checkpoint: its checkpoint, where the spec leaves it open.
    """
    form = _evaluation_form(spec) | ({} if checkpoint is None else {"checkpoint": checkpoint})
    return f"{spec.store.rpartition('-')[0]}-{digest_of(form)[:ID_DIGITS]}"


@functools.cache
def _evaluation_form(spec: EvaluationSpec) -> dict[str, Any]:
    return canonical(spec)


def task_evaluation_id(spec: TaskEvaluation, checkpoint: str) -> str:
    """``<task>-<12 hex>`` of a checkpoint's evaluation on a task; ``spec`` may leave the checkpoint open."""
    return f"{spec.task}-{digest_of(task_form(spec, checkpoint))[:ID_DIGITS]}"


def task_form(spec: TaskEvaluation, checkpoint: str) -> dict[str, Any]:
    """The canonical form of an evaluation on a task, without what it costs: that is no part of what it is."""
    form = canonical(spec) | {"checkpoint": checkpoint}
    del form["tokens"]
    return form


_HASHED = re.compile(rf".+-[0-9a-f]{{{ID_DIGITS}}}")


def check_id(found: str, form: Any, place: Path | str) -> None:
    """Checks that what is about to be made is what its id was hashed from.

    Args:
        found: the id, as it stands in plan.json; one that ends in no hash is nobody's to check.
        form: the canonical form of what it stands for.
        place: the file, for the message.

    Raises:
        UserError: it is something else.
    """
    if _HASHED.fullmatch(found) and not found.endswith(f"-{digest_of(form)[:ID_DIGITS]}"):
        raise UserError(
            f"{place}: the settings of {found} are not those that its name is a hash of; the file was edited. Put back "
            "what it was: `indelible run STUDY --out DIR` writes it again."
        )


def given_id(sha256: str) -> str:
    """The checkpoint id of a given checkpoint."""
    return f"given-{sha256[:ID_DIGITS]}"


def without_tags(value: Any) -> Any:
    """A canonical form without its class tags, as pydantic reads it back."""
    if isinstance(value, dict):
        return {key: without_tags(item) for key, item in value.items() if key != "class"}
    if isinstance(value, list):
        return [without_tags(item) for item in value]
    return value


_ABSENT = object()


def part_of(spec: Any, place: Path | str, *keys: str, of: type | tuple[type, ...]) -> Any:
    """A part of a canonical spec, as it stands in plan.json and spec.json.

    Args:
        spec: the spec; its readers need some of it and know the rest only by its hash.
        place: the file, for the message.
        keys: the path of the part.
        of: what it is.

    Raises:
        UserError: there is no such part, or it is something else.
    """
    part = spec
    for key in keys:
        part = part.get(key, _ABSENT) if isinstance(part, dict) else _ABSENT
    if not isinstance(part, of):
        raise UserError(
            f"{place}: spec.{'.'.join(keys)} is not what a stage run has there; the file was edited. "
            "Put back what it was, or give `indelible run STUDY --out DIR` a folder of its own."
        )
    return part


def flat_form(form: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a canonical form by dotted path; lists by position, class tags under `class`."""
    if isinstance(form, list) and form:
        form = {str(number): item for number, item in enumerate(form)}
    if not isinstance(form, dict):
        return {prefix: form}
    found: dict[str, Any] = {}
    for name, item in form.items():
        found |= flat_form(item, f"{prefix}.{name}" if prefix else name)
    return found
