"""The command line as a user meets it: exit 2 and one message for a wrong request, never a traceback."""

import json
import subprocess
import sys

import pytest
import yaml

from indelible.study.load import shipped_studies


def indelible(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "indelible.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def refused(*arguments: str) -> str:
    """The message of a request that is refused."""
    done = indelible(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_unknown_key_names_its_place_and_the_nearest_name(tmp_path):
    assert "finetune.lrr: unknown key (did you mean 'lr'?)" in refused("plan", "quickstart", "--set", "finetune.lrr=1")


def test_a_fraction_above_one_needs_repeats():
    message = refused("plan", "quickstart", "--set", "exposure.fraction=1.5")
    assert "fraction 1.5 shows D_post more than once; set exposure.repeats: true" in message


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.yaml: no such study file" in refused("run", str(tmp_path / "nowhere.yaml"), "--out", str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    for command in ("status", "report", "verdicts"):
        message = refused(command, str(tmp_path / "nowhere" / "deep"))
        assert "nowhere/deep" in message


def test_a_corpus_smaller_than_asked_says_how_much_there_is_and_the_ways_out(tiny_study, tmp_path):
    out = tiny_study()
    study = yaml.safe_load((out.parent / "out.yaml").read_text())
    study["posttrain"]["tokens"] = 10_000_000
    (tmp_path / "big.yaml").write_text(yaml.safe_dump(study))
    message = refused("run", str(tmp_path / "big.yaml"), "--out", str(out))
    assert "corpus 'post' is smaller than asked: its training split has" in message
    assert "lower that stage's tokens, or give the corpus more text" in message


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    message = refused("run", "quickstart", "--out", str(tmp_path / "file" / "below"))
    assert str(tmp_path / "file") in message


def test_plan_is_json_for_machines(monkeypatch, tmp_path):
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))  # whatever `bench` measured here
    done = indelible("plan", "quickstart", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["stage_runs"] == 36
    assert facts["stages"]["finetune"]["runs"] == 24
    assert facts["saving"] > 3
    assert facts["rate"] == "assumed"
    faster = json.loads(indelible("plan", "quickstart", "--json", "--flops-per-second", "1e12").stdout)
    assert faster["hours"] == pytest.approx(facts["hours"] * facts["flops_per_second"] / 1e12)


def test_shipped_studies_are_listed_and_shown():
    listed = json.loads(indelible("studies", "list", "--json").stdout)
    assert {entry["name"] for entry in listed} == set(shipped_studies())
    assert yaml.safe_load(indelible("studies", "show", "fig3a").stdout)["name"] == "fig3a"
    assert "'fig33' is not a shipped study" in refused("studies", "show", "fig33")


@pytest.mark.slow
def test_run_status_results_and_a_second_run_that_does_nothing(tiny_study):
    out = tiny_study({"exposure": {"fraction": [0, 1.0]}, "finetune": {"lr": [1e-3, 3e-3]}})
    study = str(out.parent / "out.yaml")
    first = indelible("run", study, "--out", str(out))
    assert first.returncode == 0, first.stdout + first.stderr
    results = {p.parent.name: p.stat().st_mtime_ns for p in (out / "runs").glob("*/result.json")}
    assert len(results) == 2 + 2 + 4
    again = indelible("run", study, "--out", str(out))
    assert again.returncode == 0
    assert "othing to do" in again.stdout
    assert {p.parent.name: p.stat().st_mtime_ns for p in (out / "runs").glob("*/result.json")} == results
    changed = indelible("run", study, "--out", str(out), "--set", "finetune.lr=[1e-3, 5e-3]")
    assert changed.returncode == 0
    new = {p.parent.name for p in (out / "runs").glob("*/result.json")} - set(results)
    assert len(new) == 2
    assert all(name.startswith("finetune-") for name in new), "a changed finetune.lr runs only stage 3"
    rows = json.loads(indelible("results", str(out), "--format", "json").stdout)
    assert len(rows) == 4
    assert all(row["status"] == "done" and row["L_ret"] is not None for row in rows)
    status = json.loads(indelible("status", str(out), "--json").stdout)
    assert {name: count for name, count in status["counts"].items() if count} == {"done": 8}
