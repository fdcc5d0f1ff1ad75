"""What an objective and a guard must offer to the training loop.

Settings are read from the study file and hashed; `start` makes what works on one stage run. It is called with the
weights that the stage starts from, before a resume state is loaded, so that whatever depends on the start (a frozen
copy, distances) is the same after a resume and need not be saved. docs/extending.md has a worked example.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from indelible.strict import Strict

if TYPE_CHECKING:
    import torch

    from indelible.objectives.preference import Floats
    from indelible.train.program import Outputs, Program


def of_kind(value: Any) -> Any:
    """``kl`` is short for ``{kind: kl}``."""
    return {"kind": value} if isinstance(value, str) else value


class ObjectiveSettings(Strict):
    """Settings of an objective."""

    forward_passes: ClassVar[float] = 1.0  # of a training token; a backward counts as two forwards
    needs_pairs: ClassVar[bool] = False  # the stage's own corpus is one of pairs: see `PairObjective`

    @property
    def sequences(self) -> int:
        """Sequences of seq_len tokens that one row of the stage's data order is: a window is one, a pair two."""
        return 2 if self.needs_pairs else 1

    def loss_sum(
        self, program: "Program", outputs: "Outputs", targets: "torch.Tensor", weights: "torch.Tensor"
    ) -> "torch.Tensor":
        """The sum over a micro batch of what is minimised, nats; it is divided by the valid targets of the whole step.

        Args:
            program: the model that is trained.
            outputs: of its forward over the micro batch.
            targets: int64 (B, T).
            weights: float32 (B, T), 1 for targets that count, 0 for others.
        """
        raise TypeError(f"{type(self).__name__} has no loss_sum")


class PairObjective(ObjectiveSettings):
    """Settings of an objective over pairs of a better and a worse answer, against the model that the stage starts from.

    The loop gives it log-probabilities of whole answers: of the model now, and of the start, computed once a run. Its
    mean over the pairs of a step is minimised; windows that are mixed in have the next-token loss.
    """

    needs_pairs: ClassVar[bool] = True
    start_passes: ClassVar[float] = 1.0  # forward passes over each pair, once a run, for the start's log-probabilities

    beta: float  # of the log-ratios, in what is called a reward: beta (log p now - log p at the start)

    def pair_losses(self, now: "torch.Tensor", start: "torch.Tensor") -> "torch.Tensor":
        """What is minimised for each pair, nats: float32 (P,).

        Args:
            now: log-probabilities of the better and the worse answer, float32 (P, 2), with their gradient.
            start: the same of the model that the stage starts from.
        """
        raise TypeError(f"{type(self).__name__} has no pair_losses")

    def loss_values(self, now: "Floats", start: "Floats") -> "Floats":
        """The same values in float64, without torch: of tables and of held-out pairs."""
        raise TypeError(f"{type(self).__name__} has no loss_values")


class ActiveGuard:
    """A guard at work in one stage run; a subclass has one of the two, or both."""

    uses_batches: ClassVar[bool] = False  # whether `batch_loss` is to be called

    def batch_loss(self, outputs: "Outputs", inputs: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
        """Its sum over the valid targets of a micro batch, nats; it is divided like the objective's."""
        raise TypeError(f"{type(self).__name__} has no batch_loss")

    def add_to_gradients(self) -> float:
        """Once a step, after the last backward and before clipping: adds its gradient; returns its value, nats."""
        return 0.0


class GuardSettings(Strict):
    """Settings of a guard."""

    forward_passes: ClassVar[float] = 0.0  # more forward passes for each trained token
    weight_copies: ClassVar[int] = 0  # frozen copies of the weights held in memory

    def start(self, program: "Program") -> ActiveGuard | None:
        """The guard at work, from the weights that the stage starts from; None if there is nothing to do."""
        raise TypeError(f"{type(self).__name__} has no start")


class NoGuard(GuardSettings):
    """Nothing holds the stage back."""

    kind: Literal["none"] = "none"

    def start(self, program: "Program") -> None:
        """Nothing to do."""
        return
