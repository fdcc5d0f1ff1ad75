"""Two checkpoints paired by held-out document."""

import numpy as np
import pytest
from scipy import stats

from indelible.statistics.by_document import compare_documents
from indelible.train.evaluate import DocumentLosses


def test_the_mean_difference_is_weighted_by_tokens_and_signs_are_counted():
    found = compare_documents([3, 5, 8, 9], [10, 20, 30, 40], [20.0, 40.0, 60.0, 80.0], [25.0, 30.0, 66.0, 80.0])
    assert found.effect == pytest.approx((5 - 10 + 6 + 0) / 100)
    assert (found.num_documents, found.num_tokens) == (4, 100)
    assert (found.num_worse, found.num_better) == (2, 1)
    assert [(one.document, one.tokens, one.difference) for one in found.worst] == [(3, 10, 0.5), (8, 30, 0.2)]


def test_equal_documents_give_the_paired_t_interval():
    """With documents of one length the ratio is a mean, and its interval is Student's."""
    generator = np.random.default_rng(0)
    first, second = generator.normal(3, 1, 12), generator.normal(3.2, 1, 12)
    found = compare_documents(range(12), [50] * 12, first * 50, second * 50, level=0.1)
    expected = stats.ttest_rel(second, first).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.standard_error == pytest.approx(stats.sem(second - first))


def test_the_standard_error_is_that_of_the_evaluation_of_the_differences():
    generator = np.random.default_rng(1)
    tokens = generator.integers(5, 500, 30)
    nats = generator.normal(0.1, 0.2, 30) * tokens
    own = DocumentLosses(np.arange(30), tokens, nats)
    found = compare_documents(np.arange(30), tokens, np.zeros(30), nats)
    assert found.effect == pytest.approx(own.mean)
    assert found.standard_error == pytest.approx(own.standard_error)


def test_one_document_has_no_interval():
    found = compare_documents([0], [10], [20.0], [10.0])
    assert (found.effect, found.low, found.high, found.standard_error) == (-1.0, None, None, None)
    assert found.worst == ()


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(2)
    num_covered = 0
    for _ in range(2_000):
        tokens = generator.integers(50, 400, 20)
        nats = (0.3 + generator.normal(0, 0.4, 20)) * tokens
        found = compare_documents(range(20), tokens, np.zeros(20), nats)
        num_covered += found.low <= 0.3 <= found.high
    assert num_covered / 2_000 == pytest.approx(0.95, abs=0.025)


def test_two_documents_have_an_interval_and_the_worst_are_listed_first():
    found = compare_documents([0, 1], [10, 10], [20.0, 20.0], [21.0, 23.0])
    assert found.standard_error == pytest.approx(0.1)
    assert found.effect == pytest.approx(0.2)
    assert found.low < found.effect < found.high
    many = compare_documents(range(9), [10] * 9, [0.0] * 9, list(range(9)))
    assert [one.document for one in many.worst] == [8, 7, 6, 5, 4]
