"""The three regression tasks of the theory: a spec, its feature blocks, and what each stage asks of each feature."""

import dataclasses
import difflib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indelible.errors import UserError

Array = NDArray[np.float64]

STAGES = ("pretrain", "posttrain", "finetune")
ARMS = ("unmixed", "mixed")
BLOCKS = ("invariant", "inconsistent", "specialised")


@dataclass(frozen=True)
class TheorySpec:
    """One instance of the linear model. Values are singular values; times are `lr` x steps.

    A per-block value is one number for the whole block or one number per feature of it. `invariant` may also be two
    numbers, from the first to the last feature in even steps. Sources: paper, section 5 and appendix C.

    Raises:
        UserError: listing every field that breaks a rule.
    """

    n: int = 12  # features in all = input and output dimensions
    k: int = 3  # features in the inconsistent block, and in the specialised one; the other n - 2k are invariant
    invariant: tuple[float, ...] = (10.0, 8.0)  # the same value in all three tasks, the largest of all
    sigma_pre: tuple[float, ...] = (0.2,)  # inconsistent features in D_pre
    sigma_post: tuple[float, ...] = (1.5,)  # inconsistent features in D_post
    sigma_ft: tuple[float, ...] = (0.2,)  # inconsistent features in D_ft
    beta: tuple[float, ...] = (4.0,)  # specialised features in D_post
    post_variance: float = 1.0  # input variance of D_post on the specialised directions; the paper's is 1
    alpha: float = 0.3  # weight of D_post in the mixed pretraining objective
    overlap: float = 0.0  # input variance of D_ft on the specialised directions; the paper's is 0
    overlap_target: float = 0.0  # value of A_ft there; matters only with overlap
    T: float = 12.0  # every singular value of each layer starts at exp(-T)
    regularisation: float = 0.1  # weight of ||theta - theta_0||^2 in post-training
    lr: float = 0.01  # step size of gradient descent
    pretrain_steps: int | None = None  # None: stop each arm when n - k features are learned
    posttrain_steps: int = 120
    finetune_steps: int = 3000
    seed: int = 0  # of the rotations U and V, and of finite samples

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise UserError("The theory's spec is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))

    def block(self, name: str) -> slice:
        """Where a block's features stand among the n: invariant first, then inconsistent, then specialised."""
        edges = (0, self.n - 2 * self.k, self.n - self.k, self.n)
        i = BLOCKS.index(name)
        return slice(edges[i], edges[i + 1])

    def values(self, field: str) -> Array:
        """A per-block field, one value per feature of its block; (n - 2k,) for `invariant`, else (k,)."""
        given = getattr(self, field)
        count = self.n - 2 * self.k if field == "invariant" else self.k
        if len(given) == 2 and field == "invariant":
            return np.linspace(given[0], given[1], count)
        return np.full(count, given[0]) if len(given) == 1 else np.array(given, dtype=float)

    @property
    def start(self) -> float:
        """exp(-2T): the value every feature starts at."""
        return math.exp(-2 * self.T)

    def replace(self, **changes: object) -> "TheorySpec":
        """A copy with some fields changed; checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def finer(self, factor: int) -> "TheorySpec":
        """The same times in steps `factor` times smaller."""
        pre = None if self.pretrain_steps is None else self.pretrain_steps * factor
        post, ft = self.posttrain_steps * factor, self.finetune_steps * factor
        return self.replace(lr=self.lr / factor, pretrain_steps=pre, posttrain_steps=post, finetune_steps=ft)


@dataclass(frozen=True)
class Objective:
    """What one stage asks of the n features: sum_i variance_i (s_i - target_i)^2 + regularisation (s_i - s_i(0))^2."""

    variance: Array  # (n,) input variance on each right singular direction
    target: Array  # (n,) the value that the data ask for; 0 where there is no input
    regularisation: float | Array  # a number, or (..., 1) over a grid of networks

    @property
    def correlation(self) -> Array:
        """(n,) singular values of the input-output cross-covariance: they set the order of learning."""
        return self.variance * self.target


def task(spec: TheorySpec, name: str) -> Objective:
    """One data set, `pre`, `post` or `ft`, as an objective: input variances and singular values, no regulariser."""
    special = {"pre": (0.0, np.zeros(spec.k)), "post": (spec.post_variance, spec.values("beta"))}
    special["ft"] = (spec.overlap, np.full(spec.k, spec.overlap_target))
    variance, target = np.ones(spec.n), np.empty(spec.n)
    target[spec.block("invariant")] = spec.values("invariant")
    target[spec.block("inconsistent")] = spec.values(f"sigma_{name}")
    variance[spec.block("specialised")], target[spec.block("specialised")] = special[name]
    return Objective(variance, np.where(variance > 0, target, 0.0), 0.0)


def mixture(spec: TheorySpec, alpha: float) -> Objective:
    """The objective (1 - alpha) L_pre + alpha L_post; variances and cross-covariances add, values do not.

    On a specialised direction the variance is alpha nu and the cross-covariance alpha nu beta, so the value asked for
    is beta, not alpha beta.
    """
    pre, post = task(spec, "pre"), task(spec, "post")
    variance = (1 - alpha) * pre.variance + alpha * post.variance
    correlation = (1 - alpha) * pre.correlation + alpha * post.correlation
    return Objective(variance, np.divide(correlation, variance, out=np.zeros(spec.n), where=variance > 0), 0.0)


def objective(spec: TheorySpec, stage: str, arm: str) -> Objective:
    """What `stage` minimises in `arm`; only pretraining differs between the arms."""
    if stage == "pretrain":
        return mixture(spec, spec.alpha if arm == "mixed" else 0.0)
    if stage == "posttrain":
        return dataclasses.replace(task(spec, "post"), regularisation=spec.regularisation)
    return task(spec, "ft")


def named_rng(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for each name, so that drawing from one never shifts another."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def rotations(spec: TheorySpec) -> tuple[Array, Array]:
    """U and V, (n, n) each: orthogonal, drawn from the Haar measure by the spec's seed."""
    out = []
    for name in ("U", "V"):
        q, r = np.linalg.qr(named_rng(spec.seed, f"rotation {name}").standard_normal((spec.n, spec.n)))
        out.append(q * np.sign(np.diag(r)))
    return out[0], out[1]


def spec_from(settings: Mapping[str, str]) -> TheorySpec:
    """A spec from `key=value` texts, as on the command line; lists are separated by commas, `rank` is None.

    Raises:
        UserError: an unknown key (the nearest valid one is named), a text that is no number, or a broken rule.
    """
    kinds = {field.name: field for field in dataclasses.fields(TheorySpec)}
    values: dict[str, object] = {}
    for key, text in settings.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0.3)
            fix = f"did you mean {near[0]}?" if near else "valid keys are " + ", ".join(kinds) + "."
            raise UserError(f"--set {key}={text}: the theory has no field {key}; {fix}")
        values[key] = _parsed(key, text, kinds[key].default)
    return TheorySpec(**values)  # type: ignore[arg-type]


