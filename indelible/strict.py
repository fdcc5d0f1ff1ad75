"""The strict base of every model that is read from a study file, and numbers as people write them."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_MULTIPLIERS = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
HASHED_AT_DEFAULT = "hashed_at_default"  # key of a field's metadata
LARGEST = 2**63 - 1  # of a count or a seed: what the files of a study can hold


class Strict(BaseModel):
    """Frozen; unknown keys are refused; numbers must be finite, and true and false are none.

    Defaults are validated like given values.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name, value in data.items():
                if (value is True or value is False) and _is_number_field(cls, str(name)):
                    raise ValueError(f"{name} = {str(value).lower()}: expected a number")
        return data


def added_later(default: Any, **constraints: Any) -> Any:
    """A field that came after ids were in use: while it has its default, the old behaviour, it is not hashed."""
    return Field(default=default, json_schema_extra={HASHED_AT_DEFAULT: False}, **constraints)


def unset_later(model: BaseModel) -> set[str]:
    """The fields of a model that were added later and have their default: a dump that is hashed leaves them out."""
    fields = type(model).model_fields.items()
    return {
        name
        for name, field in fields
        if isinstance(extra := field.json_schema_extra, dict)
        and extra.get(HASHED_AT_DEFAULT) is False
        and getattr(model, name) == field.get_default(call_default_factory=True)
    }


def _is_number_field(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    shown = repr(field.annotation) if field is not None else ""
    return ("int" in shown or "float" in shown) and "bool" not in shown and "Literal" not in shown


def parse_count(value: Any) -> Any:
    """Turns ``10k``, ``2M``, ``8.7B`` or ``1_000`` into an integer; leaves everything else to the validator.

    Raises:
        ValueError: the number is beyond `LARGEST`.
    """
    if isinstance(value, str):
        text = value.strip().replace("_", "")
        multiplier = _MULTIPLIERS.get(text[-1:], 1)
        digits = text[:-1] if multiplier > 1 else text
        try:
            number = float(digits) * multiplier
        except ValueError:
            return value
        if not math.isfinite(number) or abs(number - round(number)) >= 1e-6 * max(1.0, number):
            return value
        return _bounded(int(digits) * multiplier if digits.isdecimal() else round(number))
    if isinstance(value, float) and value.is_integer():
        return _bounded(int(value))
    return _bounded(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _bounded(count: int) -> int:
    if abs(count) > LARGEST:
        raise ValueError(f"larger than {LARGEST:,}, the largest count that there is")
    return count


Positive = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, BeforeValidator(parse_count)]  # a number of tokens or of steps: 1000, 10k, 2M, 8.7B
