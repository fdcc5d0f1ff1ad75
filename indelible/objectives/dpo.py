"""Direct preference optimisation: the better answer is to gain on the worse one (Rafailov et al. 2023, equation 7).

With x = beta ((log p(better) - log p(worse)) now - the same at the start of the stage), which is frozen: the loss of a
pair is -log sigmoid(x). Label smoothing e takes a share e of the labels for wrong: (1 - e) of it and e of
-log sigmoid(-x) (Mitchell 2023, conservative DPO). Log-probabilities are sums over an answer's tokens.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from indelible.objectives.base import PairObjective

if TYPE_CHECKING:
    import torch

    from indelible.objectives.preference import Floats


class Dpo(PairObjective):
    """Settings of direct preference optimisation."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)  # of the log-ratios; larger holds the model nearer to the start
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # share of pairs taken for labelled the wrong way round

    def pair_losses(self, now: "torch.Tensor", start: "torch.Tensor") -> "torch.Tensor":
        """The loss of each pair; see `PairObjective.pair_losses`."""
        from torch.nn.functional import softplus

        return self._losses(now, start, softplus)

    def loss_values(self, now: "Floats", start: "Floats") -> "Floats":
        """The loss of each pair in float64; see `PairObjective.loss_values`."""
        import numpy as np

        return self._losses(now, start, lambda x: np.logaddexp(0.0, x))

    def _losses(self, now: Any, start: Any, softplus: Callable[[Any], Any]) -> Any:
        gain = now - start
        x = self.beta * (gain[:, 0] - gain[:, 1])
        return (1 - self.label_smoothing) * softplus(-x) + self.label_smoothing * softplus(x)
