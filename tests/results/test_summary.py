"""Mean and spread over seeds, by arm."""

import statistics

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study

from indelible.results.summary import by_arm, summary_text
from indelible.results.table import read_table
from indelible.statistics.contrasts import contrasts

ROWS = [
    {
        "study": "s",
        "seed": seed,
        "exposure_fraction": fraction,
        "finetune_lr": 1e-3,
        "post_tokens": 100,
        "status": "done" if (seed, fraction) != (2, 1.0) else "diverged",
        "posttrain_global_batch_size": 16,
        "L_im": 2.0 + 0.1 * seed,
        "L_ret": 3.0 - fraction + seed,
        "L_ft": 4.0,
        "L_pre": 5.0,
        "forgotten": 1.0 - fraction + 0.9 * seed,
        "pretrain_music_tokens": int(100 * fraction),
        "finetune_id": f"f{seed}{fraction}",
    }
    for seed in (0, 1, 2)
    for fraction in (0.0, 1.0)
]
SWEEP = {
    "name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0],
    "exposure": {"fraction": [0, 1]}, "finetune": {"global_batch_size": [8, 16, 32]},
    "posttrain": {"weight_decay": [0, 0.1]},
}  # fmt: skip


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_means_and_deviations_are_over_finished_seeds():
    arms = by_arm(pl.DataFrame(ROWS)).to_dicts()
    assert [arm["seeds"] for arm in arms] == [3, 2]
    assert [arm["settings"] for arm in arms] == [1, 1]
    assert arms[0]["L_ret"] == statistics.mean([3.0, 4.0, 5.0])
    assert arms[0]["L_ret_sd"] == statistics.stdev([3.0, 4.0, 5.0])
    assert arms[0]["forgotten"] == pytest.approx(1.9)
    assert arms[1]["L_ret"] == statistics.mean([2.0, 3.0])


def test_the_text_is_a_table_with_a_row_an_arm():
    lines = summary_text(pl.DataFrame(ROWS)).splitlines()
    assert len(lines) == 4
    assert lines[0].split("|")[1:4] == [" exposure_fraction ", " seeds ", " L_im          "]
    assert cells(lines[0])[-1] == "forgotten"
    assert "4.000 ± 1.000" in lines[2]


def test_one_seed_has_no_spread():
    text = summary_text(pl.DataFrame([row for row in ROWS if row["seed"] == 0]))
    assert "±" not in text
    assert "3.000" in text


def test_twelve_chains_of_one_seed_are_twelve_settings_of_one_seed(tmp_path):
    table = read_table(write_resolved_study(tmp_path, SWEEP))
    lines = summary_text(table).splitlines()
    assert cells(lines[0])[:4] == [
        "exposure_fraction", "posttrain_weight_decay", "finetune_global_batch_size", "seeds"
    ]  # fmt: skip
    rows = [cells(line) for line in lines[2:]]
    assert len({tuple(row[:3]) for row in rows}) == len(rows) == 12
    assert {row[3] for row in rows} == {"1"}
    assert "±" not in "".join(lines)
    found = contrasts(table, "finetune_global_batch_size")
    assert [(one.against, one.value) for one in found] == [(8, 16), (8, 32)]
    assert {one.losses["L_ret"].num_blocks for one in found} == {4}


def test_a_line_that_is_a_mean_over_settings_says_so_and_counts_seeds(tmp_path):
    table = read_table(write_resolved_study(tmp_path, SWEEP | {"seeds": [0, 1]}))
    lines = summary_text(table, ["exposure_fraction"]).splitlines()
    assert cells(lines[0])[:3] == ["exposure_fraction", "seeds", "mean over"]
    assert [cells(line)[:3] for line in lines[2:]] == [["0", "2", "6 settings"], ["1", "2", "6 settings"]]
    own = table.filter(exposure_fraction=0.0).group_by("seed").agg(pl.col("L_ret").mean())["L_ret"]
    assert by_arm(table, ["exposure_fraction"])["L_ret_sd"][0] == pytest.approx(own.std())


def test_a_chain_that_stands_twice_counts_once(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0, 1), is_traced=False)))
    twice = by_arm(pl.concat([table, table.head(3)]))
    assert twice.equals(by_arm(table))


def test_losses_that_no_chain_has_are_left_out_and_ones_own_are_shown(tmp_path):
    study = {key: value for key, value in SWEEP.items() if key != "exposure"} | {
        "init": {"from": "/models/base", "at": "finetune"}, "posttrain": {},
        "views": {"L_start": {"after": "posttrain", "corpus": "chemistry"}},
    }  # fmt: skip
    table = read_table(write_resolved_study(tmp_path, study))
    names = cells(summary_text(table).splitlines()[0])
    assert names[-6:] == ["L_im", "L_ret", "L_ft", "L_pre", "forgotten", "L_start"]
    bare = table.with_columns(pl.lit(None, pl.Float64).alias("L_pre"))
    assert "L_pre" not in cells(summary_text(bare).splitlines()[0])


def test_without_anything_that_varies_there_is_one_line(tmp_path):
    study = FakeStudy(fractions=(0.0,), post_tokens=(10_000,), finetune_lrs=(1e-3,), is_traced=False)
    lines = summary_text(read_table(write_fake_study(tmp_path, study))).splitlines()
    assert [cells(line)[0] for line in (lines[0], lines[2])] == ["seeds", "3"]
