"""What is measured of pairs, each with its number and a standard error: accuracy, margin, and how far from a reference.

All from log-probabilities of whole answers. Pairs with one prompt are not independent, so that standard errors are
clustered by prompt: the ratio estimator with the factor G / (G - 1) for G prompts, as for losses by document.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
OWN = ("accuracy", "margin")  # measures of a model alone
AGAINST_START = ("preference_loss", "reward_accuracy", "reward_margin", "kl")  # measures against a reference
MEASURES = (*OWN, *AGAINST_START)


@dataclass(frozen=True)
class Measure:
    """A mean over pairs."""

    value: float  # NaN without a pair
    standard_error: float | None  # None with fewer than two prompts


def ratio(values: Floats, sizes: Floats, clusters: npt.NDArray[np.int64]) -> Measure:
    """The sum of ``values`` over the sum of ``sizes``, both (N,), with its error over ``clusters`` (N,)."""
    total = float(sizes.sum())
    if not total:
        return Measure(math.nan, None)
    value = float(values.sum()) / total
    _, place = np.unique(clusters, return_inverse=True)
    residuals = np.bincount(place, values - value * sizes)
    count = len(residuals)
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / total if count > 1 else None
    return Measure(value, error)


def own_measures(log_probs: Floats, clusters: npt.NDArray[np.int64]) -> dict[str, Measure]:
    """Measures of a model alone.

    * ``accuracy``: share of pairs whose better answer is the likelier one; an equal one counts half;
    * ``margin``: log p(better) - log p(worse), nats a pair.

    Args:
        log_probs: of the better and the worse answer, (N, 2).
        clusters: the prompt of each pair, (N,).
    """
    gap, ones = log_probs[:, 0] - log_probs[:, 1], np.ones(len(log_probs))
    return {"accuracy": ratio(_wins(gap), ones, clusters), "margin": ratio(gap, ones, clusters)}


def measures_against(
    now: Floats, start: Floats, losses: Floats, beta: float, tokens: Floats, clusters: npt.NDArray[np.int64]
) -> dict[str, Measure]:
    """Measures of a model against the one that its preference stage started from.

    * ``preference_loss``: what the stage minimises, nats a pair;
    * ``reward_accuracy``: share of pairs whose better answer gained more than the worse one; an equal gain counts half;
    * ``reward_margin``: beta times the gain of the better answer less that of the worse one;
    * ``kl``: log p(answer) of the start less that of the model, over both answers of all pairs, divided by their
      tokens: the one-sample (k1) estimate of KL(start || model), nats a token. It is one as far as the answers are
      what the start would say; others make it no more than a distance with a sign.

    Args:
        now: log-probabilities of the better and the worse answer, (N, 2).
        start: the same of the start.
        losses: what is minimised, of each pair, (N,).
        beta: of the log-ratios.
        tokens: of each answer, (N, 2).
        clusters: the prompt of each pair, (N,).
    """
    gain, ones = now - start, np.ones(len(now))
    gap = gain[:, 0] - gain[:, 1]
    return {
        "preference_loss": ratio(losses, ones, clusters),
        "reward_accuracy": ratio(_wins(gap), ones, clusters),
        "reward_margin": ratio(beta * gap, ones, clusters),
        "kl": ratio(-gain.sum(1), tokens.sum(1).astype(np.float64), clusters),
    }


def _wins(gap: Floats) -> Floats:
    return (np.sign(gap) + 1) / 2
