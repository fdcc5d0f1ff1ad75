"""The strict base of every model that is read from a study file."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_MULTIPLIERS = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class Strict(BaseModel):
    """Frozen; unknown keys are refused; numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def parse_count(value: Any) -> Any:
    """Turns ``10k``, ``2M``, ``8.7B`` or ``1_000`` into an integer; leaves everything else to the validator."""
    if isinstance(value, str):
        text = value.strip().replace("_", "")
        multiplier = _MULTIPLIERS.get(text[-1:], 1)
        digits = text[:-1] if multiplier > 1 else text
        try:
            number = float(digits) * multiplier
        except ValueError:
            return value
        return round(number) if abs(number - round(number)) < 1e-6 * max(1.0, number) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Count = Annotated[int, BeforeValidator(parse_count)]  # a number of tokens or of steps: 1000, 10k, 2M, 8.7B
