"""Everything the theory command computes, in the order in which it is shown; each part reports when it is done."""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from indelible.errors import UserError
from indelible.theory import maps
from indelible.theory.agreement import (
    Agreement,
    MapErrors,
    allocation_errors,
    alpha_beta_error,
    measure,
    times_error,
)
from indelible.theory.assumptions import Window, post_window
from indelible.theory.counterexamples import REPAIRED, Broken, CounterExample, broken_checks, counterexamples
from indelible.theory.maps import Row
from indelible.theory.slips import Slip, slips
from indelible.theory.tasks import ARMS, BLOCKS, STAGES, Array, TheorySpec, task
from indelible.theory.theorems import Check, all_checks
from indelible.theory.training import Chain, feature_loss, run_chain

Advance = Callable[[str], None]  # called with the name of the part that begins

PARTS = (
    "both arms through the three stages",
    "theorems",
    "theorems where C.4 holds",
    "assumptions dropped",
    "formulas of the text",
    "solvers against each other",
    "map over alpha and beta",
    "map over lengths",
    "length of post-training",
    "overlap",
    "matched allocation",
    "finite samples",
    "maps against full matrices",
)

ALLOCATION_BUDGETS = np.linspace(0.4, 2.4, 21)  # in units of `allocation_unit`
ALLOCATION_TIMES = np.geomspace(0.1, 60, 16)  # of fine-tuning

# Full matrices carry every feature through the round-off of the largest, about 1e-16; below exp(-T) of that size a
# feature that should wait is seeded by it. Comparisons of solvers stay above.
ROUND_OFF_T = 12.0


@dataclass(frozen=True)
class Survey:
    """The results; tables are lists of flat rows."""

    spec: TheorySpec
    chains: dict[str, Chain]
    window: Window
    checks: list[Check]
    repaired_spec: TheorySpec
    repaired: list[Check]
    counterexamples: list[CounterExample]  # of 5.3
    broken: list[Broken]  # of the other theorems
    slips: list[Slip]
    agreement: Agreement
    map_errors: MapErrors
    tables: dict[str, list[Row]]

    @property
    def all_settled(self) -> bool:
        """No theorem fails where its needed assumptions are met, every slip is decided, the solvers agree."""
        failed = any(check.verdict == "fails" for check in [*self.checks, *self.repaired])
        maps_agree = max(self.map_errors.alpha_beta, self.map_errors.times, self.map_errors.allocation_limit) < 1e-6
        agree = maps_agree and max(self.agreement.full_relative, self.agreement.flow_extrapolated) < 1e-6
        return not failed and agree and all(slip.confirmed for slip in self.slips)


def survey(spec: TheorySpec, advance: Advance = lambda part: None) -> Survey:
    """Runs everything for one spec; well under a minute on one core for the default.

    Args:
        spec: the instance; maps vary its fields around it.
        advance: told the name of each of PARTS as it begins.

    Raises:
        UserError: pretraining cannot reach rank n - k with this spec.
    """
    parts = iter(PARTS)

    def begin() -> None:
        advance(next(parts))

    begin()
    chains = {arm: run_chain(spec, arm, points_per_stage=120) for arm in ARMS}
    tables = {"trajectories": trajectory_rows(spec, chains)}
    window = post_window(spec, chains)
    begin()
    checks = all_checks(spec)
    begin()
    repaired = all_checks(REPAIRED)
    begin()
    examples, broken = counterexamples(spec), broken_checks(spec)
    begin()
    found = slips(spec)
    begin()
    agreement = measure(spec.replace(T=min(spec.T, ROUND_OFF_T)))
    begin()
    betas = _beta_axis(spec)
    tables["map_alpha_beta"] = maps.map_alpha_beta(spec, np.linspace(0.02, 0.98, 49), betas)
    begin()
    length = 1.3 * max(chain.steps[0] for chain in chains.values()) * spec.lr
    longest = 3 * max(window.closes, spec.posttrain_steps * spec.lr)
    lengths = np.linspace(0, length, 49), np.linspace(0, longest, 41)
    tables["map_times"] = maps.map_times(spec, *lengths)
    begin()
    tables["posttrain"] = maps.curve_posttrain(spec, np.linspace(0, longest, 121))
    begin()
    shares = np.concatenate([[0.0], np.geomspace(1e-5, 1.0, 41)])
    tables["overlap"] = maps.curve_overlap(spec, shares)
    begin()
    tables |= allocation_tables(spec, chains["unmixed"])
    begin()
    tables["samples"] = maps.curve_samples(spec, (100, 300, 1000, 3000, 10_000, 30_000, 100_000), range(5))
    begin()
    errors = map_errors(spec, tables, betas, lengths)
    return Survey(spec, chains, window, checks, REPAIRED, repaired, examples, broken, found, agreement, errors, tables)


def map_errors(spec: TheorySpec, tables: dict[str, list[Row]], betas: Array, lengths: tuple[Array, Array]) -> MapErrors:
    """The maps against the full solver; coarse maps at a smaller T stand in where full matrices would hit round-off."""
    exact = spec.replace(T=min(spec.T, ROUND_OFF_T))
    mixing, times = tables["map_alpha_beta"], tables["map_times"]
    if exact != spec:
        mixing = maps.map_alpha_beta(exact, np.array([0.2, 0.5, 0.8]), betas[::10])
        times = maps.map_times(exact, lengths[0][::12], lengths[1][::10])
    fine = exact.replace(pretrain_steps=round(float(lengths[0][-1]) / 1.3 / spec.lr)).finer(2)
    allocation = allocation_errors(fine, ALLOCATION_BUDGETS * allocation_unit(exact), ALLOCATION_TIMES)
    return MapErrors(alpha_beta_error(exact, mixing), times_error(exact, times), *allocation)


