"""How a stage changes the model: all of its weights, or adapters. `indelible.models.lora` does it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from indelible.objectives.base import of_kind
from indelible.strict import Strict


class FullAdapt(Strict):
    """Every weight is trained."""

    kind: Literal["full"] = "full"


class LoraSpec(Strict):
    """Low-rank adapters (paper, Table 9)."""

    kind: Literal["lora"] = "lora"
    r: int = Field(default=64, gt=0, le=1_000_000)  # rank; adapters are scaled by alpha / r
    alpha: float = Field(default=128.0, gt=0, le=1e9)
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (  # linear layers; Q, K, V excluded
        *("o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    )
    merge: bool = True  # fold the adapters into the weights before the next stage


Adapt = Annotated[FullAdapt | LoraSpec, Field(discriminator="kind"), BeforeValidator(of_kind)]
