"""The paper's theorems as checks: assumptions evaluated, conclusions measured; the derivations are in docs/theory.md.

A feature counts as learned at LEARNED of its fixed point and as not learned below UNLEARNED. Every assumption is an
explicit inequality in the spec (or in the weights a stage starts from); its margin is positive when it is met.
"""

from dataclasses import dataclass

import numpy as np

from indelible.theory import recursion
from indelible.theory.recursion import LEARNED, UNLEARNED
from indelible.theory.stages import Chain, run_chain, run_full_chain
from indelible.theory.tasks import ARMS, Array, Objective, TheorySpec, objective, rotations


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
    window = post_window(spec, arms)
    time = spec.posttrain_steps * spec.lr
    assumptions = (
        *pretraining_assumptions(spec),
        Assumption("long enough", f"post-training time {time:.3g} > {window.opens:.3g}; margin in time",
                   time - window.opens),
        Assumption("short enough", f"post-training time {time:.3g} < {window.closes:.3g}; margin in time",
                   window.closes - time),
    )  # fmt: skip
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
    return Check("5.2 / C.15", claim, assumptions, numbers, holds)


def check_no_input_no_change(spec: TheorySpec, start: str = "aligned", num_samples: int | None = None) -> Check:
    """C.16: fine-tuning does not move theta on directions without input, in the network itself (full matrices).

    The update of theta v, for C v = 0, is -2 lr (theta - A) C W2' W2 v to first order in lr: zero only if W2' W2 does
    not couple v to directions with input. Measured as the largest entry of (theta_ft - theta_post) V_specialised.
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
    assumptions = (
        Assumption("no input", "D_ft has no input variance there (overlap 0); margin: minus the variance, or 1",
                   1.0 if spec.overlap == 0 else -spec.overlap),
        Assumption("aligned layers", f"W2'W2 couples no direction with input to one without (largest coupling "
                   f"{coupling:.2g}); margin 1e-9 minus that", 1e-9 - coupling),
    )  # fmt: skip
    numbers = {"largest change of theta on the specialised directions": drift, "coupling in W2'W2": coupling}
    claim = "Fine-tuning leaves directions without input variance untouched."
    return Check("C.16", claim, assumptions, numbers, drift < 1e-9)


def check_retention(spec: TheorySpec, arms: dict[str, Chain]) -> Check:
    """5.3/C.17: Delta_unmixed > Delta_mixed, Delta = L(theta_ft; D_post) - L(theta_post; D_post).

    Once fine-tuning has brought the inconsistent features of both arms to sigma_ft, they cancel in L_ret, so the gap of
    Delta is what the mixed run did not know of them at hand-over, and the gap of L_ret is the specialised features'.
    """
    goal = objective(spec, "posttrain", "unmixed")
    inc = spec.block("inconsistent")
    post = spec.values("sigma_post")
    k = recursion.fixed_point(goal.variance, goal.target, goal.regularisation, arms["unmixed"].values[0])[inc]
    assumptions = (
        *check_post_training(spec, arms).assumptions,
        Assumption("fine-tuning near its end", "inconsistent features within 0.05 sigma_post / (1 + reg) of sigma_ft; "
                   "margin: difference, by the flow", _end_margin(spec, arms)),
        Assumption("no overlap", "D_ft has no input on the specialised directions; margin 1 or minus the variance",
                   1.0 if spec.overlap == 0 else -spec.overlap),
        Assumption("pulled back", "sigma_ft < 0.9 (sigma_post + reg sigma_pre) / (1 + reg), for Delta_unmixed > 0; "
                   "margin: difference", float((LEARNED * k - spec.values("sigma_ft")).min()), needed=False),
        *printed_assumptions(spec),
    )  # fmt: skip
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
    return Check("5.3 / C.17", claim, assumptions, numbers, bool(gap > 1e-6 * numbers["L_ret unmixed"]))


def _special_loss(spec: TheorySpec, values: Array) -> float:
    """The specialised features' share of the loss on D_post."""
    block = spec.block("specialised")
    return float((spec.post_variance * (spec.values("beta") - values[block]) ** 2).sum())


def _end_margin(spec: TheorySpec, arms: dict[str, Chain]) -> float:
    """How much closer to sigma_ft than asked the flow brings the inconsistent features; the worse of the arms."""
    goal, inc = objective(spec, "finetune", "mixed"), spec.block("inconsistent")
    time = spec.finetune_steps * spec.lr
    ends = [recursion.flow(arms[arm].values[1], goal, time)[inc] for arm in ARMS]
    allowed = 0.05 * spec.values("sigma_post") / (1 + spec.regularisation)
    return float(min((allowed - np.abs(end - spec.values("sigma_ft"))).min() for end in ends))


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
