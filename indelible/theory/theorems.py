"""The paper's theorems as checks: assumptions evaluated, conclusions measured; the derivations are in docs/theory.md.

A feature counts as learned at LEARNED of its fixed point and as not learned below UNLEARNED.
"""

from dataclasses import dataclass

import numpy as np

from indelible.theory import recursion
from indelible.theory.assumptions import (
    Assumption,
    alignment_assumptions,
    posttraining_assumptions,
    pretraining_assumptions,
    retention_assumptions,
    run_arms,
)
from indelible.theory.recursion import LEARNED, UNLEARNED
from indelible.theory.tasks import ARMS, Array, Objective, TheorySpec, objective, rotations
from indelible.theory.training import Chain, run_full_chain


@dataclass(frozen=True)
class Check:
    """One theorem, tried on one spec."""

    name: str
    claim: str
    assumptions: tuple[Assumption, ...]
    numbers: dict[str, float]  # what was measured, in words that name it
    holds: bool  # the conclusion, as measured

    @property
    def verdict(self) -> str:
        """`holds`, `fails`, or the two cases in which a needed assumption is not met."""
        if all(a.is_met for a in self.assumptions if a.needed):
            return "holds" if self.holds else "fails"
        return "holds although an assumption is not met" if self.holds else "not met, and does not hold"


def check_learned_features(spec: TheorySpec, arms: dict[str, Chain]) -> Check:
    """5.1/C.10: at the stop only the unmixed run knows the inconsistent features, only the mixed one the specialised.

    Also the order and time: feature i is learned at (2T + log(9 K_i)) / (4 c_i) in the flow, c_i its cross-covariance.
    """
    numbers: dict[str, float] = {}
    goals = {arm: objective(spec, "pretrain", arm) for arm in ARMS}
    shares = {arm: _shares(arms[arm].values[0], goals[arm]) for arm in ARMS}
    other = {"unmixed": "specialised", "mixed": "inconsistent"}
    holds = True
    for arm in ARMS:
        left_out = spec.block(other[arm])
        learned = np.delete(shares[arm], np.arange(spec.n)[left_out])
        holds &= bool(learned.min() >= LEARNED and shares[arm][left_out].max() <= UNLEARNED)
        numbers[f"{arm}: least share learned of the others"] = float(learned.min())
        numbers[f"{arm}: largest share of the {other[arm]}"] = float(shares[arm][left_out].max())
    special = spec.block("specialised")
    # Multiplied by exactly 1 at each step, so equality is bitwise: a direction without input does not move. The square
    # is a product here as in the recursion; a power may differ in the last bit.
    begin = np.exp(-spec.T)
    numbers["unmixed: change of the specialised features"] = float(
        np.abs(arms["unmixed"].values[0][special] - begin * begin).max()
    )
    measured, predicted = learning_times(spec, "mixed")
    seen = np.isfinite(measured)
    numbers["mixed: largest relative error of the predicted learning times"] = float(
        np.abs(measured[seen] / predicted[seen] - 1).max(initial=0.0)
    )
    order = np.argsort(-goals["mixed"].correlation[seen], kind="stable")
    in_order = bool((np.diff(measured[seen][order]) >= -1e-12).all())
    numbers["mixed: learned in falling order of cross-covariance (1 yes)"] = float(in_order)
    claim = "Stopped at rank n-k, only the mixed run has learned the specialised features."
    return Check("5.1 / C.10", claim, pretraining_assumptions(spec), numbers, holds)


def learning_times(spec: TheorySpec, arm: str) -> tuple[Array, Array]:
    """When each feature is learned in a pretraining that does not stop: measured, and predicted by the flow; (n,) each.

    Features that share a cross-covariance but not a target are learned at slightly different times. Measured over the
    steps of the arm's rank stop times three; nan where a feature is not learned by then.
    """
    goal = objective(spec, "pretrain", arm)
    predicted = recursion.time_to_reach(LEARNED, spec.start, goal)
    finite = predicted[np.isfinite(predicted)]
    steps = int(min(1.2 * finite.max() / spec.lr + 10, 60_000))
    marks = list(range(steps + 1))
    run = recursion.train(np.full(spec.n, np.exp(-spec.T)), goal, lr=spec.lr, steps=steps, record=marks)
    reached = run.recorded >= LEARNED * np.where(goal.target > 0, goal.target, np.inf)
    first = np.where(reached.any(0), reached.argmax(0) * spec.lr, np.nan)
    return first, predicted


def check_post_training(spec: TheorySpec, arms: dict[str, Chain]) -> Check:
    """5.2/C.15: post-training moves the inconsistent features without mixing, the specialised ones with it."""
    goal = objective(spec, "posttrain", "mixed")
    inc, special = spec.block("inconsistent"), spec.block("specialised")
    share = {arm: _shares(arms[arm].values[1], goal, arms[arm].values[0]) for arm in ARMS}
    numbers = {
        "unmixed: least share of the inconsistent": float(share["unmixed"][inc].min()),
        "unmixed: largest share of the specialised": float(share["unmixed"][special].max()),
        "mixed: largest share of the inconsistent": float(share["mixed"][inc].max()),
        "mixed: least share of the specialised": float(share["mixed"][special].min()),
    }
    holds = bool(
        share["unmixed"][inc].min() >= LEARNED
        and share["mixed"][special].min() >= LEARNED
        and max(share["unmixed"][special].max(), share["mixed"][inc].max()) <= UNLEARNED
    )
    claim = "Post-training uses the specialised features after mixing, and only distorts the inconsistent ones without."
    return Check("5.2 / C.15", claim, posttraining_assumptions(spec, arms), numbers, holds)