def _beta_axis(spec: TheorySpec) -> Array:
    """From near 0 to below the smallest invariant value, so that the order of the other features stays what it is."""
    return np.linspace(0.1, 0.95 * float(spec.values("invariant").min()) / max(spec.post_variance, 1.0), 45)


def allocation_tables(spec: TheorySpec, unmixed: Chain) -> dict[str, list[Row]]:
    """Matched allocation: curves for three regularisers and two lengths of fine-tuning; maps of the best fraction with
    the spec's regulariser and with none.
    """
    unit = allocation_unit(spec)
    # The flow has no step size; the smaller lr only makes room for the largest regulariser below.
    fine = spec.replace(pretrain_steps=unmixed.steps[0]).finer(2)
    fractions = np.linspace(0, 1, 41)
    times = (2.0, 30.0)
    curves: list[Row] = []
    for reg in (0.0, 0.1, 1.0):
        for time in times:
            one = fine.replace(regularisation=reg, finetune_steps=round(time / fine.lr))
            curves += maps.curve_allocation(one, fractions, 1.5 * unit)
    axes = np.linspace(0, 1, 21), ALLOCATION_BUDGETS * unit, ALLOCATION_TIMES
    best = maps.map_allocation(fine, *axes)
    free = maps.map_allocation(fine.replace(regularisation=0.0), *axes)
    return {"allocation": curves, "map_allocation": best, "map_allocation_free": free}


def allocation_unit(spec: TheorySpec) -> float:
    """2T / (4 nu beta): the time on D_post that a specialised feature needs to appear from exp(-2T)."""
    return 2 * spec.T / (4 * spec.post_variance * float(spec.values("beta").min()))


def trajectory_rows(spec: TheorySpec, chains: dict[str, Chain]) -> list[Row]:
    """Feature values (the mean of a block) and the loss on D_post over time; stages are each drawn one unit wide.

    `progress` is the stage's number plus the share of it that is done: arms differ in how long they pretrain.
    """
    rows: list[Row] = []
    d_post = task(spec, "post")
    for arm, chain in chains.items():
        loss = feature_loss(chain.path, d_post)
        before = np.concatenate([[0], np.cumsum(chain.steps)]) * spec.lr
        for i, stage in enumerate(chain.stage_of):
            length = max(before[stage + 1] - before[stage], 1e-300)
            progress = float(stage + (chain.time[i] - before[stage]) / length)
            row: Row = {"arm": arm, "stage": STAGES[stage], "time": float(chain.time[i]), "progress": progress}
            row["loss_post"] = float(loss[i])
            rows.append(row | {name: float(chain.path[i, spec.block(name)].mean()) for name in BLOCKS})
    return rows


def check_rows(checks: Sequence[Check], instance: str) -> list[Row]:
    """One row per number and per assumption of the checks, for CSV."""
    rows: list[Row] = []
    for check in checks:
        base: Row = {"instance": instance, "theorem": check.name, "verdict": check.verdict}
        for one in check.assumptions:
            kind = "assumption" if one.needed else "assumption, not needed"
            rows.append({**base, "kind": kind, "name": f"{one.name}: {one.text}", "value": one.margin})
        rows += [{**base, "kind": "measured", "name": name, "value": value} for name, value in check.numbers.items()]
    return rows


def csv_tables(result: Survey) -> dict[str, str]:
    """Every table as CSV text, by file name."""
    tables = dict(result.tables)
    tables["checks"] = check_rows(result.checks, "this spec") + check_rows(result.repaired, "C.4 holds")
    tables["counterexamples"] = [{**dataclasses.asdict(one), "outcome": one.outcome} for one in result.counterexamples]
    tables["assumptions_dropped"] = [dataclasses.asdict(one) for one in result.broken]
    tables["formulas"] = [
        {"where": slip.where, "printed": slip.printed, "right": slip.right, "name": name, "value": value}
        for slip in result.slips
        for name, value in slip.numbers.items()
    ]
    return {f"{name}.csv": to_csv(rows) for name, rows in tables.items()}


def to_csv(rows: Sequence[Row]) -> str:
    """CSV text with a header; the columns are those of the first row.

    Raises:
        UserError: there is no row.
    """
    if not rows:
        raise UserError("a table of the theory has no rows; a CSV file needs at least one.")
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summary(result: Survey) -> dict[str, object]:
    """What `--json` prints: spec, verdicts with assumptions and numbers, counter-examples, agreement; no infinities."""
    return {
        "spec": dataclasses.asdict(result.spec),
        "checks": [_check(check) for check in result.checks],
        "checks_where_C4_holds": [_check(check) for check in result.repaired],
        "counterexamples": [{**dataclasses.asdict(one), "outcome": one.outcome} for one in result.counterexamples],
        "assumptions_dropped": [dataclasses.asdict(one) for one in result.broken],
        "formulas": [dataclasses.asdict(slip) for slip in result.slips],
        "agreement": dataclasses.asdict(result.agreement),
        "map_errors": dataclasses.asdict(result.map_errors),
        "all_settled": result.all_settled,
    }


def _check(check: Check) -> dict[str, object]:
    assumptions = [
        {**dataclasses.asdict(one), "margin": one.margin if np.isfinite(one.margin) else None, "is_met": one.is_met}
        for one in check.assumptions
    ]
    return {
        "name": check.name,
        "claim": check.claim,
        "verdict": check.verdict,
        "holds": check.holds,
        "assumptions": assumptions,
        "numbers": check.numbers,
    }
