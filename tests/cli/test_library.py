"""The library: what `import indelible` offers, and the README's example as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tiny_engine import TINY, layered, run_all

import indelible
from indelible.records import StageResult, run_dir
from indelible.results.summary import by_arm
from indelible.workflow.planning import plan_study
from indelible.workflow.running import UnfinishedStudy

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def finished(tiny_study) -> Path:
    """The folder of a finished study of two exposures and two seeds."""
    out = tiny_study({"exposure": {"fraction": [0, 1.0]}, "seeds": [0, 1]})
    run_all(out)
    return out


def test_importing_it_imports_nothing_slow():
    heavy = ["torch", "transformers", "polars", "altair", "datasets", "numpy", "pydantic", "scipy"]
    code = f"import sys, indelible; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_reading_results_needs_no_torch(finished):
    code = (
        f"import sys, indelible; runs = indelible.open({str(finished)!r})\n"
        "runs.results(); runs.losses(); runs.curves()\n"
        "print(*[m for m in ('torch', 'transformers', 'altair', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_name_is_there_and_no_other():
    for name in indelible.__all__:
        assert getattr(indelible, name) is not None
        assert name in dir(indelible)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = indelible.runn


def test_a_study_is_loaded_by_name_path_or_dictionary(tmp_path):
    (tmp_path / "s.yaml").write_text("name: s\nscale: pico\npipeline: {pre: general, post: music, ft: chemistry}\n")
    study = indelible.load_study(tmp_path / "s.yaml", seeds=[3])
    assert (study.name, study.seeds) == ("s", (3,))
    assert indelible.load_study("quickstart", seeds=[0]).seeds == (0,)
    raw = dict(TINY)
    assert indelible.load_study(raw).arms == indelible.load_study(TINY).arms
    assert raw == TINY, "what was given is left as it was"
    with pytest.raises(indelible.UserError, match="neither a study file nor a shipped study"):
        indelible.load_study("fig33")
    with pytest.raises(indelible.UserError, match=r"study: 1 problem\n  finetune.lrr: unknown key"):
        indelible.load_study({**TINY, "finetune": {"lrr": 1}})


def test_keywords_are_laid_over_the_file_and_paths_over_those():
    study = indelible.load_study(TINY, finetune={"lr": 1e-4}, set={"finetune.warmup_steps": 1, "seeds": [5]})
    (arm,) = study.arms
    stage = arm.stages["finetune"]
    assert (stage.lr, stage.warmup_steps, stage.tokens) == (1e-4, 1, 330)
    assert study.seeds == (5,)
    assert len(indelible.load_study(TINY, set={"finetune.lr": [1e-4, 1e-3]}).arms) == 2


def test_a_study_is_planned(tmp_path):
    study = indelible.load_study(TINY)
    assert study.plan().stage_runs == 3
    assert indelible.plan(TINY, workers=2, flops_per_second=1e9).workers == 2
    with pytest.raises(indelible.UserError, match="--workers 0: at least 1 is needed"):
        study.plan(workers=0)


def test_tables_are_read(finished):
    runs = indelible.open(finished)
    assert runs.results().select("seed", "exposure_fraction", "status").rows() == [
        (0, 0.0, "done"), (1, 0.0, "done"), (0, 1.0, "done"), (1, 1.0, "done")
    ]  # fmt: skip
    losses = runs.losses()
    assert losses.height == 4 * 3 * 3
    assert set(losses["corpus"]) == {"pre", "post", "ft"}
    assert {"nats_per_token", "standard_error", "documents", "tokens"} <= set(losses.columns)
    assert runs.curves().filter(pl.col("kind") == "train")["run"].n_unique() == 12
    assert runs.plan.name == "tiny"
    assert runs.status().is_finished
    assert repr(runs) == f"StudyRuns({finished})"


def test_verdicts_and_comparisons_are_made(finished):
    runs = indelible.open(finished)
    verdicts = {one.claim: one.finding for one in runs.verdicts()}
    assert verdicts["retained-lower"].num_seeds == 2
    (contrast,) = runs.compare("exposure_fraction")
    assert (contrast.value, contrast.against) == (1.0, 0.0)
    assert indelible.compare(finished, "exposure_fraction")[0].losses.keys() == contrast.losses.keys()
    assert indelible.compare(runs, by="exposure_fraction", arms=["seed=0"])[0].losses["L_ret"].result.n == 1
    assert runs.compare("exposure_fraction", where=["finetune_lr=0.0003"])[0].losses["L_ret"].result.n == 2
    with pytest.raises(indelible.UserError, match="nothing to compare"):
        runs.compare("finetune_lr")


def test_settings_that_are_swept_are_told_apart_and_compared(tiny_study):
    """Twelve chains of one seed: twelve settings, and not six seeds of two."""
    swept = {
        "exposure": {"fraction": [0, 1.0]},
        "posttrain": {"weight_decay": [0, 0.1]},
        "finetune": {"global_batch_size": [2, 4, 8]},
    }
    out = tiny_study(swept)
    run_all(out)
    runs = indelible.open(out)
    table = runs.results()
    settings = ["exposure_fraction", "posttrain_weight_decay", "finetune_global_batch_size"]
    assert table.height == table.select(settings).n_unique() == 12
    assert by_arm(table).select(*settings, "seeds").sort(settings).rows() == [
        (fraction, decay, size, 1) for fraction in (0.0, 1.0) for decay in (0.0, 0.1) for size in (2, 4, 8)
    ]
    found = runs.compare("finetune_global_batch_size", against="8", within=["posttrain_weight_decay"])
    assert {(one.within["posttrain_weight_decay"], one.value) for one in found} == {
        (0.0, 2), (0.0, 4), (0.1, 2), (0.1, 4)
    }  # fmt: skip
    assert all(one.losses["L_ret"].result.n == 1 and one.losses["L_ret"].num_blocks == 2 for one in found)


def test_the_report_is_written_where_it_is_asked_for(finished, tmp_path):
    runs = indelible.open(finished)
    assert runs.report() == finished / "report.html"
    assert runs.report(tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    runs.results().write_parquet(tmp_path / "table.parquet")
    table = indelible.open(tmp_path / "table.parquet")
    assert table.report() == tmp_path / "table.html"
    kept = (tmp_path / "table.parquet").read_bytes()
    with pytest.raises(indelible.UserError, match=r"table.parquet: the report is HTML; end the file's name in .html"):
        table.report(tmp_path / "table.parquet")
    with pytest.raises(indelible.UserError, match=r"report -o \.: the report is HTML"):
        table.report(".")
    (tmp_path / "link.html").symlink_to(tmp_path / "table.parquet")
    with pytest.raises(indelible.UserError, match=r"link.html: this is one of the tables that are read"):
        table.report(tmp_path / "link.html")
    assert (tmp_path / "table.parquet").read_bytes() == kept
    with pytest.raises(indelible.UserError, match="needs the folder of one study run"):
        table.losses()


def test_a_checkpoint_is_found_by_id_or_by_settings(finished):
    from transformers import AutoModelForCausalLM

    runs = indelible.open(finished)
    run_id = runs.results().row(0, named=True)["posttrain_id"]
    folder = runs.checkpoint(run_id)
    assert folder == run_dir(finished, run_id) / "checkpoint"
    assert runs.checkpoint(stage="posttrain", exposure_fraction=0, seed=0) == folder
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16
    with pytest.raises(indelible.UserError, match="no stage run of this plan"):
        runs.checkpoint("nowhere")
    with pytest.raises(indelible.UserError, match="4 stage runs begin so"):
        runs.checkpoint("posttrain-")
    with pytest.raises(indelible.UserError, match="2 stage runs; say one of"):
        runs.checkpoint(stage="posttrain", seed=0)
    (folder / "config.json").unlink()
    with pytest.raises(indelible.UserError, match="no checkpoint in"):
        runs.checkpoint(run_id)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(indelible.UserError, match="no such folder or table"):
        indelible.open(tmp_path / "nowhere")
    with pytest.raises(indelible.UserError, match=r"it has no plan\.json"):
        indelible.open(tmp_path).results()
    with pytest.raises(indelible.UserError, match="give the folder"):
        indelible.open()


@pytest.mark.slow
def test_a_study_is_run_and_prints_nothing(tmp_path, capfd):
    looks = []
    study = indelible.load_study(TINY)
    runs = indelible.run(study, tmp_path / "out", workers=1, progress=looks.append)
    assert runs.results()["status"].to_list() == ["done"]
    assert looks[-1].is_finished
    again = indelible.run(TINY, tmp_path / "out")
    assert again.results().equals(runs.results())
    assert capfd.readouterr().out == ""
    with pytest.raises(indelible.UserError, match="this folder holds study tiny"):
        indelible.run({**TINY, "name": "other"}, tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_fails_is_said_with_its_reason_and_what_is_done_is_kept(tmp_path):
    out = tmp_path / "out"
    study = indelible.load_study(TINY)
    (last,) = [run.id for run in plan_study(study).graph.runs.values() if run.stage == "finetune"]
    (out / "runs" / last).mkdir(parents=True)
    (out / "runs" / last / "checkpoint").write_text("in the way of the folder that the stage is to write")
    with pytest.raises(UnfinishedStudy, match=r"1 of 3 failed, the first finetune-.*checkpoint") as caught:
        indelible.run(study, out, workers=1)
    done = [StageResult.read(path) for path in out.glob("runs/*/result.json")]
    assert sorted(result.stage for result in done) == ["posttrain", "pretrain"]
    assert caught.value.runs.results()["status"].to_list() == ["failed"]


def readme_example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    (example,) = [block for block in blocks if "import indelible" in block]
    return example


@pytest.mark.slow
def test_the_readmes_example_runs(tmp_path):
    """As it stands, but for the study, which is a tiny one here."""
    tiny = layered(TINY, {"exposure": {"fraction": [0, 1.0]}})
    program = readme_example().replace('"quickstart"', repr(tiny))
    assert program != readme_example()
    (tmp_path / "example.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "quickstart" / "report.html").exists()
    lines = done.stdout.splitlines()
    assert lines[0] == "16 stage runs and 48 evaluations to be made"
    assert sum("shape:" in line for line in lines) == 1, "it prints a table"
    assert (Path(tmp_path / lines[-1]) / "model.safetensors").exists()
