"""L2-SP: the weights are held near those that the stage starts from (Xuhong, Grandvalet, Davoine 2018).

``weight / 2`` times the sum over all trained weights of the squared distance to the start, in nats. It is a sum and not
a mean, so that a weight means the same pull on every number. Its gradient is added once a step, whatever the micro
batches. With adapters the trained weights are theirs, and they are held near the adapters that the stage starts with.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from indelible.objectives.base import ActiveGuard, GuardSettings

if TYPE_CHECKING:
    from indelible.train.program import Program


class L2Sp(GuardSettings):
    """Settings of L2-SP."""

    weight_copies: ClassVar[int] = 1

    kind: Literal["l2sp"] = "l2sp"
    weight: float = Field(gt=0)  # nats per squared unit of distance, halved

    def start(self, program: "Program") -> "ActiveL2Sp":
        """Keeps a copy of the trained weights as they are now."""
        return ActiveL2Sp(self.weight, program)


class ActiveL2Sp(ActiveGuard):
    """The pull towards the start."""

    def __init__(self, weight: float, program: "Program") -> None:
        self._weight, self._program = weight, program
        self._start = {name: value.detach().clone() for name, value in program.trainable().items()}
        self._is_laid_out = False

    def add_to_gradients(self) -> float:
        """Adds ``weight * (now - start)`` to every gradient; returns the penalty, nats."""
        import torch

        with torch.no_grad():
            weights = self._program.trainable()
            if not self._is_laid_out:  # by now the weights are sharded, if several ranks share them
                for name, weight in weights.items():
                    self._start[name] = self._program.laid_out_like(weight, self._start[name])
                self._is_laid_out = True
            squares = []
            for name, weight in weights.items():
                distance = weight.detach() - self._start[name]
                if weight.grad is not None:
                    weight.grad.add_(distance, alpha=self._weight)
                squares.append(self._program.full_tensor(distance.square().sum()))
            return 0.5 * self._weight * torch.stack(squares).sum().item()  # one wait for the device
