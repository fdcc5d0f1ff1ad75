"""The score of a frontier: exact, monotone, and fair where arms have unequal numbers of chains."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.statistics.frontier import hypervolume
from indelible.statistics.frontier_score import compare_frontiers, expected_hypervolume, score
from indelible.statistics.inference import Inference

REFERENCE = 4.0
coordinates = st.floats(0, 5, allow_nan=False, width=16)
points = st.tuples(coordinates, coordinates)
clouds = st.lists(points, min_size=1, max_size=7)


def best(cloud, k=None):
    return score([cloud], [len(cloud) if k is None else k], REFERENCE)


@given(clouds)
def test_the_best_of_all_is_the_plain_hypervolume(cloud):
    expected = hypervolume(cloud, (REFERENCE, REFERENCE))
    assert expected_hypervolume([cloud], [len(cloud)], REFERENCE) == pytest.approx(expected, abs=1e-9)


@given(clouds, st.integers(0, 7))
def test_the_best_of_k_is_the_mean_over_all_choices(cloud, k):
    k = min(k, len(cloud))
    each = [hypervolume(chosen, (REFERENCE, REFERENCE)) for chosen in combinations(cloud, k)]
    assert expected_hypervolume([cloud], [k], REFERENCE) == pytest.approx(np.mean(each), abs=1e-9)


@settings(deadline=None)  # up to 1,225 choices of each example, and the machine may be busy
@given(clouds, clouds, st.integers(1, 3), st.integers(1, 3))
def test_the_best_of_some_of_each_block_is_the_mean_over_all_choices(one, other, k, m):
    k, m = min(k, len(one)), min(m, len(other))
    each = [hypervolume([*first, *second], (REFERENCE, REFERENCE))
            for first in combinations(one, k) for second in combinations(other, m)]  # fmt: skip
    assert expected_hypervolume([one, other], [k, m], REFERENCE) == pytest.approx(np.mean(each), abs=1e-9)


@given(clouds, st.lists(points, min_size=1, max_size=4))
def test_adding_chains_never_makes_a_frontier_worse(cloud, more):
    assert best([*cloud, *more]) <= best(cloud) + 1e-9


@given(clouds, st.integers(1, 7), st.integers(0, 6))
def test_a_chain_that_diverges_never_makes_a_frontier_better(cloud, k, place):
    k = min(k, len(cloud))
    bad = [(REFERENCE, REFERENCE) if number == place else point for number, point in enumerate(cloud)]
    assert best(bad, k) >= best(cloud, k) - 1e-9


@given(clouds, st.integers(1, 6))
def test_a_larger_choice_is_never_worse(cloud, k):
    k = min(k, len(cloud) - 1)
    if k >= 1:
        assert best(cloud, k + 1) <= best(cloud, k) + 1e-9


def test_the_score_by_hand():
    # within a bound on x below 1 nothing is reached (4), from 1 to 2 the lowest y is 3, from there on 1
    assert best([(1, 3), (2, 1)]) == pytest.approx((4 * 1 + 3 * 1 + 1 * 2) / 4)
    assert best([(5, 0), (0, 5)]) == 4.0  # beyond the reference, as useless as a diverged chain


def test_many_chains_of_no_use_do_not_overflow():
    cloud = np.random.default_rng(0).uniform(0, 6, (400, 2))
    assert 0 < best(cloud) < best(cloud, 3) < REFERENCE


def arm(points_by_seed, **settings):
    rows = [
        {"scale": "pico", "pipeline": "a>b>c", "arm": "", "finetune_lr": float(place), **settings, "seed": seed,
         "posttrain_global_batch_size": 1, "L_im": 2.0, "L_ft": x, "L_ret": y,
         "status": "diverged" if x is None else "done", "finetune_id": f"f-{settings}-{seed}-{place}"}
        for seed, cloud in points_by_seed.items() for place, (x, y) in enumerate(cloud)
    ]  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def compared(first, second):
    return compare_frontiers(first, second, ("L_ft", "L_ret"), Inference(), ("dropout",))


def test_the_comparison_is_paired_over_seeds_at_the_fixed_reference():
    first = arm({seed: [(3 + seed, 4), (5 + seed, 2)] for seed in (0, 1, 2)}, dropout=0.0)
    second = arm({seed: [(3 + seed, 3), (5 + seed, 1)] for seed in (0, 1, 2)}, dropout=0.1)
    found = compared(first, second)
    expected = {seed: -(12.5 - 3 - seed) / 12.5 for seed in (0, 1, 2)}
    assert found.result.differences == {seed: pytest.approx(value) for seed, value in expected.items()}
    assert (found.num_chains, found.best_of, found.num_diverged) == ((2, 2), 2, 0)
    assert found.gaps[0].mean == pytest.approx(-1)
    assert len(found.finetune_ids) == 12


def test_more_draws_from_the_same_box_are_no_advantage():
    generator = np.random.default_rng(0)
    cloud, *others = [{seed: [tuple(point) for point in generator.uniform(2, 6, (6, 2))] for seed in range(40)}
                      for _ in range(3)]  # fmt: skip
    double = pl.concat([arm(one, dropout=dropout) for one, dropout in zip(others, (0.1, 0.2), strict=True)])
    found = compared(arm(cloud, dropout=0.0), double)
    assert (found.num_chains, found.best_of) == ((6, 12), 6)
    assert abs(found.result.effect) < 2.5 * found.result.standard_error
    plain = [best_of_box([*others[0][seed], *others[1][seed]]) - best_of_box(cloud[seed]) for seed in range(40)]
    assert np.mean(plain) < -4 * np.std(plain) / np.sqrt(40)  # without the equal choice it would be one


def best_of_box(cloud):
    return score([cloud], [len(cloud)], 12.5)


def test_the_choice_keeps_the_sweep_of_the_other_arm():
    """Two variants that are the arm itself: four of its eight chains at random would lose half of its sweep."""
    cloud = {seed: [(3.0 + seed, 9.0), (5.0, 7.0), (7.0, 5.0), (9.0, 3.0)] for seed in (0, 1)}
    double = pl.concat([arm(cloud, dropout=dropout) for dropout in (0.1, 0.2)])
    found = compared(arm(cloud, dropout=0.0), double)
    assert found.best_of == 4
    assert found.result.effect == pytest.approx(0, abs=1e-12)


def test_arms_without_a_common_setting_are_one_block():
    cloud = {seed: [(3.0, 4.0), (5.0, 2.0 + seed)] for seed in (0, 1)}
    other = arm(cloud, dropout=0.1).with_columns(pl.col("finetune_lr") + 100)
    found = compared(arm(cloud, dropout=0.0), other)
    assert (found.best_of, found.result.effect) == (2, pytest.approx(0))


def test_every_seed_counts_with_the_same_settings():
    first = arm({seed: [(3, 4), (5, 2)] for seed in (0, 1, 2)}, dropout=0.0)
    second = arm({0: [(3, 3), (5, 1)], 1: [(3, 3), (5, 1)], 2: [(3, 3)]}, dropout=0.1)
    found = compared(first, second)
    assert (found.num_chains, found.best_of) == ((2, 1), 1)  # the setting that a seed lacks counts for none
    assert found.result.effect == pytest.approx(-9.5 / 12.5)
    begun = compared(first, arm({0: [(3, 3), (5, 1)], 1: [(3, 3), (5, 1)], 9: [(3, 3), (5, 1)]}))
    assert sorted(begun.result.differences) == [0, 1]


def test_a_diverged_chain_is_a_choice_that_reaches_nothing():
    first = arm({seed: [(3, 4), (5, 2)] for seed in (0, 1)}, dropout=0.0)
    whole = compared(first, arm({seed: [(3, 3), (5, 1)] for seed in (0, 1)}))
    bad = compared(first, arm({0: [(3, 3), (None, None)], 1: [(3, 3), (5, 1)]}))
    assert bad.num_chains == (2, 2)
    assert bad.num_diverged == 1
    assert bad.result.effect > whole.result.effect
    lost = compared(first, arm({seed: [(None, None)] * 2 for seed in (0, 1)}))
    assert lost.result.effect > 0
    assert lost.gaps == {}
