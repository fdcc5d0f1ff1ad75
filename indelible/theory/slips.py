"""The formulas of the text that the derivation contradicts, each decided by numbers; derived in docs/theory.md."""

from dataclasses import dataclass

import numpy as np

from indelible.theory import recursion
from indelible.theory.tasks import ARMS, Array, TheorySpec, named_rng, objective, rotations
from indelible.theory.training import Chain, run_chain, run_full_chain


@dataclass(frozen=True)
class Slip:
    """One statement of the text, what the derivation gives instead, and the numbers that decide."""

    where: str
    printed: str
    right: str
    numbers: dict[str, float]
    confirmed: bool  # the numbers side with `right`


def slips(spec: TheorySpec) -> list[Slip]:
    """The printed formulas that the derivation contradicts, each with the measurement that decides."""
    spec = spec.replace(alpha=float(np.clip(spec.alpha, 0.05, 0.95)))  # at the ends there is no mixture to decide about
    return [_slip_update(spec), _slip_value(spec), _slip_stop(spec), _slip_start(spec), slip_exclusion(spec)]


def _slip_update(spec: TheorySpec) -> Slip:
    """The update of a_i against a numerical derivative of the objective it is said to descend."""
    rng = named_rng(spec.seed, "gradient check")
    a, s0 = rng.uniform(0.5, 2.0, 50), rng.uniform(0.2, 3.0, 50)
    v, sigma, reg = rng.uniform(0.2, 1.0, 50), rng.uniform(1.5, 4.0, 50), 0.7

    def value(p: Array, q: Array) -> Array:
        return v * (p * q - sigma) ** 2 + reg * (p * q - s0) ** 2

    h = 1e-5
    truth = (value(a + h, a) - value(a - h, a)) / (2 * h)  # one layer moved, the other held
    right = 2 * (v * (a * a - sigma) + reg * (a * a - s0)) * a
    printed = 2 * (v * (a * a - sigma**2) - reg * (a * a - s0)) * a
    scale = np.abs(truth).max()
    numbers = {
        "error of the derived update, relative to the gradient": float(np.abs(right - truth).max() / scale),
        "error of the printed update": float(np.abs(printed - truth).max() / scale),
    }
    return Slip(
        "appendix C, update of a_i",
        "regulariser with the opposite sign; sigma squared",
        "a <- a - 2 lr v (s - sigma) a - 2 lr reg (s - s(0)) a",
        numbers,
        bool(np.abs(right - truth).max() < 1e-6 * scale < np.abs(printed - truth).max()),
    )


def _slip_value(spec: TheorySpec) -> Slip:
    """What a specialised feature converges to under the mixture."""
    end = _mixed_to_convergence(spec)[spec.block("specialised")][0]
    beta = float(spec.values("beta")[0])
    numbers = {"measured": float(end), "beta": beta, "alpha beta": spec.alpha * beta}
    return Slip(
        "value of a specialised feature after mixed pretraining",
        "alpha beta",
        "beta: variance alpha nu and cross-covariance alpha nu beta have beta as their ratio",
        numbers,
        bool(abs(end - beta) < 1e-6 * beta),
    )


def _slip_stop(spec: TheorySpec) -> Slip:
    """What the mixed run knows when nobody stops it."""
    goal = objective(spec, "pretrain", "mixed")
    inc = spec.block("inconsistent")
    share = _mixed_to_convergence(spec)[inc] / goal.target[inc]
    return Slip(
        "theorem 5.1, length of pretraining",
        "mixing leaves the inconsistent features out",
        "only while pretraining stops at rank n - k; run on, it learns (1 - alpha) sigma_pre + alpha sigma_post",
        {"share of the inconsistent features learned at convergence": float(share.min())},
        bool(abs(share.min() - 1) < 1e-6),
    )


def _slip_start(spec: TheorySpec) -> Slip:
    """exp(-T) I on both layers against layers aligned with U and V."""
    u, v = rotations(spec)
    inside = u.T @ v
    arms: dict[str, Chain] = {arm: run_full_chain(spec, arm, start="identity") for arm in ARMS}
    aligned = {arm: run_chain(spec, arm) for arm in ARMS}
    numbers = {
        "off-diagonal share of U'V": float(np.abs(inside - np.diag(np.diag(inside))).max()),
        "Delta unmixed - mixed, aligned": float(aligned["unmixed"].losses.delta - aligned["mixed"].losses.delta),
        "Delta unmixed - mixed, identity": float(arms["unmixed"].losses.delta - arms["mixed"].losses.delta),
    }
    return Slip(
        "initialisation exp(-T) I on both layers; D_pre on `the first n - k dimensions`",
        "features decouple",
        "they do if W1(0) = exp(-T) U R', W2(0) = exp(-T) R V', and inputs are confined in the basis of V; "
        "with the identity only roughly, and later",
        numbers,
        bool(numbers["off-diagonal share of U'V"] > 1e-3),
    )


def slip_exclusion(spec: TheorySpec, draws: int = 400_000) -> Slip:
    """C.4 and C.6 sought together among random tasks; then with D_post's variance nu > 1 on specialised directions."""
    rng = named_rng(spec.seed, "exclusion")
    alpha, pre, gap_pre, gap_ft, beta = rng.uniform(0, 1, (5, draws)) * np.array([[1], [2], [5], [5], [8]])
    post = pre + gap_pre
    c = np.minimum(gap_pre, np.minimum(gap_ft, post))  # sigma_ft = post - gap_ft, not below 0
    first = beta < c / 2
    blend = (1 - alpha) * pre + alpha * post
    nu = rng.uniform(1, 10, draws)
    numbers = {
        "random tasks": float(draws),
        "meet C.4": float(first.sum()),
        "meet C.6": float((alpha * beta > blend).sum()),
        "meet both": float((first & (alpha * beta > blend)).sum()),
        "meet both with nu in [1, 10]": float((first & (alpha * nu * beta > blend)).sum()),
    }
    return Slip(
        "C.4 and C.6",
        "beta < c/2 together with alpha beta > (1 - alpha) sigma_pre + alpha sigma_post",
        "they exclude each other: C.6 gives beta > sigma_post > c. C.4 is not needed; or compare cross-covariances, "
        "alpha nu beta, with input variance nu > 1",
        numbers,
        bool(numbers["meet both"] == 0 < numbers["meet both with nu in [1, 10]"]),
    )


def _mixed_to_convergence(spec: TheorySpec) -> Array:
    """Feature values of the mixed run when every growing feature has had thirty more e-foldings than it needs."""
    goal = objective(spec, "pretrain", "mixed")
    slowest = goal.correlation[goal.correlation > 0].min()
    steps = int((2 * spec.T + 30) / (4 * slowest) / spec.lr)
    end = recursion.train(np.full(spec.n, np.exp(-spec.T)), goal, lr=spec.lr, steps=min(steps, 200_000))
    return end.a**2
