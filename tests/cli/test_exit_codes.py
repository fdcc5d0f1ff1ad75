"""The command line as a user meets it: exit 2 and one message for a wrong request, never a traceback."""

import errno
import json
import os
import subprocess
import sys

import pytest
import yaml

from indelible.cli import main
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


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--executor", "k8s"], "--executor k8s: expected one of local, slurm."),
        (["--lease-seconds", "nan"], "--lease-seconds nan: expected a number of seconds above 0."),
        (["--attempts", "0"], "--attempts 0: at least 1 is needed."),
    ],
)
def test_how_to_launch_is_checked_before_any_text_is_read(tmp_path, asked, message):
    assert message in refused("run", "quickstart", "--out", str(tmp_path / "out"), *asked)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_no_study_file(tmp_path):
    (tmp_path / "study.yaml").mkdir()
    assert "study.yaml: no regular file (a folder, pipe or device)" in refused("plan", str(tmp_path / "study.yaml"))


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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_while_tokens_are_made_is_one_message_and_the_same_command_continues(
    tiny_study, small_disk
):
    study = str(tiny_study().parent / "out.yaml")
    out = small_disk / "out"
    assert f"--out {out}: cannot be written (" in refused("run", study, "--out", str(out))
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    done = indelible("ledger", study, "--out", str(out))
    assert done.returncode == 0, done.stderr


def test_a_disk_that_is_read_only_is_one_message(tiny_study, small_disk):
    study = str(tiny_study().parent / "out.yaml")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "the folder cannot be made (Read-only file system)" in refused("run", study, "--out", str(small_disk / "x"))
    assert f"--out {small_disk}: cannot be written (" in refused("run", study, "--out", str(small_disk))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_whatever_a_command_writes_a_disk_that_refuses_is_one_message(monkeypatch, capsys, number):
    def command() -> None:
        raise OSError(number, os.strerror(number), "/somewhere/report.html")

    monkeypatch.setattr(main, "build_app", lambda name: command)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "'/somewhere/report.html': nothing can be written there. Free some space" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError("of no file"), OSError(errno.EBADF, "bad", "x")])
def test_other_errors_of_ours_are_not_hidden(monkeypatch, error):
    def command() -> None:
        raise error

    monkeypatch.setattr(main, "build_app", lambda name: command)
    with pytest.raises(type(error)):
        main.main()


def test_a_mix_that_does_not_fit_is_said_by_plan():
    message = refused("plan", "quickstart", "--set", "exposure={fraction: 1, mode: replace, placement: [0.1, 0.11]}")
    assert "placement [0.1, 0.11] has room for" in message
    assert "widen the placement or lower its fraction" in message


def test_a_held_out_split_of_one_window_is_refused_before_the_first_step(tiny_study, tmp_path):
    study = yaml.safe_load((tiny_study().parent / "out.yaml").read_text())
    study["data"]["split"]["max_heldout_tokens"] = 600
    study["seq_len"] = 512
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(study))
    message = refused("run", str(tmp_path / "few.yaml"), "--out", str(tmp_path / "few"))
    assert "its held-out split has" in message
    assert "1 window(s) of seq_len 512, and at least 2 are needed" in message
    assert not (tmp_path / "few" / "plan.json").exists()


def test_another_study_in_the_folder_is_named_and_force_keeps_it(tiny_study, tmp_path):
    out = tiny_study()
    study = yaml.safe_load((out.parent / "out.yaml").read_text())
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**study, "name": "other"}))
    before = (out / "plan.json").read_text()
    message = refused("run", str(tmp_path / "other.yaml"), "--out", str(out))
    assert "this folder holds study tiny" in message
    assert "use another --out, or --force" in message
    assert (out / "plan.json").read_text() == before
    planned = indelible("ledger", str(tmp_path / "other.yaml"), "--out", str(out))
    assert planned.returncode == 0, "looking at data hides nothing"


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
    written = indelible("results", str(out), "--losses", "--format", "parquet")
    assert written.stdout.startswith(f"{out / 'losses.parquet'}: 36 rows")
    assert all(row["status"] == "done" and row["L_ret"] is not None for row in rows)
    status = json.loads(indelible("status", str(out), "--json").stdout)
    assert {name: count for name, count in status["counts"].items() if count} == {"done": 8}


@pytest.mark.slow
def test_an_evaluation_corpus_added_to_a_finished_study_trains_nothing(tiny_study, tmp_path):
    out = tiny_study()
    study = out.parent / "out.yaml"
    assert indelible("run", str(study), "--out", str(out)).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*") if path.is_file()}
    raw = yaml.safe_load(study.read_text())
    raw["corpora"]["more"] = {**raw["corpora"]["ft"], "language": 9}
    raw["evaluation"]["corpora"] = ["more"]
    study.write_text(yaml.safe_dump(raw))
    planned = json.loads(indelible("plan", str(study), "--out", str(out), "--json").stdout)
    assert planned["remaining"] == "no training run, only 3 evaluations"
    done = indelible("run", str(study), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*") if path.is_file()} == before
    rows = json.loads(indelible("results", str(out), "--losses", "--format", "json").stdout)
    assert sum(row["corpus"] == "more" and row["status"] == "done" for row in rows) == 3
