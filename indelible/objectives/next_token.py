"""The mean cross entropy of the next token, over the targets that count: the objective of all of the paper's stages."""

from typing import TYPE_CHECKING, Literal

from indelible.objectives.base import ObjectiveSettings

if TYPE_CHECKING:
    import torch

    from indelible.train.program import Outputs, Program


class NextToken(ObjectiveSettings):
    """Maximum likelihood."""

    kind: Literal["next_token"] = "next_token"

    def loss_sum(
        self, program: "Program", outputs: "Outputs", targets: "torch.Tensor", weights: "torch.Tensor"
    ) -> "torch.Tensor":
        """Sum of cross entropies; see `ObjectiveSettings.loss_sum`."""
        return program.cross_entropy_sum(outputs, targets, weights)
