"""Looks at a claim while seeds are added: record, decision, replay."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.looks import (
    RECORD,
    Look,
    level_of,
    look,
    look_text,
    looks_text,
    num_looks,
    planned_levels,
    read_looks,
    replay,
    seeds_wanted_by,
    write_looks,
)
from indelible.claims.paper_claims import claim_named, study_verdicts
from indelible.errors import UserError
from indelible.results.table import read_table
from indelible.statistics.inference import t_quantile
from indelible.statistics.sequential import sequential_design
from indelible.statistics.sequential_power import Shape, detectable_in_looks

CLAIM = claim_named("retained-lower")


@pytest.fixture(scope="module")
def design():
    return sequential_design((3, 5, 8), 0.05)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    study = FakeStudy(fractions=(0.0, 1.0), seeds=range(8), noise=0.02, benefit=0.1, is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))


def first_seeds(table, count):
    return table.filter(pl.col("seed") < count)


def test_looks_follow_the_plan_until_every_scope_is_closed(table, design):
    past, counts = [], []
    while (count := seeds_wanted_by(design, past)) is not None:
        counts.append(count)
        past += look(CLAIM, first_seeds(table, count), design, past)
    assert counts == list(design.looks[: len(counts)])
    assert num_looks(past) == len(counts)
    scopes = {one.scope for one in past}
    assert len(scopes) == 2
    for scope in scopes:
        own = [one.decision for one in past if one.scope == scope]
        assert own[:-1] == ["open"] * (len(own) - 1)  # once closed it is not looked at again
        assert own[-1] == "supported"
    assert past == replay(CLAIM, table, design, list(range(8)))


def test_the_scopes_share_the_level(table, design):
    found = look(CLAIM, first_seeds(table, 3), design)
    strict = sequential_design(design.looks, 0.025).nominal[0]
    assert min(one.nominal for one in found) == strict
    for one in found:
        p = min(one.p_support, one.p_against)
        assert (one.decision in ("supported", "contradicted")) == (p <= one.nominal)
        assert (one.low <= 0 <= one.high) == (p > one.nominal)


def test_a_scope_that_was_given_up_keeps_its_share(table, design):
    """Were it free, the scopes that are left would be judged as if their small p had not chosen them."""
    first = look(CLAIM, first_seeds(table, 3), design)
    closed = [replace(first[0], decision="futile"), *(replace(one, decision="open") for one in first[1:])]
    (after,) = look(CLAIM, first_seeds(table, 5), design, closed)
    assert after.nominal == sequential_design(design.looks, 0.025).nominal[1]
    settled = [replace(one, decision="supported") if one is closed[0] else one for one in closed]
    (free,) = look(CLAIM, first_seeds(table, 5), design, settled)
    assert free.nominal == design.nominal[1]


def test_all_looks_of_four_scopes_of_nothing_err_no_more_often_than_the_level(design):
    generator, wrong = np.random.default_rng(2), 0
    fixed = {"status": "done", "scale": "pico", "pipeline": "a>b>c", "arm": "", "allocation": "full",
             "exposure_mode": "add", "placement": "uniform", "posttrain_global_batch_size": 1, "L_im": 2.0}  # fmt: skip
    for _ in range(100):
        rows = [{**fixed, "seed": seed, "post_tokens": size, "exposure_fraction": fraction, "L_ret": generator.normal(),
                 "finetune_id": f"{seed}-{fraction}-{size}"}
                for seed in range(8) for fraction in (0.0, 1.0) for size in range(1, 5)]  # fmt: skip
        found = replay(CLAIM, pl.DataFrame(rows), design, list(range(8)))
        wrong += any(one.decision in ("supported", "contradicted") for one in found)
    assert wrong <= 0.05 * 100 + 2 * np.sqrt(0.05 * 0.95 * 100)


def test_a_look_says_what_all_looks_together_detect(table, design):
    found = look(CLAIM, first_seeds(table, 3), design)
    for one in found:
        half = (one.high - one.low) / 2
        sd = half * np.sqrt(3) / t_quantile(1 - one.nominal / 2, 2)
        assert one.detectable == pytest.approx(sd * detectable_in_looks(design, Shape(), members=2))
        assert f"all looks together detect {one.detectable:.4f}" in look_text(replace(one, decision="open"))
    flat = look(claim_named("hand-over-flat"), first_seeds(table, 3), design)[0]
    assert flat.is_margin
    assert f"all looks together show a margin of {flat.detectable:.4f}" in look_text(replace(flat, decision="open"))


def test_a_record_can_be_taken_up_again(table, design, tmp_path):
    past = look(CLAIM, first_seeds(table, 3), design)
    assert read_looks(tmp_path) == []
    write_looks(tmp_path, past)
    assert read_looks(tmp_path) == past
    (tmp_path / RECORD).write_text('[{"claim": "x"}]')
    with pytest.raises(UserError, match="not a record of looks"):
        read_looks(tmp_path)


def test_a_claim_that_was_looked_at_by_a_plan_is_judged_at_its_last_look(table, design):
    past = replay(CLAIM, table, design, list(range(8)))
    verdicts = study_verdicts(first_seeds(table, past[-1].num_seeds), planned=planned_levels(past))
    own = [one.finding for one in verdicts if one.claim == CLAIM.name]
    assert min(one.level for one in own) == level_of(design, past[-1].number)(2)
    others = [one.finding.level for one in verdicts if one.claim == "less-erased"]
    assert min(others) == pytest.approx(0.025)


def test_the_page_says_whether_looks_were_planned(table, design):
    assert looks_text([]).startswith("No looks were planned")
    past = replay(CLAIM, table, design, list(range(8)))
    text = looks_text(past)
    assert "planned at 3, 5, 8 seeds, a risk of 0.05 in all" in text
    assert f"supported at {past[-1].num_seeds} seeds" in text


def test_replays_of_nothing_err_no_more_often_than_the_level(design):
    """Two arms without any difference, bought seed by seed: named different in 5 % of the orders at most."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(150):
        rows = [
            {"status": "done", "seed": seed, "scale": "pico", "pipeline": "a>b>c", "post_tokens": 1, "arm": "",
             "allocation": "full", "exposure_fraction": fraction, "exposure_mode": "add", "placement": "uniform",
             "posttrain_global_batch_size": 1, "L_im": 2.0, "L_ret": generator.normal(),
             "finetune_id": f"{seed}{fraction}"}
            for seed in range(8) for fraction in (0.0, 1.0)
        ]  # fmt: skip
        found = replay(CLAIM, pl.DataFrame(rows), design, list(range(8)))
        wrong += found[-1].decision in ("supported", "contradicted")
    assert wrong <= 0.05 * 150 + 2 * np.sqrt(0.05 * 0.95 * 150)


def test_a_claim_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="better is no claim; choose one of hand-over-flat"):
        claim_named("better")


def test_a_look_says_its_interval_and_what_follows():
    one = Look(
        claim="retained-lower", scope="pico", number=0, num_seeds=3, planned=(3, 5, 8), level=0.05, nominal=0.02,
        effect=-0.1, low=-0.3, high=0.1, p_support=0.2, p_against=1.0, decision="open",
    )  # fmt: skip
    start = "retained-lower, look 1 of 3, 3 seeds, pico: -0.1000 [-0.3000, +0.1000] (98 %)"
    assert look_text(one) == f"{start}, open (the next look is at 5 seeds)"
    assert look_text(replace(one, number=2, num_seeds=8)).endswith("open (not settled, and this was the last look)")
    futile = look_text(replace(one, number=1, num_seeds=5, decision="futile"))
    assert futile.endswith("futile (up to 8 seeds would settle it with a probability below 0.1)")
    assert look_text(replace(one, decision="supported")).endswith("(98 %), supported")
    nothing = replace(one, effect=None, low=None, high=None)
    assert "pico: no seed with both arms, open" in look_text(nothing)
