"""Identity of a stage run: a hash of its canonical spec. The same spec is the same run, in any study and any folder.

All fields count by default. A field that was added later, with its old behaviour as default, is left out of the hash
while it has that default, so that old runs keep their ids.
"""

import functools
import hashlib
import json
import math
from typing import Any

from pydantic import BaseModel

from indelible.study.stages import StageSpec

ID_DIGITS = 12  # hex digits: 48 bits, one collision expected among 16 million runs

CODE_VERSION = {"pretrain": 1, "posttrain": 1, "finetune": 1}
"""Raised by hand when a change of the engine makes the same spec give another result."""

ADDED_LATER: dict[tuple[str, str], Any] = {}
"""(class name, field) to the default under which a field added after version 0.1.0 is not hashed."""


_PLAIN = frozenset({bool, int, str, type(None)})


@functools.cache
def _fields(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(model.model_fields)


def canonical(value: Any) -> Any:
    """A JSON-able form with class tags: two classes with equal fields stay apart.

    Raises:
        TypeError: a value has no canonical form (sets, floats that are not finite, foreign objects).
    """
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):  # first, as nearly all values are plain
        return value
    if isinstance(value, BaseModel):
        name = type(value).__name__
        form = {"class": name}
        for field in _fields(type(value)):
            item = getattr(value, field)
            if (name, field) not in ADDED_LATER or item != ADDED_LATER[name, field]:
                form[field] = canonical(item)
        return form
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"cannot hash a mapping with keys that are not strings: {value!r}")
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise TypeError(f"cannot hash {value!r} of type {type(value).__name__}")


def digest(value: Any) -> str:
    """Hex digest of a canonical form."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def run_id(spec: StageSpec, label: str) -> str:
    """``<stage>-<label>-<12 hex>``; the label is for people and is not hashed.

    ``label`` may hold letters, digits, dots, dashes and underscores only.
    """
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in label)
    return f"{spec.stage}-{safe}-{digest(spec)[:ID_DIGITS]}"


def without_tags(value: Any) -> Any:
    """A canonical form without its class tags, as pydantic reads it back."""
    if isinstance(value, dict):
        return {key: without_tags(item) for key, item in value.items() if key != "class"}
    if isinstance(value, list):
        return [without_tags(item) for item in value]
    return value
