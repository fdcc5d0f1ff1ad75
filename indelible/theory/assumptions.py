"""What the paper's theorems rest on: every assumption as an inequality with a margin; derived in docs/theory.md.

A feature counts as learned at LEARNED of its fixed point and as not learned below UNLEARNED. An assumption is an
explicit inequality in the spec (or in the values a stage starts from); its margin is positive when it is met.
"""

from dataclasses import dataclass

import numpy as np

from indelible.theory import recursion
from indelible.theory.recursion import LEARNED, UNLEARNED
from indelible.theory.tasks import ARMS, Array, TheorySpec, objective
from indelible.theory.training import Chain, run_chain


@dataclass(frozen=True)
class Assumption:
    """One inequality that a theorem rests on."""

    name: str
    text: str
    margin: float  # how far it is met: positive is met, negative is not; units are in the text
    needed: bool = True  # False: printed by the paper, but the conclusion does not rest on it

    @property
    def is_met(self) -> bool:
        """Whether the inequality holds."""
        return bool(self.margin > 0)


@dataclass(frozen=True)
class Window:
    """Post-training times between which theorem 5.2 can be expected to hold."""

    opens: float  # the unmixed run has learned the inconsistent features' new values
    closes_unmixed: float  # its specialised features have grown from exp(-2T) to UNLEARNED
    closes_mixed: float  # the mixed run's inconsistent features have

    @property
    def closes(self) -> float:
        """The earlier of the two ends."""
        return min(self.closes_unmixed, self.closes_mixed)


def run_arms(spec: TheorySpec) -> dict[str, Chain]:
    """Both arms by the recursion."""
    return {arm: run_chain(spec, arm) for arm in ARMS}


def smallest_exponent(spec: TheorySpec) -> float:
    """The T above which the mixed run, stopped at rank n - k, has provably learned no inconsistent feature; or inf.

    With c the cross-covariances, feature i must be learned before j exceeds UNLEARNED. Descent learns i by the time
    (1 + lr c_i)(2T + log(9 K_i)) / (4 c_i) + lr, and until then j has at most exp(-2T + 4 c_j t).
    """
    goal = objective(spec, "pretrain", "mixed")
    c, k = goal.correlation, goal.target
    slow = np.ones(spec.n, dtype=bool)
    slow[spec.block("inconsistent")] = False
    c_i, k_i = c[slow][:, None], k[slow][:, None]
    c_j, k_j = c[~slow][None, :], k[~slow][None, :]
    if c_i.min() <= 0:
        return np.inf
    if c_j.max() <= 0:
        return 0.0
    ratio = c_j / c_i * (1 + spec.lr * c_i)
    odds = LEARNED / (1 - LEARNED)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (ratio * np.log(odds * k_i) + 4 * c_j * spec.lr - np.log(UNLEARNED * k_j)) / (2 * (1 - ratio))
    return float(np.where(c_j <= 0, 0.0, np.where(ratio < 1, np.maximum(t, 0.0), np.inf)).max())


def post_window(spec: TheorySpec, arms: dict[str, Chain]) -> Window:
    """When post-training has replaced the inconsistent values, and when a feature thought to be zero has appeared."""
    goal = objective(spec, "posttrain", "mixed")
    inc, special = spec.block("inconsistent"), spec.block("specialised")

    def grown(values: Array, block: slice) -> float:
        k = recursion.fixed_point(goal.variance, goal.target, goal.regularisation, values)[block]
        rate = 4 * (goal.variance[block] + goal.regularisation) * k
        with np.errstate(divide="ignore"):
            return float((np.log(UNLEARNED * k / values[block]) / rate).min())

    unmixed, mixed = arms["unmixed"].values[0], arms["mixed"].values[0]
    k = recursion.fixed_point(goal.variance, goal.target, goal.regularisation, unmixed)
    reach = recursion.time_to_reach(LEARNED, unmixed, goal)[inc]
    slower = 1 + spec.lr * (goal.variance + goal.regularisation)[inc] * k[inc]
    return Window(float((reach * slower).max()) + spec.lr, grown(unmixed, special), grown(mixed, inc))


def printed_assumptions(spec: TheorySpec) -> tuple[Assumption, Assumption]:
    """C.4 and C.6 as printed, the latter with the singular value beta in place of the cross-covariance nu beta."""
    post = spec.values("sigma_post")
    c = float(min((post - spec.values("sigma_pre")).min(), (post - spec.values("sigma_ft")).min()))
    mixed = (1 - spec.alpha) * spec.values("sigma_pre") + spec.alpha * post
    beta = spec.values("beta")
    return (
        Assumption("C.4", "beta < c/2; margin c/2 - beta", c / 2 - float(beta.max()), needed=False),
        Assumption(
            "C.6 as printed",
            "alpha beta > (1 - alpha) sigma_pre + alpha sigma_post; margin: difference",
            float(spec.alpha * beta.min() - mixed.max()),
            needed=False,
        ),
    )