def _parsed(key: str, text: str, default: object) -> object:
    try:
        if key == "pretrain_steps" and text == "rank":
            return None
        if isinstance(default, tuple):
            return tuple(float(part) for part in text.split(","))
        return float(text) if isinstance(default, float) else int(text)
    except ValueError:
        form = {float: "a number", tuple: "a number or numbers separated by commas"}.get(
            type(default), "a whole number"
        )
        extra = " or `rank`" if key == "pretrain_steps" else ""
        raise UserError(f"--set {key}={text}: {text!r} is not {form}{extra}; write e.g. {_example(default)}.") from None


def _example(default: object) -> str:
    return ",".join(str(v) for v in default) if isinstance(default, tuple) else str(100 if default is None else default)


def _problems(spec: TheorySpec) -> list[str]:
    """Every broken rule, in words; an empty list if the spec can be run."""
    out: list[str] = []

    def need(ok: bool, field: str, rule: str) -> None:
        if not ok:
            out.append(f"{field} = {getattr(spec, field)}: {rule}")

    sized = spec.k >= 1 and spec.n > 2 * spec.k and spec.n <= 400
    need(sized, "n", f"must be from 2k + 1 (here {2 * spec.k + 1}) to 400, with k at least 1 (here {spec.k}).")
    for name in ("invariant", "sigma_pre", "sigma_post", "sigma_ft", "beta"):
        given = getattr(spec, name)
        lengths = {1, 2, spec.n - 2 * spec.k} if name == "invariant" else {1, spec.k}
        if name in ("invariant", "beta"):
            need(all(math.isfinite(v) and v > 0 for v in given), name, "singular values here are finite and above 0.")
        else:
            need(all(math.isfinite(v) and v >= 0 for v in given), name, "singular values are finite and not negative.")
        if sized:
            need(
                len(given) in lengths, name, f"give {' or '.join(map(str, sorted(lengths)))} values, not {len(given)}."
            )
    need(0 <= spec.alpha <= 1, "alpha", "must be from 0 to 1.")
    need(0 < spec.post_variance <= 1e4, "post_variance", "must be above 0 and at most 10000.")
    need(0 <= spec.overlap <= 1e4, "overlap", "an input variance: must be from 0 to 10000.")
    need(0 <= spec.overlap_target <= 1e4, "overlap_target", "must be from 0 to 10000.")
    need(0 < spec.T <= 150, "T", "must be above 0 and at most 150 (below that exp(-4T) is still a normal number).")
    need(0 <= spec.regularisation <= 1e4, "regularisation", "must be from 0 to 10000.")
    need(spec.pretrain_steps is None or spec.pretrain_steps >= 0, "pretrain_steps", "must not be negative.")
    for name in ("posttrain_steps", "finetune_steps", "seed"):
        need(getattr(spec, name) >= 0, name, "must not be negative.")
    for name in ("pretrain_steps", "posttrain_steps", "finetune_steps"):
        need((getattr(spec, name) or 0) <= 1_000_000, name, "must be at most 1000000.")
    if not out:
        limit = largest_lr(spec)
        need(0 < spec.lr <= limit, "lr", f"must be above 0 and at most {limit:.3g}, beyond which a step can overshoot.")
    return out


def largest_lr(spec: TheorySpec) -> float:
    """The step size up to which no feature can overshoot its target: 1 / (6 max(v + reg) max(sigma)).

    One step multiplies a by 1 - 2 lr r (s - K), r = v + reg; the map is monotone for s <= (1 / (2 lr r) + K) / 3.
    """
    objectives = [objective(spec, stage, arm) for stage in STAGES for arm in ARMS]
    stiffness = max(float(np.max(o.variance + o.regularisation)) for o in objectives)
    value = max(float(o.target.max()) for o in objectives)
    return float(1.0 / (6.0 * stiffness * max(value, spec.start)))
