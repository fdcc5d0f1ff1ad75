"""What the tables say of pairs: a reward is the difference of two evaluations, also behind later stages."""

import numpy as np
import polars as pl
import pytest
from preferring import planned, preference_study
from tiny_engine import evaluated, plan_of, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.claims.wording import compare_footnote
from indelible.cli.findings_text import contrast_lines
from indelible.objectives.dpo import Dpo
from indelible.objectives.preference import MEASURES
from indelible.records import documents_path
from indelible.report.contents import report_contents
from indelible.results.columns import view_columns
from indelible.results.curves import curves
from indelible.results.losses import losses
from indelible.results.run_folder import read_study_run
from indelible.results.summary import shown_losses, summary_text
from indelible.results.table import read_table, results_table, write_table
from indelible.statistics.contrasts import contrasts
from indelible.statistics.divergence import with_worst
from indelible.statistics.inference import Inference
from indelible.study.load import resolve_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two values of beta, two seeds, run to their end, with held-out pairs that stop the stage."""
    raw = preference_study({"seeds": [0, 1]}, {"eval_interval": 4})
    raw["stages"]["prefer"]["objective"] = [{"kind": "dpo", "beta": 0.1}, {"kind": "dpo", "beta": 0.5}]
    out = plan_on_arrays(tmp_path_factory.mktemp("results"), raw, 512)
    run_all(out)
    return out


def pairs_of(out, checkpoint: str) -> pl.DataFrame:
    return pl.read_parquet(documents_path(out, checkpoint, evaluated(out, checkpoint)["pairs"].id))


def test_rewards_are_against_the_checkpoint_in_front_of_the_stage(study):
    rows = losses(read_study_run(study)).filter(pl.col("corpus") == "pairs")
    betas = {run.id: run.spec["objective"]["beta"] for run in runs_of(study, "prefer")}
    parents = {run.id: run.parent for run in plan_of(study).stage_runs}
    seen = 0
    for row in rows.iter_rows(named=True):
        assert row["accuracy_se"] is not None
        if row["stage"] == "pretrain":
            assert row["reference"] is None
            assert all(row[name] is None for name in MEASURES[2:])
            continue
        stage = row["checkpoint"] if row["stage"] == "prefer" else parents[row["checkpoint"]]
        assert row["reference"] == parents[stage]
        now, start = (
            -pairs_of(study, checkpoint).select("nats", "rejected_nats").to_numpy()
            for checkpoint in (row["checkpoint"], parents[stage])
        )
        gain = now - start
        assert row["preference_loss"] == pytest.approx(Dpo(beta=betas[stage]).loss_values(now, start).mean())
        assert row["reward_accuracy"] == pytest.approx(np.mean(gain[:, 0] > gain[:, 1]))
        assert row["reward_margin"] == pytest.approx(betas[stage] * np.mean(gain[:, 0] - gain[:, 1]))
        assert row["accuracy"] == pytest.approx(np.mean(now[:, 0] > now[:, 1]))
        assert row["kl_se"] > 0
        seen += 1
    assert seen == 8


def test_other_corpora_have_no_measures_and_other_studies_no_columns(study, tmp_path):
    rows = losses(read_study_run(study))
    text = rows.filter(pl.col("corpus") != "pairs")
    assert text.height
    assert text.select(*MEASURES).null_count().row(0) == (text.height,) * len(MEASURES)
    from tiny_engine import TINY

    plain = plan_on_arrays(tmp_path, TINY, 512)
    assert not set(MEASURES) & set(losses(read_study_run(plain)).columns)


def test_the_table_has_the_end_of_the_chain_and_the_stage(study, tmp_path):
    run = read_study_run(study)
    table = results_table(run)
    rows = losses(run).filter(pl.col("corpus") == "pairs")
    for view, stage in (("pairs", "finetune"), ("pairs_im", "prefer")):
        at = rows.filter(pl.col("stage") == stage).sort("chain")
        for name in MEASURES:
            assert table[f"{view}_{name}"].to_list() == at[name].to_list()
            assert table[f"{view}_{name}_se"].to_list() == at[f"{name}_se"].to_list()
    assert "pairs_accuracy" in view_columns(table)
    assert "pairs_accuracy_bpb" not in table.columns
    assert "pairs_reward_accuracy" in summary_text(table)
    for kind in ("csv", "parquet"):
        write_table(table, tmp_path / f"table.{kind}", kind)
        again = read_table(tmp_path / f"table.{kind}")
        assert again.columns == table.columns
        assert again["pairs_kl"].to_list() == pytest.approx(table["pairs_kl"].to_list())


def test_compare_and_the_page_show_accuracies(study):
    table = results_table(read_study_run(study))
    assert [name for name in shown_losses(table) if name.startswith("pairs_") and name != "pairs_im"] == [
        f"{view}_{name}"
        for view in ("pairs", "pairs_im")
        for name in ("accuracy", "preference_loss", "reward_accuracy")
    ]
    (one,) = contrasts(table, "prefer_objective_beta")
    low, high = (
        table.filter(pl.col("prefer_objective_beta") == beta)["pairs_im_preference_loss"].mean() for beta in (0.1, 0.5)
    )
    assert one.losses["pairs_im_preference_loss"].result.effect == pytest.approx(high - low)
    lines = list(contrast_lines(one, "prefer_objective_beta", ""))
    assert any(line.startswith("  pairs_reward_accuracy ") for line in lines)
    assert "of accuracies shares" in compare_footnote(Inference(), list(one.losses))
    assert "of accuracies shares" not in compare_footnote(Inference(), ["L_ret"])
    contents = report_contents(read_study_run(study))
    assert "pairs_accuracy" in contents.table.columns
    assert contents.figures


def test_the_worst_accuracy_is_none_right():
    rows = {"status": ["done", "diverged"], "x_accuracy": [0.75, None], "x_preference_loss": [0.5, None]}
    found = with_worst(pl.DataFrame(rows), ["x_accuracy", "x_preference_loss"])
    assert found["x_accuracy"].to_list() == [0.75, 0.0]
    assert found["x_preference_loss"].to_list() == [0.5, 12.5]


def test_curves_have_the_figures_of_pairs(study):
    found = curves(read_study_run(study))
    stops = found.filter((pl.col("kind") == "stop") & (pl.col("corpus") == "pairs"))
    assert stops["preference_loss"].null_count() == 0
    assert stops["pairs"].to_list() == [8.0] * stops.height
    trained = found.filter((pl.col("kind") == "train") & (pl.col("stage") == "prefer"))
    assert trained["reward_margin_se"].null_count() == 0


def test_an_arm_without_the_stage_is_measured_on_the_pairs_too(tmp_path):
    raw = preference_study()
    stages = raw.pop("stages")
    raw["arms"] = {
        "plain": {"stages": {name: stages[name] for name in ("pretrain", "finetune")}},
        "tuned": {"stages": stages},
    }
    pairs = raw["corpora"].pop("pairs")
    raw["arms"]["tuned"]["corpora"] = {"pairs": pairs}  # a corpus that only a later arm names
    assert "pairs" in resolve_study(raw).data.corpora
    out = plan_on_arrays(tmp_path, raw, 512)
    run_all(out)
    table = results_table(read_study_run(out))
    assert table["status"].to_list() == ["done", "done"]
    assert table["pairs_accuracy"].null_count() == 0
    assert table["pairs_reward_accuracy"].is_null().to_list() == [True, False]
    assert table["pairs_im_accuracy"].is_null().to_list() == [True, False]
    (one,) = contrasts(table, "arm")
    assert "pairs_accuracy" in one.losses
    assert "pairs_reward_accuracy" not in one.losses, "the arm without the stage has none"


def test_a_watch_draws_curves_on_pairs(tmp_path):
    out = planned(tmp_path, stage={"watch": {"corpora": ["pairs"], "steps": [0, 5]}})
    run_all(out, until="prefer")
    found = curves(read_study_run(out)).filter(pl.col("kind") == "watch")
    assert found["step"].to_list() == [0, 5, 11]
    assert found["margin"].is_sorted()
    assert found["accuracy_se"].null_count() == 0
