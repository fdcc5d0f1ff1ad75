"""Frontiers against hand-made cases and against the frontiers that the paper draws."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.claims import paper_figures as paper
from indelible.statistics.frontier import (
    additive_epsilon,
    attainment,
    edge_flags,
    gap,
    hypervolume,
    lower_left_hull,
    pareto_set,
)

coordinates = st.floats(0, 4, allow_nan=False, width=32)
clouds = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=40)


def test_pareto_set_and_hull_by_hand():
    points = [(1, 5), (2, 3), (3, 2.5), (4, 1), (4, 4), (2, 3), (5, 1)]
    assert pareto_set(points).tolist() == [[1, 5], [2, 3], [3, 2.5], [4, 1]]
    assert lower_left_hull(points).tolist() == [[1, 5], [2, 3], [4, 1]]


def test_ties_and_points_on_a_line():
    assert lower_left_hull([(0, 2), (1, 1), (2, 0)]).tolist() == [[0, 2], [2, 0]]
    assert pareto_set([(0, 2), (0, 1), (1, 1)]).tolist() == [[0, 1]]
    assert pareto_set([]).shape == lower_left_hull([]).shape == (0, 2)


@given(clouds)
def test_no_point_beats_the_pareto_set_and_the_hull_supports_all(cloud):
    points = np.array(cloud)
    front, hull = pareto_set(points), lower_left_hull(points)
    for point in points:
        assert (front <= point).all(axis=1).any()
    for first, second in pairwise(hull):
        normal = np.array([first[1] - second[1], second[0] - first[0]])  # points to the upper right
        assert ((points - first) @ normal > -1e-9).all()
    assert {tuple(point) for point in hull} <= {tuple(point) for point in front}


def test_hypervolume_by_hand():
    assert hypervolume([(1, 2), (2, 1)], (3, 3)) == pytest.approx(3)
    assert hypervolume([(1, 2), (2, 1), (9, 0)], (3, 3)) == pytest.approx(3)
    assert hypervolume([], (3, 3)) == 0


def test_additive_epsilon_by_hand():
    assert additive_epsilon([(1.5, 2.25)], [(1, 2)]) == pytest.approx(0.5)
    assert additive_epsilon([(0.5, 1)], [(1, 2)]) == pytest.approx(-0.5)


def test_attainment_of_two_seeds_by_hand():
    points, seeds = [(1, 2), (2, 1), (1.5, 3), (3, 1.5)], [0, 0, 7, 7]
    best, _, worst = attainment(points, seeds)
    assert best.tolist() == [[1, 2], [2, 1]]
    assert worst.tolist() == [[1.5, 3], [3, 1.5]]


def test_attainment_of_three_seeds_is_nested():
    generator = np.random.default_rng(0)
    points, seeds = generator.random((30, 2)), np.repeat([0, 1, 2], 10)
    surfaces = attainment(points, seeds)
    for better, worse in pairwise(surfaces):
        for corner in worse:
            assert (better <= corner + 1e-12).all(axis=1).any()
    assert surfaces[0].tolist() == pareto_set(points).tolist()
    half = surfaces[1]
    for corner in half:  # the middle surface is attained by at least two of three seeds
        attained = sum(bool((points[seeds == seed] <= corner + 1e-12).all(axis=1).any()) for seed in (0, 1, 2))
        assert attained >= 2


def test_gap_by_hand():
    found = gap([(0, 2), (2, 0)], [(1, 0.5), (3, 0.5)])
    assert (found.start, found.end) == (1, 2)
    assert (found.low, found.high) == (pytest.approx(-0.5), pytest.approx(0.5))
    assert found.mean == pytest.approx(0)
    assert found.second_lower_share == pytest.approx(0.5)
    assert gap([(0, 1), (1, 0)], [(2, 1), (3, 0)]) is None
    assert gap([], [(0, 0)]) is None
    assert gap([(0, 2), (2, 0)], [(0, 1), (2, 0)], start=1).mean == pytest.approx(-0.25)


def test_edge_flags_name_the_end_and_the_side():
    table = pl.DataFrame({"L_ft": [3.0, 2.0, 1.0], "L_ret": [1.0, 2.0, 3.0], "finetune_lr": [1e-4, 3e-4, 1e-3],
                          "dropout": [0.0, 0.0, 0.0]})  # fmt: skip
    flags = edge_flags(table, "L_ft", "L_ret", ["finetune_lr", "dropout"])
    assert [(flag.end, flag.setting, flag.side) for flag in flags] == [
        ("low_x", "finetune_lr", "largest"), ("low_y", "finetune_lr", "smallest"),
    ]  # fmt: skip
    inner = table.with_columns(finetune_lr=pl.Series([3e-4, 1e-3, 3e-4]))
    assert edge_flags(pl.concat([inner, table.with_columns(L_ft=None, L_ret=None)], how="vertical_relaxed"),
                      "L_ft", "L_ret", ["finetune_lr"]) == []  # fmt: skip


# ---- the paper

# Lines that run off the canvas towards a marker beyond it. That marker is not in the PDF: the hull of the rest differs.
CLIPPED = {(2, "a", "left", "mixed"), (2, "b", "left", "unmixed"), (2, "b", "left", "mixed"), (4, "a", "left", "mixed"),
           (4, "a", "right", "mixed"), (4, "a", "right", "mixed+replay"), (4, "b", "right", "unmixed"),
           (4, "b", "right", "mixed+replay")}  # fmt: skip


def clouds_of_the_paper():
    markers, drawn = paper.markers(), paper.drawn_frontiers()
    for row in paper.series().iter_rows(named=True):
        key = (row["figure"], row["panel"], row["subplot"], row["series"])
        points = markers.filter(pl.col("series_id") == row["id"]).select("x", "y").to_numpy()
        yield key, row, points, drawn.filter(pl.col("series_id") == row["id"])


def test_the_hull_gives_the_papers_drawn_frontier_in_82_of_90_series():
    exact = set()
    others = {}
    for key, _, points, drawn in clouds_of_the_paper():
        vertices = drawn.filter(~pl.col("is_clipped")).select("x", "y").to_numpy()
        hull = lower_left_hull(points)
        if hull.shape == vertices.shape and np.abs(hull - vertices).max() < 2e-6:
            exact.add(key)
        else:
            others[key] = (hull, vertices, drawn)
    assert len(exact) == 82
    assert set(others) == CLIPPED
    for hull, vertices, drawn in others.values():
        assert drawn["is_clipped"].any()
        inner = {tuple(vertex) for vertex in vertices.round(5)}
        extra = [vertex for vertex in hull if tuple(vertex.round(5)) not in inner]
        assert inner <= {tuple(vertex) for vertex in hull.round(5)}
        # what the hull has too much is only its outermost vertex, where the drawn line passes below it on its way out
        assert all((vertex == hull[0]).all() or (vertex == hull[-1]).all() for vertex in extra)


def test_the_clipped_lines_run_to_markers_that_other_figures_show():
    chains = paper.chains()
    checked = 0
    for key, row, points, drawn in clouds_of_the_paper():
        if key not in CLIPPED or row["series"] == "mixed+replay":  # of mixed+replay no other figure shows the rest
            continue
        same = (pl.col("size") == row["size"]) & (pl.col("pipeline") == row["pipeline"])
        known = chains.filter(same, pl.col("series") == row["series"]).select(row["x_quantity"], row["y_quantity"])
        hull = lower_left_hull(np.concatenate([points, known.drop_nulls().to_numpy()]))
        line = drawn.select("x", "y").to_numpy()
        assert np.abs(np.interp(line[:, 0], hull[:, 0], hull[:, 1]) - line[:, 1]).max() < 1e-5
        checked += 1
    assert checked == 6


@pytest.mark.parametrize(
    ("panel", "subplot", "expected"),
    [("a", "left", -0.105), ("b", "left", -0.048), ("c", "left", -0.040), ("d", "left", -0.042),
     ("a", "right", -0.191), ("b", "right", -0.117), ("c", "right", -0.102), ("d", "right", -0.092)],
)  # fmt: skip
def test_mean_gaps_of_figure_2(panel, subplot, expected):
    chosen = paper.series().filter(figure=2, panel=panel, subplot=subplot)
    ids = dict(chosen.select("series", "id").iter_rows())
    visible = paper.markers().filter(pl.col("series_id").is_in(list(ids.values())), pl.col("is_visible"))["x"]
    lines = {name: paper.drawn_frontiers().filter(series_id=key).select("x", "y") for name, key in ids.items()}
    found = gap(lines["unmixed"], lines["mixed"], start=visible.min(), end=visible.max())
    assert found.mean == pytest.approx(expected, abs=0.01)


def test_half_of_four_seeds_are_two():
    points = [(1, 4), (2, 3), (3, 2), (4, 1)]
    best, half, worst = attainment(points, [0, 1, 2, 3])
    assert best.tolist() == [[1, 4], [2, 3], [3, 2], [4, 1]]
    assert half.tolist() == [[2, 4], [3, 3], [4, 2]]
    assert worst.tolist() == [[4, 4]]


def test_frontiers_that_meet_in_one_place_are_compared_there():
    found = gap([(0, 2), (2, 0)], [(1, 0.5)])
    assert (found.start, found.end, found.mean, found.second_lower_share) == (1, 1, pytest.approx(-0.5), 1.0)
    assert gap([(0, 2), (1, 1)], [(1, 3), (2, 0)]).mean == pytest.approx(2)
