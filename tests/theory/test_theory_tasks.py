"""Specs, blocks, mixtures, and every message for a spec that cannot be run."""

import numpy as np
import pytest

from indelible.errors import UserError
from indelible.theory.tasks import BLOCKS, TheorySpec, largest_lr, mixture, named_rng, rotations, spec_from, task


def test_blocks_tile_the_features_and_broadcast_their_values():
    spec = TheorySpec(n=11, k=4, sigma_pre=(0.1, 0.2, 0.3, 0.4), invariant=(9.0, 8.5, 8.0))
    positions = np.concatenate([np.arange(spec.n)[spec.block(name)] for name in BLOCKS])
    assert positions.tolist() == list(range(11))
    assert spec.values("sigma_pre").tolist() == [0.1, 0.2, 0.3, 0.4]
    assert spec.values("invariant").tolist() == [9.0, 8.5, 8.0]
    assert spec.values("beta").tolist() == [4.0] * 4
    assert TheorySpec(invariant=(10.0, 8.0)).values("invariant").tolist() == pytest.approx([10, 9.6, 9.2, 8.8, 8.4, 8])


def test_mixture_adds_variances_and_cross_covariances_not_values():
    spec = TheorySpec(alpha=0.25, post_variance=2.0, lr=0.005)
    mixed, special = mixture(spec, spec.alpha), spec.block("specialised")
    assert mixed.variance[special] == pytest.approx(0.25 * 2.0)
    assert mixed.target[special] == pytest.approx(4.0)
    assert mixed.target[spec.block("inconsistent")] == pytest.approx(0.75 * 0.2 + 0.25 * 1.5)
    assert mixture(spec, 0.0).variance[special].tolist() == [0, 0, 0]
    assert task(spec, "ft").correlation[special].tolist() == [0, 0, 0]


def test_rotations_are_orthogonal_seeded_and_streams_are_apart():
    u, v = rotations(TheorySpec(seed=3))
    for q in (u, v):
        assert np.abs(q @ q.T - np.eye(12)).max() < 1e-13
    assert np.array_equal(u, rotations(TheorySpec(seed=3, alpha=0.9))[0])
    assert not np.allclose(u, rotations(TheorySpec(seed=4))[0])
    assert not np.allclose(u, v)
    assert named_rng(1, "a").integers(1 << 60) != named_rng(1, "b").integers(1 << 60)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 6, "k": 3}, "n = 6: must be from 2k + 1 (here 7) to 400"),
        ({"sigma_pre": (-0.1,)}, "sigma_pre = (-0.1,): singular values are finite and not negative"),
        ({"beta": (0.0,)}, "beta = (0.0,): singular values here are finite and above 0"),
        ({"beta": (1.0, 2.0)}, "beta = (1.0, 2.0): give 1 or 3 values, not 2"),
        ({"invariant": (9.0, 8.0, 7.0)}, "give 1 or 2 or 6 values, not 3"),
        ({"alpha": 1.5}, "alpha = 1.5: must be from 0 to 1"),
        ({"post_variance": 0.0}, "post_variance = 0.0: must be above 0"),
        ({"overlap": -1.0}, "overlap = -1.0: an input variance"),
        ({"overlap_target": -1.0}, "overlap_target = -1.0: must be from 0"),
        ({"T": 0.0}, "T = 0.0: must be above 0 and at most 150"),
        ({"T": float("nan")}, "T = nan"),
        ({"regularisation": -0.5}, "regularisation = -0.5: must be from 0"),
        ({"pretrain_steps": -1}, "pretrain_steps = -1: must not be negative"),
        ({"posttrain_steps": -1}, "posttrain_steps = -1: must not be negative"),
        ({"finetune_steps": 2_000_000}, "finetune_steps = 2000000: must be at most 1000000"),
        ({"lr": 0.5}, "lr = 0.5: must be above 0 and at most 0.0152"),
    ],
)
def test_each_broken_rule_is_named(changes, words):
    with pytest.raises(UserError) as caught:
        TheorySpec(**changes)
    assert words in str(caught.value)


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        TheorySpec(alpha=-1.0, T=-2.0, regularisation=-3.0)
    assert all(word in str(caught.value) for word in ("alpha = -1", "T = -2", "regularisation = -3"))


def test_largest_lr_does_not_overshoot_and_twelve_times_it_does():
    spec = TheorySpec(regularisation=0.0)
    a = np.sqrt(np.linspace(1e-6, 10.0, 1000))
    lr = largest_lr(spec)
    assert (a * (1 + 2 * lr * (10 - a * a)))[:-1].max() < np.sqrt(10)
    assert (a * (1 + 24 * lr * (10 - a * a))).max() > np.sqrt(10)


def test_spec_from_texts():
    spec = spec_from({"alpha": "0.5", "beta": "3,4,5", "posttrain_steps": "7", "pretrain_steps": "rank"})
    assert (spec.alpha, spec.beta, spec.posttrain_steps, spec.pretrain_steps) == (0.5, (3.0, 4.0, 5.0), 7, None)
    assert spec_from({"pretrain_steps": "30"}).pretrain_steps == 30


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("alhpa", "1", "--set alhpa=1: the theory has no field alhpa; did you mean alpha?"),
        ("zzzzzz", "1", "valid keys are n, k,"),
        ("alpha", "much", "'much' is not a number; write e.g. 0.3"),
        ("beta", "1;2", "'1;2' is not a number or numbers separated by commas; write e.g. 4.0"),
        ("n", "1.5", "'1.5' is not a whole number; write e.g. 12"),
        ("pretrain_steps", "all", "'all' is not a whole number or `rank`; write e.g. 100"),
    ],
)
def test_texts_that_are_no_setting(key, text, words):
    with pytest.raises(UserError) as caught:
        spec_from({key: text})
    assert words in str(caught.value)
