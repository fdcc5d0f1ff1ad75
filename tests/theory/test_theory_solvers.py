"""Full matrices, recursion and closed form: each against another, and each against a hand calculation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.errors import UserError
from indelible.theory import linear, recursion
from indelible.theory.agreement import compare_flow, compare_full
from indelible.theory.tasks import Objective, TheorySpec, objective, rotations, task
from indelible.theory.training import feature_loss, rank_steps, run_chain, run_full_chain

WEIGHT = st.just(0.0) | st.floats(1e-3, 2)  # variances and regularisers: none, or not absurdly small


def one(v=1.0, sigma=2.0, reg=0.0):
    return Objective(np.array([v]), np.array([sigma]), reg)


def test_one_step_by_hand():
    done = recursion.train(np.array([0.5]), one(0.8, 2.0, 0.3), lr=0.1, steps=1)
    # s = 0.25; the regulariser pulls towards the start and so does nothing in the first step
    assert done.a[0] == pytest.approx(0.5 - 2 * 0.1 * 0.8 * (0.25 - 2.0) * 0.5, rel=1e-15)
    again = recursion.train(np.array([0.5]), one(0.8, 2.0, 0.3), lr=0.1, steps=2).a[0]
    a = done.a[0]
    assert again == pytest.approx(a - 0.2 * (0.8 * (a * a - 2.0) + 0.3 * (a * a - 0.25)) * a, rel=1e-15)


def test_zero_and_inputless_features_do_not_move_bitwise():
    goal = Objective(np.array([1.0, 0.0]), np.array([3.0, 0.0]), 0.0)
    done = recursion.train(np.array([0.0, 1e-7]), goal, lr=0.01, steps=500)
    assert done.a.tolist() == [0.0, 1e-7]


def test_networks_of_a_grid_are_independent_bitwise():
    spec = TheorySpec()
    goal = objective(spec, "pretrain", "mixed")
    starts = np.exp(-np.array([[6.0], [9.0], [12.0]])) * np.ones((3, spec.n))
    grid = recursion.train(starts, goal, lr=0.01, steps=np.array([100, 400, 250]))
    for i, steps in enumerate((100, 400, 250)):
        assert np.array_equal(grid.a[i], recursion.train(starts[i], goal, lr=0.01, steps=steps).a)
    ranked = recursion.train(starts, goal, lr=0.01, steps=None, stop_rank=spec.n - spec.k)
    for i in range(3):
        alone = recursion.train(starts[i], goal, lr=0.01, steps=None, stop_rank=spec.n - spec.k)
        assert int(ranked.steps[i]) == int(alone.steps)
        assert np.array_equal(ranked.a[i], alone.a)


def test_rank_stop_is_the_first_step_at_which_enough_features_are_learned():
    spec = TheorySpec()
    goal, steps = objective(spec, "pretrain", "mixed"), rank_steps(spec, "mixed")
    run = recursion.train(np.full(12, np.exp(-12.0)), goal, lr=0.01, steps=steps, record=range(steps + 1))
    learned = (run.recorded >= 0.9 * goal.target).sum(-1)
    assert learned[-1] >= 9 > learned[-2]
    stopped = recursion.train(np.full(12, np.exp(-12.0)), goal, lr=0.01, steps=None, stop_rank=9, max_steps=7)
    assert int(stopped.steps) == 7


@given(
    st.floats(1e-6, 5), WEIGHT, st.floats(0, 5), WEIGHT, st.floats(0, 10), st.floats(0, 10)
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_flow_is_a_semigroup_and_solves_its_equation(s0, v, sigma, reg, t1, t2):
    """With the regulariser anchored at s0 the equation is dS/dt = 4 S (v sigma + reg s0 - (v + reg) S)."""
    goal = one(v, sigma, reg)
    s1 = recursion.flow(np.array([s0]), goal, t1)
    both = recursion.flow(np.array([s0]), goal, t1 + t2)
    pull = v * sigma + reg * s0  # the same anchor, written as a target without a regulariser
    anchored = one(v + reg, pull / (v + reg) if v + reg > 0 else 0.0)
    if pull > 1e-6 or pull == 0:
        assert recursion.flow(s1, anchored, t2)[0] == pytest.approx(both[0], rel=1e-6, abs=1e-300)
    h = 1e-6
    slope = (recursion.flow(np.array([s0]), goal, t1 + h)[0] - s1[0]) / h
    # The slope from t1 is wrong by h/2 times the second derivative, 4 s' (pull - 2 r s).
    scale = 4 * abs(pull - 2 * (v + reg) * s1[0]) + 1
    expected = 4 * s1[0] * (pull - (v + reg) * s1[0])
    assert slope == pytest.approx(expected, rel=1e-4 + h * scale, abs=1e-7)


@given(st.floats(0.5, 5), st.floats(0.2, 2), st.floats(0, 1), st.floats(3, 20), st.floats(0.1, 0.9))
@settings(max_examples=200, deadline=None)
def test_time_to_reach_inverts_the_flow(sigma, v, reg, exponent, share):
    goal, s0 = one(v, sigma, reg), np.array([np.exp(-2 * exponent)])
    time = recursion.time_to_reach(share, s0, goal)
    k = recursion.fixed_point(v, sigma, reg, s0)
    assert recursion.flow(s0, goal, time)[0] == pytest.approx(share * k[0], rel=1e-6)


def test_time_to_reach_has_no_end_without_a_pull():
    assert recursion.time_to_reach(0.9, np.array([1e-9]), one(0.0, 0.0))[0] == np.inf
    assert recursion.time_to_reach(0.9, np.array([1e-9]), one(1.0, 0.0))[0] == np.inf
    assert recursion.time_to_reach(0.9, np.array([1.9]), one(1.0, 2.0))[0] == 0.0


def test_half_time_is_T_over_twice_the_cross_covariance_for_small_starts():
    for sigma in (0.5, 2.0, 6.0):
        time = recursion.time_to_reach(0.5, np.array([np.exp(-80.0)]), one(0.7, sigma))[0]
        assert time == pytest.approx((80 + np.log(sigma)) / (4 * 0.7 * sigma), rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n": 20, "k": 6, "seed": 5, "alpha": 0.6},
        {"sigma_pre": (0.2, 0.4, 0.6), "sigma_ft": (0.0, 1.0, 2.0), "beta": (3.0, 4.0, 5.0), "regularisation": 0.5},
        {"overlap": 0.4, "overlap_target": 2.0, "post_variance": 2.0, "lr": 0.005, "T": 8.0},
    ],
)
def test_full_matrices_agree_with_the_recursion(changes):
    spec = TheorySpec(**{"lr": 0.01, **changes})
    relative, absolute, losses = compare_full(spec)
    assert relative < 1e-6
    assert absolute < 1e-12
    assert losses < 1e-9


@st.composite
def tasks(draw):
    """Any instance at all: values in any order, overlap, large regularisers, every length of every stage."""
    k, extra = draw(st.integers(1, 3)), draw(st.integers(1, 4))

    def block(low, high):
        return tuple(draw(st.floats(low, high)) for _ in range(k))

    frame = {"n": 2 * k + extra, "k": k, "seed": draw(st.integers(0, 2**20)), "alpha": draw(st.floats(0, 1))}
    frame |= {"invariant": tuple(draw(st.floats(0.5, 8)) for _ in range(extra)), "beta": block(0.1, 8)}
    frame |= {"sigma_pre": block(0, 4), "sigma_post": block(0, 4), "sigma_ft": block(0, 4)}
    frame |= {"post_variance": draw(st.floats(0.1, 4)), "regularisation": draw(st.just(0.0) | st.floats(0, 3))}
    frame |= {"overlap": draw(st.just(0.0) | st.floats(0, 2)), "overlap_target": draw(st.floats(0, 4))}
    frame |= {f"{stage}_steps": draw(st.integers(0, 120)) for stage in ("pretrain", "posttrain", "finetune")}
    return TheorySpec(**frame, T=draw(st.floats(0.3, 5)), lr=1e-3)


@given(tasks())
@settings(max_examples=200, deadline=None)
def test_full_matrices_and_recursion_agree_on_any_task(spec):
    relative, absolute, losses = compare_full(spec)
    assert relative < 1e-6
    assert absolute < 1e-12
    assert losses < 1e-6


def test_recursion_converges_to_the_closed_form_at_first_order():
    errors, extrapolated = compare_flow(TheorySpec())
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert ratios[-1] == pytest.approx(2.0, rel=0.01)
    assert extrapolated < 1e-6
    assert extrapolated < errors[-1] / 1000


def test_full_gradient_is_the_derivative_of_the_stated_loss():
    spec = TheorySpec(regularisation=0.3, T=1.0)
    data = linear.sources(spec, "pretrain", "mixed")
    rng = np.random.default_rng(0)
    layers = linear.Layers(rng.normal(size=(12, 12)), rng.normal(size=(12, 12)))
    step = 1e-7
    after = linear.train(layers, data, lr=step, steps=1)
    value = sum(s.weight * linear.loss(layers.theta, s) for s in data)
    i, j, h = 3, 7, 1e-5
    for name in ("w1", "w2"):
        moved = {"w1": layers.w1.copy(), "w2": layers.w2.copy()}
        moved[name][i, j] += h
        up = sum(s.weight * linear.loss(moved["w1"] @ moved["w2"], s) for s in data)
        moved[name][i, j] -= 2 * h
        down = sum(s.weight * linear.loss(moved["w1"] @ moved["w2"], s) for s in data)
        descent = (getattr(layers, name)[i, j] - getattr(after, name)[i, j]) / step
        assert descent == pytest.approx((up - down) / (2 * h), rel=1e-5)
    assert value > 0


def test_losses_of_matrices_and_features_are_the_same_quantity():
    spec = TheorySpec(seed=2)
    u, v = rotations(spec)
    values = np.random.default_rng(1).uniform(0, 5, spec.n)
    theta = (u * values) @ v.T
    for stage, name in (("pretrain", "pre"), ("posttrain", "post"), ("finetune", "ft")):
        source = linear.sources(spec, stage, "unmixed")[0]
        assert linear.loss(theta, source) == pytest.approx(feature_loss(values, task(spec, name)), rel=1e-12)
    x = linear.sources(spec, "posttrain", "unmixed", num_samples=200_000)[0]
    exact = feature_loss(values, task(spec, "post"))
    assert linear.loss(theta, x) == pytest.approx(exact, rel=0.02)  # a mean over 200,000 draws


def test_samples_converge_to_the_population_and_minibatches_run_on_the_same_stream():
    spec = TheorySpec(pretrain_steps=150, posttrain_steps=30, finetune_steps=50)
    exact = run_full_chain(spec, "mixed").losses.L_im
    off = [abs(float(run_full_chain(spec, "mixed", num_samples=n).losses.L_im - exact)) for n in (100, 40_000)]
    assert off[1] < off[0]
    batches = [run_full_chain(spec, "mixed", num_samples=500, batch_size=50).losses.L_im for _ in range(2)]
    assert batches[0] == batches[1]
    assert batches[0] != run_full_chain(spec, "mixed", num_samples=500).losses.L_im


def test_minibatches_without_samples_are_refused():
    with pytest.raises(UserError, match="batch_size = 8 needs num_samples: a population has no minibatches"):
        run_full_chain(TheorySpec(), "mixed", batch_size=8)


@pytest.mark.parametrize(
    ("changes", "found"), [({"sigma_pre": (0.0,)}, "never"), ({"sigma_pre": (1e-4,)}, "after about")]
)
def test_a_rank_that_is_never_reached_is_refused(changes, found):
    with pytest.raises(UserError, match=rf"pretrain_steps = rank: the unmixed run learns n - k = 9 features {found}"):
        run_chain(TheorySpec(**changes), "unmixed")


def test_recorded_path_ends_where_the_chain_ends():
    chain = run_chain(TheorySpec(), "mixed", points_per_stage=5)
    assert len(chain.time) == 15
    assert np.array_equal(chain.path[-1], chain.values[2])
    assert chain.time[-1] == pytest.approx(sum(chain.steps) * 0.01)
    assert chain.losses.delta == chain.losses.L_ret - chain.losses.L_im
