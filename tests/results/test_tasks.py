"""What the tables, compare and the page say of tasks: accuracies of examples, by the same path as those of pairs."""

import shutil

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from task_files import CHOICE, write_task
from tiny_engine import TINY, layered, plan_of, run_all
from token_folder import plan_on_arrays

from indelible.cli.findings_text import contrast_lines
from indelible.console.lineage import differences, render
from indelible.records import Evaluation, evaluation_path, run_dir
from indelible.report.contents import report_contents
from indelible.report.page import shown_columns
from indelible.results.columns import view_columns
from indelible.results.losses import losses
from indelible.results.run_folder import read_study_run
from indelible.results.summary import shown_losses, summary_text
from indelible.results.table import read_table, results_table, write_table
from indelible.scheduling.cleanup import find_garbage
from indelible.scheduling.folder import SpecFile, StudyFolder
from indelible.statistics.contrasts import contrasts


def accuracy_of(checkpoint: str) -> float:
    return (sum(map(ord, checkpoint)) % 41) / 40


def made(name: str, checkpoint: str, task: str) -> Evaluation:
    share = accuracy_of(checkpoint)
    return Evaluation(
        id=name, checkpoint=checkpoint, corpus=task, status="done", nats_per_token=None, bits_per_byte=None,
        standard_error=None, tokens=0, documents=40, windows=0, accuracy=share,
        accuracy_se=(share * (1 - share) / 39) ** 0.5, metric="acc", cut=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two rates and two seeds, run to their end; accuracies of a formula stand in for lm-eval's."""
    root = tmp_path_factory.mktemp("results")
    file = str(write_task(root / "capitals.yaml", CHOICE))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("indelible.tasks.own_tasks.version", lambda name: "0.4.13")
        raw = layered(TINY, {"finetune": {"lr": [1e-3, 3e-2]}, "evaluation": {"tasks": {"capitals": file}}})
        raw |= {"seeds": [0, 1], "views": {"L_first": {"after": "pretrain", "corpus": "capitals"}}}
        out = plan_on_arrays(root / "out", raw, 512)
    run_all(out)
    plan = plan_of(out)
    for checkpoint, wanted in plan.task_evaluations.items():
        for name in wanted:
            made(name, checkpoint, "capitals").write(evaluation_path(out, checkpoint, name))
    return out


def test_the_long_table_has_a_row_for_each_checkpoint(study):
    run = read_study_run(study)
    found = losses(run)
    rows = found.filter(pl.col("corpus") == "capitals")
    assert rows.height == 3 * len(run.plan.chains)
    assert rows["status"].unique().to_list() == ["done"]
    assert rows["documents"].unique().to_list() == [40]
    assert rows["accuracy"].to_list() == [accuracy_of(name) for name in rows["checkpoint"]]
    assert rows["accuracy_se"].null_count() == 0
    absent = ["nats_per_token", "bits_per_byte", "standard_error", "tokens", "windows", "loss_on"]
    assert rows.select(absent).null_count().row(0) == (rows.height,) * len(absent)
    others = found.filter(pl.col("corpus") != "capitals")
    assert others["accuracy"].null_count() == others.height
    assert others["nats_per_token"].null_count() == 0
    assert "margin" not in found.columns, "there are no pairs"


def test_the_table_has_the_end_the_hand_over_and_a_view(study, tmp_path):
    run = read_study_run(study)
    table = results_table(run)
    assert table["status"].unique().to_list() == ["done"]
    stages = {"capitals": "finetune", "capitals_im": "posttrain", "L_first": "pretrain"}
    for view, stage in stages.items():
        assert table[f"{view}_accuracy"].to_list() == [accuracy_of(name) for name in table[f"{stage}_id"]]
        assert table[f"{view}_accuracy_se"].null_count() == 0
        assert not {view, f"{view}_bpb", f"{view}_se", f"{view}_accuracy_bpb"} & set(table.columns)
    assert set(view_columns(table)) == {f"{view}_accuracy" for view in stages}
    assert "capitals_accuracy" in summary_text(table)
    for kind in ("csv", "parquet"):
        write_table(table, tmp_path / f"table.{kind}", kind)
        again = read_table(tmp_path / f"table.{kind}")
        assert again.columns == table.columns
        assert again["capitals_accuracy"].to_list() == table["capitals_accuracy"].to_list()


def test_compare_and_the_page_show_accuracies(study):
    table = results_table(read_study_run(study))
    assert {"capitals_accuracy", "capitals_im_accuracy"} <= set(shown_losses(table))
    (one,) = contrasts(table, "finetune_lr")
    by_rate = [table.filter(pl.col("finetune_lr") == rate)["capitals_accuracy"].to_numpy() for rate in (1e-3, 3e-2)]
    assert one.losses["capitals_accuracy"].result.effect == pytest.approx(np.mean(by_rate[1] - by_rate[0]))
    assert any(line.startswith("  capitals_accuracy ") for line in contrast_lines(one, "finetune_lr", ""))
    contents = report_contents(read_study_run(study))
    assert "capitals_accuracy" in shown_columns(contents.table)
    assert contents.figures


def test_show_and_diff_have_accuracies_apart_from_losses(study):
    first, second = (run_dir(study, run.id) for run in plan_of(study).stage_runs if run.stage == "posttrain")
    for run in plan_of(study).stage_runs:
        SpecFile(id=run.id, stage=run.stage, parent=run.parent, spec=run.spec).write(
            run_dir(study, run.id) / "spec.json"
        )
    console = Console(width=200)
    with console.capture() as taken:
        console.print(render(first))
    assert f"capitals     {accuracy_of(first.name):.4f}" in taken.get()
    changed = differences(first, second)
    assert changed["accuracies.capitals"] == (accuracy_of(first.name), accuracy_of(second.name))


def test_a_missing_accuracy_leaves_a_chain_incomplete_and_gc_knows_what_is_planned(study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(study, out)
    assert not [item for item in find_garbage(StudyFolder.open(out)) if "evaluation" in item.why]
    checkpoint, wanted = next(iter(plan_of(out).task_evaluations.items()))
    (name,) = wanted
    evaluation_path(out, checkpoint, name).unlink()
    rows = losses(read_study_run(out))
    gone = rows.filter(pl.col("evaluation") == name)
    assert set(gone["status"]) == {"incomplete"}
    assert "incomplete" in set(results_table(read_study_run(out))["status"])


def test_an_accuracy_is_a_share(study):
    checkpoint, wanted = next(iter(plan_of(study).task_evaluations.items()))
    one = made(next(iter(wanted)), checkpoint, "capitals")
    with pytest.raises(ValueError, match="accuracy has no number between 0 and 1"):
        Evaluation.model_validate({**one.model_dump(), "accuracy": 1.5})
    with pytest.raises(ValueError, match="loss_on is missing"):
        Evaluation.model_validate({**one.model_dump(), "metric": None, "nats_per_token": 1.0})
