"""Grids, maps and what they are said to show; and the page and tables made of them."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from indelible import theory
from indelible.cli.theory_commands import parsed_settings, register
from indelible.errors import UserError
from indelible.theory import maps
from indelible.theory.agreement import allocation_errors, alpha_beta_error, times_error
from indelible.theory.overview import PARTS, allocation_unit, survey, to_csv
from indelible.theory.tasks import TheorySpec
from indelible.theory.training import run_chain

SPEC = TheorySpec()


def test_grid_equals_single_chains_bitwise():
    specs = [SPEC, SPEC.replace(alpha=0.6, beta=(5.0,)), SPEC.replace(pretrain_steps=900, posttrain_steps=50)]
    for arm in ("unmixed", "mixed"):
        grid = maps.run_grid(specs, arm)
        for i, one in enumerate(specs):
            chain = run_chain(one, arm)
            assert grid.steps[i] == chain.steps[0]
            for stage in range(3):
                assert np.array_equal(grid.values[stage][i], chain.values[stage])
            assert grid.losses.L_ret[i] == chain.losses.L_ret


def test_flow_grid_is_the_limit_of_small_steps():
    errors = []
    for factor in (4, 8):
        one = SPEC.replace(lr=0.01 / factor, pretrain_steps=580 * factor, posttrain_steps=120 * factor)
        one = one.replace(finetune_steps=300 * factor)
        small, flow = maps.run_grid([one], "mixed").losses.L_im[0], maps.flow_grid([one], "mixed").losses.L_im[0]
        errors.append(abs(small - flow))
    assert errors[1] < 0.6 * errors[0]


def test_maps_are_the_full_solver_at_random_cells():
    short = SPEC.replace(finetune_steps=500)
    rows = maps.map_alpha_beta(short, np.array([0.2, 0.5, 0.8]), np.array([1.0, 3.0, 5.0]))
    assert len(rows) == 9
    assert alpha_beta_error(short, rows, cells=3) < 1e-6
    wrong = [{**row, "gain_ret": float(row["gain_ret"]) + 1} for row in rows]
    assert alpha_beta_error(short, wrong, cells=3) > 1e-3
    lengths = maps.map_times(short, np.array([2.0, 8.0]), np.array([0.5, 1.6]))
    assert times_error(short, lengths, cells=3) < 1e-6
    wrong = [{**row, "posttrain_time": float(row["posttrain_time"]) + 0.1} for row in lengths]
    assert times_error(short, wrong, cells=3) > 1e-3


def test_allocation_by_the_closed_form_is_the_limit_of_descent():
    fine = SPEC.replace(pretrain_steps=1000).finer(2)
    at_lr, limit = allocation_errors(fine, np.array([1.0, 2.0]), np.array([0.3, 3.0]), cells=2)
    half = allocation_errors(fine.finer(2), np.array([1.0, 2.0]), np.array([0.3, 3.0]), cells=2)[0]
    assert limit < 1e-6
    assert limit < at_lr / 1000
    assert half == pytest.approx(at_lr / 2, rel=0.2)  # what a finite step adds is first order in it


def test_gain_needs_the_order_condition():
    rows = maps.map_alpha_beta(SPEC, np.array([0.3, 0.7]), np.array([0.5, 1.0, 4.0]))
    for row in rows:
        assert (float(row["gain_delta"]) > 1) == (float(row["order_margin"]) > 0)


def test_equal_pretraining_keeps_the_L_ret_gain_and_loses_the_delta_gain():
    rows = maps.map_times(SPEC, np.array([10.0, 20.0, 40.0]), np.array([0.8, 1.2]))
    assert all(float(row["gain_ret"]) > 40 for row in rows)
    assert all(float(row["gain_delta"]) < 0 for row in rows)


def test_overlap_forgets_algebraically():
    spec = SPEC.replace(overlap=0.02)
    chain = run_chain(spec, "mixed")
    special = spec.block("specialised")
    start, time = chain.values[1][special], spec.finetune_steps * spec.lr
    assert chain.values[2][special] == pytest.approx(start / (1 + 4 * 0.02 * start * time), rel=2e-3)
    rows = maps.curve_overlap(SPEC, np.array([0.0, 1e-3, 1.0]))
    kept = {(r["ft_target"], r["arm"], r["overlap"]): float(r["L_ret"]) for r in rows}
    gains = [kept["0", "unmixed", w] - kept["0", "mixed", w] for w in (0.0, 1e-3, 1.0)]
    assert gains[0] > gains[1] > gains[2] > 0
    assert kept["beta", "unmixed", 1.0] == pytest.approx(kept["beta", "mixed", 1.0], rel=1e-3)


def test_matched_allocation_spends_the_same_total_at_every_fraction():
    specs = maps.allocation_specs(SPEC, np.linspace(0, 1, 7), 2.0)
    totals = {(s.pretrain_steps or 0) + s.posttrain_steps for s in specs}
    assert totals == {3078 + 200}
    for s in specs:
        d_post = s.alpha * (s.pretrain_steps or 0) + s.posttrain_steps
        assert d_post == pytest.approx(200)
    assert (specs[0].alpha, specs[-1].posttrain_steps) == (0.0, 0)


def test_without_a_regulariser_the_specialised_features_do_not_care_about_the_fraction():
    fine = SPEC.replace(lr=0.001, regularisation=0.0, pretrain_steps=30_000)
    grid = maps.flow_grid(maps.allocation_specs(fine, np.linspace(0, 1, 11), allocation_unit(fine)), "mixed")
    special = grid.values[1][:, fine.block("specialised")]
    assert np.ptp(special) < 1e-9 * special.max()
    assert 0.1 < special.max() < 3.9  # in the middle of its growth, where it would show


def test_best_fraction_is_interior_with_a_regulariser_and_an_unfinished_fine_tune():
    fine = SPEC.replace(lr=0.001, pretrain_steps=30_000)
    fractions, budget = np.linspace(0, 1, 21), 1.5 * allocation_unit(fine)

    def best(reg: float, time: float) -> float:
        rows = maps.curve_allocation(
            fine.replace(regularisation=reg, finetune_steps=round(time / fine.lr)), fractions, budget
        )
        return maps.best_fraction(fractions, np.array([float(r["L_ret"]) for r in rows]))

    assert best(0.0, 2.0) == 0
    assert 0.5 < best(0.1, 2.0) < 1
    assert best(0.1, 100.0) == 1
    cells = maps.map_allocation(fine, fractions, np.array([0.5, budget]), np.array([2.0, 1000.0]))
    assert cells[2]["best_fraction"] == best(0.1, 2.0)
    assert np.isnan(float(cells[1]["best_fraction"]))  # too small a budget, a finished fine-tune: nothing to choose


def test_best_fraction_is_never_interior_without_a_regulariser():
    fine = SPEC.replace(lr=0.001, regularisation=0.0, pretrain_steps=30_000)
    unit = allocation_unit(fine)
    cells = maps.map_allocation(
        fine, np.linspace(0, 1, 11), np.array([0.5, 1.0, 2.0]) * unit, np.array([0.3, 3.0, 100.0])
    )
    best = np.array([float(cell["best_fraction"]) for cell in cells]).reshape(3, 3)
    assert (best[:, :2] == 0).all()
    assert np.isnan(best[:, 2]).all()


def test_an_end_that_is_as_good_counts_as_the_best_fraction():
    fractions = np.array([0.0, 0.5, 1.0])
    assert maps.best_fraction(fractions, np.array([2.0, 1.0, 3.0])) == 0.5
    assert maps.best_fraction(fractions, np.array([2.0, 1.0, 1.00001])) == 1.0
    assert maps.best_fraction(fractions, np.array([1.00001, 1.0, 3.0])) == 0.0
    assert np.isnan(maps.best_fraction(fractions, np.array([1.00001, 1.0, 1.00001])))


def test_samples_shrink_the_gap():
    rows = maps.curve_samples(SPEC.replace(finetune_steps=1000), (300,), range(2))
    delta = {arm: np.mean([float(r["delta"]) for r in rows if r["arm"] == arm]) for arm in ("unmixed", "mixed")}
    assert delta["unmixed"] - delta["mixed"] < 3


def test_csv_needs_a_row():
    assert to_csv([{"a": 1, "b": 0.5}]) == "a,b\n1,0.5\n"
    with pytest.raises(UserError, match="a table of the theory has no rows"):
        to_csv([])


def test_settings_need_an_equals_sign_and_the_last_one_counts():
    assert parsed_settings(["alpha=0.1", "alpha = 0.2"]) == {"alpha": "0.2"}
    with pytest.raises(UserError, match="--set alpha: no `=` found; write --set key=value"):
        parsed_settings(["alpha"])


def test_numbers_and_symbols_of_the_page():
    from indelible.theory.html import greek, number

    assert [str(number(x)) for x in (0.0, 5.0741, -1.36, 12345.6, 2e-11)] == [
        "0", "5.074", "−1.36", "12,346", "2.0·10<sup>−11</sup>",
    ]  # fmt: skip
    assert str(number(float("inf"))) == "∞"
    assert greek("alpha nu beta > sigma_post, lr; regular alphabet") == "α ν β > σ_post, η; regular alphabet"
    assert greek("rank n-k: Delta a - Delta b, well-known") == "rank n − k: Δ a − Δ b, well-known"


def test_the_theory_is_numpy_only_and_the_command_brings_no_charts():
    drawn = {"html", "charts", "chart_parts", "map_charts"}
    solvers = {path.stem for path in Path(theory.__file__).parent.glob("*.py")} - drawn - {"__init__"}
    assert {"tasks", "recursion", "linear", "theorems", "overview"} <= solvers

    def third_party(code: str) -> set[str]:
        code = f"import sys; old = set(sys.modules); {code}; print(*(set(sys.modules) - old))"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        tops = {name.split(".")[0] for name in loaded}
        return {top for top in tops if top not in sys.stdlib_module_names and not top.startswith(("_cython", "cython"))}

    assert third_party("; ".join(f"import indelible.theory.{name}" for name in sorted(solvers))) == {
        "indelible",
        "numpy",
    }
    assert not {"torch", "altair", "vl_convert", "jinja2"} & third_party("import indelible.cli.theory_commands")


def application() -> typer.Typer:
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    return app


def test_a_file_in_the_way_is_refused_before_any_work(tmp_path):
    (tmp_path / "taken").write_text("")
    result = CliRunner().invoke(application(), ["theory", "-o", str(tmp_path / "taken")])
    assert isinstance(result.exception, UserError)
    assert "a file is in the way" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alhpa=1", "did you mean alpha?"),
        ("alpha=much", "'much' is not a number"),
        ("alpha=2", "alpha = 2.0: must be from 0 to 1"),
        ("alpha", "no `=` found"),
        ("sigma_pre=0", "the unmixed run learns n - k = 9 features never"),
    ],
)
def test_a_bad_setting_is_one_message_and_exit_code_2(tmp_path, text, words):
    command = [sys.executable, "-m", "indelible.cli.main", "theory", "-o", str(tmp_path / "out"), "--set", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_command_writes_a_self_contained_page_and_tables(tmp_path):
    args = ["theory", "-o", str(tmp_path), "--json", "--set", "alpha=0.4", "--set", "sigma_pre=0.3"]
    result = CliRunner().invoke(application(), args)
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    assert told["spec"]["alpha"] == 0.4
    assert told["all_settled"] is True
    assert [check["verdict"] for check in told["checks"]] == ["holds"] * 4
    assert told["agreement"]["full_relative"] < 1e-6
    assert max(told["map_errors"][name] for name in ("alpha_beta", "times", "allocation_limit")) < 1e-6
    page = (tmp_path / "theory.html").read_text()
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not any(word in outside for word in ("src=", "<link", "@import", "http://", "https://"))
    assert "default-src 'none'" in outside  # and the browser holds the scripts to it
    assert page.count("<script") == 2
    assert "prefers-color-scheme: dark" in page
    for name in told["files"][1:]:
        rows = list(csv.DictReader(io.StringIO((tmp_path / name).read_text())))
        assert rows
        assert None not in rows[0].values()
    listed = {file.name for file in tmp_path.iterdir()}
    assert {"theory.html", "map_alpha_beta.csv", "map_times.csv", "checks.csv", "samples.csv"} <= listed
    assert {"assumptions_dropped.csv", "counterexamples.csv", "map_allocation_free.csv"} <= listed


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"k": 1, "n": 3, "invariant": (9.0,), "alpha": 1.0},
        {"sigma_pre": (0.5, 0.6, 0.7), "overlap": 0.1, "T": 30.0, "posttrain_steps": 0, "finetune_steps": 500},
        {"regularisation": 0.0, "pretrain_steps": 100, "beta": (0.5,), "post_variance": 1.0, "finetune_steps": 0},
    ],
)
def test_survey_and_page_stand_unusual_specs(changes):
    from indelible.theory.html import render

    begun = []
    result = survey(TheorySpec(**changes), begun.append)
    assert tuple(begun) == PARTS
    assert "nan" not in render(result).split("<script")[0].lower()
