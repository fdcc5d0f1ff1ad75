"""Mean and spread over seeds, by arm."""

import statistics

import polars as pl

from indelible.analysis.summary import by_arm, summary_text

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
        "pretrain_music_tokens": int(100 * fraction),
        "finetune_id": f"f{seed}{fraction}",
    }
    for seed in (0, 1, 2)
    for fraction in (0.0, 1.0)
]


def test_means_and_deviations_are_over_finished_seeds():
    arms = by_arm(pl.DataFrame(ROWS)).to_dicts()
    assert [arm["seeds"] for arm in arms] == [3, 2]
    assert arms[0]["L_ret"] == statistics.mean([3.0, 4.0, 5.0])
    assert arms[0]["L_ret_sd"] == statistics.stdev([3.0, 4.0, 5.0])
    assert arms[1]["L_ret"] == statistics.mean([2.0, 3.0])


def test_the_text_is_a_table_with_a_row_an_arm():
    lines = summary_text(pl.DataFrame(ROWS)).splitlines()
    assert len(lines) == 4
    assert lines[0].split("|")[1:4] == [" exposure_fraction ", " seeds ", " L_im          "]
    assert "4.000 ± 1.000" in lines[2]


def test_one_seed_has_no_spread():
    text = summary_text(pl.DataFrame([row for row in ROWS if row["seed"] == 0]))
    assert "±" not in text
    assert "3.000" in text
