"""Held-out losses of a program that is a table: what is summed, in pieces of which shape, and in which mode."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from indelible.data.loader import Batch
from indelible.train.distributed import World
from indelible.train.evaluate import EVAL_TOKENS, DocumentLosses, losses_by_document, mean_loss, target_losses
from indelible.train.heldout import ReportedWindows


class TableProgram:
    """The loss of a target is its token id over 8; notes the shape of every forward, and how it was run."""

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1)
        self.shapes: list[tuple[int, ...]] = []
        self._is_fp32 = False
        self.device = SimpleNamespace(torch_device=torch.device("cpu"), whole_fp32=self._whole_fp32)

    @contextmanager
    def _whole_fp32(self):
        self._is_fp32 = True
        yield
        self._is_fp32 = False

    def token_losses(self, inputs, targets, positions=None):
        assert self._is_fp32
        assert not self.model.training
        assert not torch.is_grad_enabled()
        assert inputs.shape == targets.shape
        assert torch.equal(inputs[:, 1:], targets[:, :-1]), "a target is the next input"
        self.shapes.append(tuple(inputs.shape))
        return targets.float() / 8

    def loss_sum(self, inputs, targets, weights, positions=None):
        return (self.token_losses(inputs, targets, positions) * weights).sum()


def windows(count: int, seq_len: int, seed: int = 0) -> Batch:
    """Windows of which about one target in three does not count."""
    source = np.random.Generator(np.random.PCG64(seed))
    tokens = source.integers(0, 64, (count, seq_len + 1)).astype(np.int64)
    return Batch(tokens, source.random((count, seq_len)) < 2 / 3)


SIZES = [  # windows, their length, and the forwards that they take
    (5, EVAL_TOKENS // 2, [2, 2, 2]),  # as many as fit, the last piece filled up to the same shape
    (4, EVAL_TOKENS // 2, [2, 2]),
    (3, 8, [3]),  # no more than there are
    (2, EVAL_TOKENS + 7, [1, 1]),  # a window that is longer than that is one forward
]


@pytest.mark.parametrize(("count", "seq_len", "forwards"), SIZES)
def test_losses_are_means_over_targets_that_count_in_forwards_of_one_shape(count, seq_len, forwards):
    program, heldout = TableProgram(), windows(count, seq_len)
    expected = heldout.tokens[:, 1:] / 8
    assert mean_loss(program, heldout, World()) == pytest.approx(expected[heldout.valid].mean(), rel=1e-12)
    assert program.shapes == [(size, seq_len) for size in forwards]
    program.shapes.clear()
    each = target_losses(program, heldout)
    assert each.dtype == np.float32
    assert np.array_equal(each, expected), "(N, T), the rows that filled a forward up are gone"
    assert program.shapes == [(size, seq_len) for size in forwards]


@pytest.mark.parametrize("is_training", [True, False])
def test_the_mode_of_the_model_is_given_back(is_training):
    program, heldout = TableProgram(), windows(3, 8)
    for evaluate in (lambda: mean_loss(program, heldout, World()), lambda: target_losses(program, heldout)):
        program.model.train(is_training)
        evaluate()
        assert program.model.training is is_training


def test_windows_without_a_target_that_counts_have_no_loss():
    nothing = Batch(windows(2, 8).tokens, np.zeros((2, 8), bool))
    assert math.isnan(mean_loss(TableProgram(), nothing, World()))
    none = np.zeros(0)
    empty = DocumentLosses(none.astype(np.int64), none.astype(np.int64), none)
    assert math.isnan(empty.mean)
    assert empty.standard_error is None
    unseen = DocumentLosses(np.array([1, 2]), np.array([0, 0]), np.array([0.0, 0.0]))
    assert math.isnan(unseen.mean)
    assert unseen.standard_error is None


def test_losses_are_summed_by_the_document_of_their_target():
    heldout = windows(4, 6)
    documents = np.array([[3] * 6, [3, 3, 9, 9, 9, 9], [9] * 6, [4, 4, 4, 5, 5, 5]])
    heldout.valid[3, 3:] = False  # no target of document 5 counts: it is not among the documents
    found = losses_by_document(TableProgram(), ReportedWindows(heldout, documents), World())
    assert found.document.tolist() == [3, 4, 9]
    for number, tokens, nats in zip(found.document, found.tokens, found.nats, strict=True):
        own = heldout.valid & (documents == number)
        assert tokens == own.sum()
        assert nats == pytest.approx((heldout.tokens[:, 1:] / 8)[own].sum())
    assert found.mean == pytest.approx(found.nats.sum() / found.tokens.sum())


def test_the_standard_error_of_two_documents_by_hand():
    found = DocumentLosses(np.array([0, 7]), np.array([10, 30]), np.array([20.0, 90.0]))
    assert found.mean == 2.75
    # residuals 20 - 27.5 = -7.5 and 90 - 82.5 = 7.5; sqrt(2 / 1 * (56.25 + 56.25)) / 40
    assert found.standard_error == pytest.approx(15 / 40)
