"""Studies with a treatment of their own: each of its values is judged, and drawn, by itself."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from resolved_study import write_resolved_study

from indelible.claims.paper_claims import study_verdicts
from indelible.report.contents import report_contents
from indelible.results.labels import differing_columns, own_treatments
from indelible.results.run_folder import read_study_run
from indelible.results.table import read_table
from indelible.statistics.contrasts import contrasts, gains

PAPER: dict[str, Any] = {
    "name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0, 1, 2], "exposure": {"fraction": [0, 1]}, "finetune": {"lr": ["0.3x", "1x"]},
}  # fmt: skip
WHERE = "pico · general>music>chemistry · |D_post| 100k"
STUDIES = {
    "guard": (
        {"guard": ["none", {"kind": "kl", "weight": 0.1}, {"kind": "kl", "weight": 0.5}]},
        ["", " · stage-3 guard kl · stage-3 guard weight 0.1", " · stage-3 guard kl · stage-3 guard weight 0.5"],
    ),
    "weight": (
        {"guard": [{"kind": "kl", "weight": 0.1}, {"kind": "kl", "weight": 0.5}]},
        [" · stage-3 guard weight 0.1", " · stage-3 guard weight 0.5"],
    ),
    "replay of D_post": (
        {"mix": [[], [{"corpus": "music", "fraction": 0.02}]]},
        ["", " · stage-3 replay music 0.02"],
    ),
}


def folder_of(root: Path, finetune: dict[str, Any]) -> Path:
    return write_resolved_study(root, PAPER | {"stages": {"finetune": finetune}})


@pytest.mark.parametrize("name", STUDIES)
def test_every_value_of_ones_own_treatment_is_judged_by_itself(tmp_path, name):
    finetune, scopes = STUDIES[name]
    table = read_table(folder_of(tmp_path / "all", finetune))
    found: dict[str, dict[str, Any]] = {}
    for one in study_verdicts(table):
        found.setdefault(one.claim, {})[one.finding.scope] = one.finding
    for claim in ("retained-lower", "hand-over-flat", "frontier-retained"):
        assert list(found[claim]) == [WHERE + scope for scope in scopes], claim
    alone = read_table(folder_of(tmp_path / "one", {key: values[-1] for key, values in finetune.items()}))
    for claim in ("retained-lower", "frontier-retained"):
        (finding,) = (one.finding for one in study_verdicts(alone) if one.claim == claim)
        last = found[claim][WHERE + scopes[-1]]
        assert (last.effect, last.num_seeds) == (finding.effect, finding.num_seeds)


@pytest.mark.parametrize("name", STUDIES)
def test_every_value_of_ones_own_treatment_is_drawn_by_itself(tmp_path, name):
    contents = report_contents(read_study_run(folder_of(tmp_path, STUDIES[name][0])))
    drawn = contents.figures["retention"].data["retention"]
    means = drawn.filter(pl.col("slice").str.contains("mean over stage-3 LR"), pl.col("loss") == "L_ret")
    assert means["slice"].n_unique() == len(STUDIES[name][1])
    assert sorted(means.filter(pl.col("exposure_fraction") > 0)["n"]) == [3] * len(STUDIES[name][1])


def test_how_d_post_is_shown_may_have_settings_of_its_own(tmp_path):
    """They are null at lambda 0: an arm without exposure is compared with each of them."""
    table = read_table(write_resolved_study(tmp_path, PAPER))
    place = table.columns.index("L_im")
    name, shown = "pretrain_exposure_repeats", pl.col("exposure_fraction") > 0
    order = [*table.columns[:place], name, *table.columns[place:]]
    ways = [table.with_columns(pl.when(shown).then(value).alias(name)).select(order) for value in (1, 2)]
    both = pl.concat([ways[0], ways[1].filter(shown).with_columns(pl.col("finetune_id") + "-2", pl.col("L_ret") - 0.1)])
    assert own_treatments(both) == []
    assert differing_columns(both) == ["arm", "exposure_fraction", "exposure_mode", "placement", name]
    found = [one.finding for one in study_verdicts(both) if one.claim == "retained-lower"]
    assert [one.scope.removeprefix(f"{WHERE} · ") for one in found] == [
        "stage-1 exposure repeats 1", "stage-1 exposure repeats 2"]  # fmt: skip
    assert found[1].effect == pytest.approx(found[0].effect - 0.1)
    (frontier,) = (one.finding for one in study_verdicts(ways[0]) if one.claim == "frontier-retained")
    (plain,) = (one.finding for one in study_verdicts(table) if one.claim == "frontier-retained")
    assert (frontier.effect, frontier.num_seeds) == (plain.effect, plain.num_seeds)


def test_what_one_side_has_not_cannot_be_held_equal(tmp_path):
    table = read_table(folder_of(tmp_path, STUDIES["guard"][0]))
    (found,) = contrasts(table, "finetune_guard", "none")
    assert found.also == ("finetune_guard_weight",)
    assert (found.losses["L_ret"].result.n, found.losses["L_ret"].num_blocks) == (3, 4)
    assert found.losses["L_im"].is_same_runs, "a guard of stage 3 is not there at hand-over, however many there are"


def test_what_is_forgotten_is_compared_too(tmp_path):
    table = read_table(folder_of(tmp_path, STUDIES["weight"][0]))
    (found,) = contrasts(table, "exposure_fraction")
    effects = {loss: found.losses[loss].result.effect for loss in ("L_im", "L_ret", "forgotten")}
    assert effects["forgotten"] == pytest.approx(effects["L_ret"] - effects["L_im"])
    (gain,) = contrasts(gains(table), "finetune_guard_weight")
    both = gain.losses["forgotten"].result
    assert both.effect == pytest.approx(gain.losses["L_ret"].result.effect)
    assert both.n == 3