def check_no_input_no_change(spec: TheorySpec, start: str = "aligned", num_samples: int | None = None) -> Check:
    """C.16: fine-tuning does not move theta on directions without input, in the network itself (full matrices).

    One step changes theta v, for C v = 0, by exactly -2 lr (theta - A) C W2' W2 v: zero only if W2' W2 does not couple
    v to directions with input. Measured as the largest entry of (theta_ft - theta_post) V_specialised.
    """
    drift, coupling = 0.0, 0.0
    _, v = rotations(spec)
    special = v[:, spec.block("specialised")]
    rest = np.delete(v, np.arange(spec.n)[spec.block("specialised")], axis=1)
    for arm in ARMS:
        chain = run_full_chain(spec, arm, start=start, num_samples=num_samples)
        drift = max(drift, float(np.abs((chain.layers[2].theta - chain.layers[1].theta) @ special).max()))
        w2 = chain.layers[1].w2
        gram = w2.T @ w2
        coupling = max(coupling, float(np.abs(rest.T @ gram @ special).max()))
    numbers = {"largest change of theta on the specialised directions": drift, "coupling in W2'W2": coupling}
    claim = "Fine-tuning leaves directions without input variance untouched."
    return Check("C.16", claim, alignment_assumptions(spec, coupling), numbers, drift < 1e-9)


def check_retention(spec: TheorySpec, arms: dict[str, Chain]) -> Check:
    """5.3/C.17: Delta_unmixed > Delta_mixed, Delta = L(theta_ft; D_post) - L(theta_post; D_post).

    Once fine-tuning has brought the inconsistent features of both arms to sigma_ft, they cancel in L_ret, so the gap of
    Delta is what the mixed run did not know of them at hand-over, and the gap of L_ret is the specialised features'.
    """
    inc = spec.block("inconsistent")
    post = spec.values("sigma_post")
    losses = {arm: arms[arm].losses for arm in ARMS}
    handover = {arm: float(((post - arms[arm].values[1][inc]) ** 2).sum()) for arm in ARMS}
    kept = {arm: _special_loss(spec, arms[arm].values[1]) for arm in ARMS}
    numbers = {f"Delta {arm}": float(losses[arm].delta) for arm in ARMS}
    gap = numbers["Delta unmixed"] - numbers["Delta mixed"]
    numbers["Delta unmixed - Delta mixed"] = gap
    numbers["the same from the inconsistent features at hand-over"] = handover["mixed"] - handover["unmixed"]
    numbers["Delta unmixed in the limit T to infinity"] = limit_delta(spec)
    numbers |= {f"{name} {arm}": float(getattr(losses[arm], name)) for name in ("L_im", "L_ret") for arm in ARMS}
    numbers["L_ret unmixed - L_ret mixed"] = float(losses["unmixed"].L_ret - losses["mixed"].L_ret)
    numbers["the same from the specialised features at hand-over"] = kept["unmixed"] - kept["mixed"]
    claim = "Fine-tuning costs the unmixed run more of what post-training taught."
    holds = bool(gap > 1e-6 * numbers["L_ret unmixed"])
    return Check("5.3 / C.17", claim, retention_assumptions(spec, arms), numbers, holds)


def _special_loss(spec: TheorySpec, values: Array) -> float:
    """The specialised features' share of the loss on D_post."""
    block = spec.block("specialised")
    return float((spec.post_variance * (spec.values("beta") - values[block]) ** 2).sum())


def limit_delta(spec: TheorySpec) -> float:
    """Delta_unmixed for T to infinity and stages run to the end of what they can learn:

    sum over inconsistent features of (sigma_post - sigma_ft)^2 - (reg / (1 + reg))^2 (sigma_post - sigma_pre)^2.
    """
    post, pre, ft = (spec.values(f"sigma_{name}") for name in ("post", "pre", "ft"))
    kept = spec.regularisation / (1 + spec.regularisation)
    return float(((post - ft) ** 2 - (kept * (post - pre)) ** 2).sum())


def all_checks(spec: TheorySpec) -> list[Check]:
    """The four checks on one spec."""
    arms = run_arms(spec)
    return [
        check_learned_features(spec, arms),
        check_post_training(spec, arms),
        check_no_input_no_change(spec),
        check_retention(spec, arms),
    ]


def _shares(values: Array, goal: Objective, start: Array | float = 0.0) -> Array:
    """Each feature over its fixed point; 0 where nothing is asked of it."""
    k = recursion.fixed_point(goal.variance, goal.target, goal.regularisation, start)
    return np.divide(values, k, out=np.zeros_like(values), where=(goal.variance > 0) & (k > 0))
