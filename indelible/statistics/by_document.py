"""Two checkpoints on the same held-out documents: the mean difference, how sure it is, and where it got worst.

The unit is the document: its loss under one checkpoint is paired with its loss under the other. What is said holds for
these two checkpoints and texts like these; it says nothing about other seeds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from indelible.statistics.inference import t_quantile
from indelible.statistics.planning import LEVEL

NUM_WORST = 5  # documents that are listed


@dataclass(frozen=True)
class DocumentChange:
    """What changed on one document."""

    document: int  # its number in the held-out split
    tokens: int  # targets that count
    difference: float  # second minus first, nats per token


@dataclass(frozen=True)
class DocumentComparison:
    """Second checkpoint minus first on one corpus, nats per token."""

    effect: float  # all nats of the difference over all tokens
    standard_error: float | None  # clustered by document; None with one document
    low: float | None  # ends of the t interval with G - 1 degrees of freedom for G documents
    high: float | None
    level: float  # two-sided; the interval covers with 1 - level
    num_documents: int
    num_tokens: int
    num_worse: int  # documents whose loss is higher under the second
    num_better: int  # lower; a document without a difference counts as neither
    worst: tuple[DocumentChange, ...]  # of those that got worse the worst by nats per token, the worst first


def compare_documents(
    document: ArrayLike,
    tokens: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    level: float = LEVEL,
    num_worst: int = NUM_WORST,
) -> DocumentComparison:
    """Summarises the paired differences of two checkpoints by document.

    The mean is a ratio of sums, and its standard error is that of the ratio estimator's linearisation with the factor
    G / (G - 1) for G documents (Cochran, Sampling Techniques, 6.3 and 9A), as that of each loss is.

    Args:
        document: numbers, one a document.
        tokens: targets that count, by document, above 0.
        first: nats of the first checkpoint, their sum by document.
        second: the same of the second.
        level: of the interval, two-sided.
        num_worst: documents to list, at most.
    """
    numbers, counts = np.asarray(document), np.asarray(tokens)
    nats = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    total, clusters = int(counts.sum()), len(counts)
    effect = float(nats.sum()) / total
    error = low = high = None
    if clusters > 1:
        residuals = nats - effect * counts
        error = math.sqrt(clusters / (clusters - 1) * float((residuals**2).sum())) / total
        half = t_quantile(1 - level / 2, clusters - 1) * error
        low, high = effect - half, effect + half
    by_token = nats / counts
    order = [at for at in np.lexsort((numbers, -by_token))[:num_worst] if nats[at] > 0]
    return DocumentComparison(
        effect=effect, standard_error=error, low=low, high=high, level=level,
        num_documents=clusters, num_tokens=total, num_worse=int((nats > 0).sum()), num_better=int((nats < 0).sum()),
        worst=tuple(DocumentChange(int(numbers[at]), int(counts[at]), float(by_token[at])) for at in order),
    )  # fmt: skip
