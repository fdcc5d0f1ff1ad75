"""How a study is judged: fixed in the study file, before its runs. Recorded, never hashed."""

from pydantic import Field

from indelible.strict import Strict


class InferenceSpec(Strict):
    """Keys of ``inference`` in a study file; `indelible.statistics` reads them."""

    level: float = Field(default=0.05, gt=0, lt=0.5)  # risk that a claim's findings name anything wrong, two-sided
    power: float = Field(default=0.8, gt=0, lt=1)  # of detectable effects and of the seeds needed
    flat_margin: float = Field(default=0.03, gt=0, le=1e6)  # nats per token; a change within it is called flat
    worst_loss: float = Field(default=12.5, gt=0, le=1e6)  # nats per token; what a diverged chain counts as
