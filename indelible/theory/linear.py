"""The network itself: two full weight matrices, gradient descent on the squared loss.

theta = W1 W2 is (n, n); a stage's data are one or two sources (weight, covariance or samples, teacher). With population
covariances the descent is exact and stays diagonal in (U, V) from an aligned start; with samples it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indelible.theory.tasks import Array, TheorySpec, named_rng, rotations, task


@dataclass(frozen=True)
class Source:
    """One data set of a stage."""

    weight: float  # its share of the objective
    teacher: Array  # (n, n) A: y = A x, without noise
    covariance: Array  # (n, n) of the inputs: the population's, or the samples'
    samples: Array | None  # (n, N) inputs as columns; None for the population


@dataclass(frozen=True)
class Layers:
    """The two weight matrices, (n, n) each."""

    w1: Array
    w2: Array

    @property
    def theta(self) -> Array:
        """(n, n) the linear map W1 W2."""
        return self.w1 @ self.w2


def initial_layers(spec: TheorySpec, kind: str = "aligned") -> Layers:
    """Both layers with all singular values exp(-T).

    `aligned`: W1 = exp(-T) U, W2 = exp(-T) V', so that U' theta V is diagonal from the start. `identity`: exp(-T) I on
    both layers as printed, which is aligned only if U = V.
    """
    scale = np.exp(-spec.T)
    if kind == "identity":
        return Layers(scale * np.eye(spec.n), scale * np.eye(spec.n))
    u, v = rotations(spec)
    return Layers(scale * u, scale * v.T)


def sources(spec: TheorySpec, stage: str, arm: str, num_samples: int | None = None) -> list[Source]:
    """The data of a stage: D_pre (and D_post in the mixed arm), D_post, or D_ft; population or `num_samples` each."""
    if stage == "pretrain":
        mixed = [("pre", 1 - spec.alpha), ("post", spec.alpha)]
        parts = mixed if arm == "mixed" else [("pre", 1.0)]
    else:
        parts = [("post" if stage == "posttrain" else "ft", 1.0)]
    u, v = rotations(spec)
    out = []
    for name, weight in parts:
        data = task(spec, name)
        teacher = (u * data.target) @ v.T
        if num_samples is None:
            out.append(Source(weight, teacher, (v * data.variance) @ v.T, None))
            continue
        noise = named_rng(spec.seed, f"samples {stage} {name}").standard_normal((spec.n, num_samples))
        x = v @ (np.sqrt(data.variance)[:, None] * noise)
        out.append(Source(weight, teacher, x @ x.T / num_samples, x))
    return out


def train(
    layers: Layers,
    data: Sequence[Source],
    *,
    lr: float,
    steps: int,
    regularisation: float = 0.0,
    batch_size: int | None = None,
    rng: np.random.Generator | None = None,
) -> Layers:
    """Gradient descent on E||theta x - A x||^2 + regularisation ||theta - theta_0||^2, both layers at once.

    Args:
        layers: the start; not changed.
        data: the sources of the stage; their weights sum to 1.
        lr: step size.
        steps: number of updates.
        regularisation: weight of the pull towards theta_0, the map at the start of this call.
        batch_size: samples per step, drawn with replacement from the sources by weight; None: all of them.
        rng: for the minibatches; needed with `batch_size`.
    """
    w1, w2 = layers.w1.copy(), layers.w2.copy()
    theta_0 = w1 @ w2
    covariance = sum(s.weight * s.covariance for s in data)
    correlation = sum(s.weight * s.teacher @ s.covariance for s in data)
    for _ in range(steps):
        if batch_size is not None:
            assert rng is not None, "minibatches need a random stream"
            covariance, correlation = _minibatch(data, batch_size, rng)
        theta = w1 @ w2
        gradient = 2 * (theta @ covariance - correlation + regularisation * (theta - theta_0))
        w1, w2 = w1 - lr * gradient @ w2.T, w2 - lr * w1.T @ gradient
    return Layers(w1, w2)


def _minibatch(data: Sequence[Source], batch_size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Covariance and cross-covariance of one batch; each sample comes from a source with the source's weight."""
    counts: NDArray[np.int64] = rng.multinomial(batch_size, [s.weight for s in data])
    n = data[0].teacher.shape[0]
    covariance, correlation = np.zeros((n, n)), np.zeros((n, n))
    for source, count in zip(data, counts, strict=True):
        assert source.samples is not None, "minibatches need samples, not a population"
        x = source.samples[:, rng.integers(source.samples.shape[1], size=count)]
        gram = x @ x.T / batch_size
        covariance += gram
        correlation += source.teacher @ gram
    return covariance, correlation


def loss(theta: Array, source: Source) -> float:
    """E||theta x - A x||^2 of one data set, with its covariance: tr((theta - A) C (theta - A)')."""
    error = theta - source.teacher
    return float(np.einsum("ij,jk,ik->", error, source.covariance, error))


def modes(spec: TheorySpec, theta: Array) -> tuple[Array, float]:
    """The n feature values diag(U' theta V), and the largest absolute entry off that diagonal."""
    u, v = rotations(spec)
    inside = u.T @ theta @ v
    values = np.diag(inside).copy()
    return values, float(np.abs(inside - np.diag(values)).max())