def pretraining_assumptions(spec: TheorySpec) -> tuple[Assumption, ...]:
    """What 5.1 needs: the order of cross-covariances, and a start small enough for that order to be visible."""
    goal = objective(spec, "pretrain", "mixed")
    c = goal.correlation
    inc = c[spec.block("inconsistent")].max()
    first = min(c[spec.block("invariant")].min(), c[spec.block("specialised")].min())
    floor = smallest_exponent(spec)
    return (
        Assumption("order", "alpha nu beta and all invariant values > the mixed inconsistent value; margin: difference",
                   float(first - inc)),
        Assumption("small start", f"T above {floor:.2f}; margin in T", spec.T - floor),
        Assumption("stop at rank", "pretraining stops when n - k features are learned; margin 1 or -1",
                   1.0 if spec.pretrain_steps is None else -1.0),
    )  # fmt: skip


def posttraining_assumptions(spec: TheorySpec, arms: dict[str, Chain]) -> tuple[Assumption, ...]:
    """What 5.2 needs: 5.1, and a post-training inside the window."""
    window = post_window(spec, arms)
    time = spec.posttrain_steps * spec.lr
    return (
        *pretraining_assumptions(spec),
        Assumption("long enough", f"post-training time {time:.3g} > {window.opens:.3g}; margin in time",
                   time - window.opens),
        Assumption("short enough", f"post-training time {time:.3g} < {window.closes:.3g}; margin in time",
                   window.closes - time),
    )  # fmt: skip


def alignment_assumptions(spec: TheorySpec, coupling: float) -> tuple[Assumption, ...]:
    """What C.16 needs; `coupling` is the largest entry of W2'W2 between a direction with input and one without."""
    return (
        no_overlap(spec, "no input"),
        Assumption("aligned layers", f"W2'W2 couples no direction with input to one without (largest coupling "
                   f"{coupling:.2g}); margin 1e-9 minus that", 1e-9 - coupling),
    )  # fmt: skip


def no_overlap(spec: TheorySpec, name: str) -> Assumption:
    """D_ft has no input variance on the specialised directions."""
    text = "D_ft has no input variance on the specialised directions; margin 1, or minus the variance"
    return Assumption(name, text, 1.0 if spec.overlap == 0 else -spec.overlap)


def retention_assumptions(spec: TheorySpec, arms: dict[str, Chain]) -> tuple[Assumption, ...]:
    """What 5.3 needs: 5.2, a post-training that raises the inconsistent values, a fine-tuning near its end.

    The last three are not needed: one says when Delta_unmixed itself is positive, two are the paper's.
    """
    goal = objective(spec, "posttrain", "unmixed")
    inc = spec.block("inconsistent")
    post = spec.values("sigma_post")
    k = recursion.fixed_point(goal.variance, goal.target, goal.regularisation, arms["unmixed"].values[0])[inc]
    return (
        *posttraining_assumptions(spec, arms),
        Assumption("raised", "sigma_post > sigma_pre on the inconsistent features; margin: difference",
                   float((post - spec.values("sigma_pre")).min())),
        Assumption("fine-tuning near its end", "inconsistent features within 0.05 sigma_post / (1 + reg) of sigma_ft; "
                   "margin: difference, by the flow", _end_margin(spec, arms)),
        no_overlap(spec, "no overlap"),
        Assumption("pulled back", "sigma_ft < 0.9 (sigma_post + reg sigma_pre) / (1 + reg), for Delta_unmixed > 0; "
                   "margin: difference", float((LEARNED * k - spec.values("sigma_ft")).min()), needed=False),
        *printed_assumptions(spec),
    )  # fmt: skip


def _end_margin(spec: TheorySpec, arms: dict[str, Chain]) -> float:
    """How much closer to sigma_ft than asked the flow brings the inconsistent features; the worse of the arms."""
    goal, inc = objective(spec, "finetune", "mixed"), spec.block("inconsistent")
    time = spec.finetune_steps * spec.lr
    ends = [recursion.flow(arms[arm].values[1], goal, time)[inc] for arm in ARMS]
    allowed = 0.05 * spec.values("sigma_post") / (1 + spec.regularisation)
    return float(min((allowed - np.abs(end - spec.values("sigma_ft"))).min() for end in ends))
