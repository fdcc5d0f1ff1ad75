"""The tutorials do what they say: their commands and their Python are run, in order, at tiny size."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml
from tiny_engine import TINY
from tutorial import Block, Tutorial, blocks_of, cells_of, launch_here, run_command, write_files

from indelible.study.load import resolve_study

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
NEEDS_A_STUDY = ["read-the-report", "paper-figure", "audit-a-checkpoint", "sweep-a-field"]
NEEDS_FILES = ["your-own-data", "how-much-early"]
HERE = {*NEEDS_A_STUDY, *NEEDS_FILES, "first-study", "on-a-cluster", "add-a-guard", "from-python"}
ELSEWHERE = {"chat-fine-tune"}  # trains on messages, which has a room of tests of its own


def text_of(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tutorial]:
    """The first tutorial, done: its folder has the finished study `quickstart`."""
    with pytest.MonkeyPatch.context() as patch:
        yield played(patch, tmp_path_factory.mktemp("first"), blocks_of(text_of("first-study.md")))


@pytest.fixture
def tutorial(tmp_path, monkeypatch) -> Iterator[Tutorial]:
    """A tutorial in an empty folder."""
    yield played(monkeypatch, tmp_path, [])
    pl.Config.restore_defaults()


@pytest.fixture
def after_the_first(first, tutorial) -> Tutorial:
    """A tutorial in a folder of its own in which the first one was done."""
    shutil.copytree(first.folder / "runs", tutorial.folder / "runs")
    return tutorial


def played(patch: pytest.MonkeyPatch, folder: Path, blocks: list[Block]) -> Tutorial:
    """A tutorial in a folder that has the reference tables; stage runs are made in this process."""
    patch.chdir(folder)
    patch.setattr("indelible.scheduling.launcher.launch", launch_here)
    (folder / "reference").symlink_to(ROOT / "reference")
    tutorial = Tutorial(folder)
    tutorial.play(blocks)
    return tutorial


def test_every_tutorial_is_run():
    names = {page.stem for page in PAGES.iterdir()}
    assert names - ELSEWHERE == HERE


@pytest.mark.slow
def test_the_first_study(first):
    assert first.commands == ["plan", "run", "status", "results", "verdicts", "plan", "report"]
    assert (first.folder / "runs" / "quickstart" / "report.html").stat().st_size > 500_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS_A_STUDY)
def test_what_follows_a_first_study(after_the_first, name):
    after_the_first.play(blocks_of(text_of(f"{name}.md")))
    assert after_the_first.commands
    written = {"paper-figure": "figure.pdf", "audit-a-checkpoint": "audits/music/audit.html"}
    if name in written:
        assert (after_the_first.folder / written[name]).stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS_FILES)
def test_ones_own_files(tutorial, name):
    write_files(tutorial.folder)
    tutorial.play(blocks_of(text_of(f"{name}.md")))
    assert {"init", "plan", "run", "results"} <= set(tutorial.commands)


@pytest.mark.slow
def test_the_notebook(after_the_first):
    after_the_first.play(cells_of(text_of("from-python.ipynb")))


def test_a_cluster_study_is_priced_and_its_jobs_are_not_submitted(tutorial, monkeypatch):
    submitted = []
    monkeypatch.setattr("tutorial.run_command", lambda words: (0, submitted.append(words)))
    tutorial.play(blocks_of(text_of("on-a-cluster.md")))
    runs = [words for words in submitted if words[0] == "run"]
    assert [words[words.index("--executor") + 1] for words in runs] == ["slurm", "slurm"]
    monkeypatch.undo()
    monkeypatch.chdir(tutorial.folder)
    assert run_command(["plan", "cluster.yaml", "--workers", "8"])[0] == 0
    slurm = resolve_study(yaml.safe_load(Path("cluster.yaml").read_text())).execution.slurm
    assert (slurm.partition, slurm.gpus_per_node, slurm.extra) == ("gpu", 4, {"mem": "64G"})


@pytest.mark.slow
def test_a_guard_is_a_file_and_two_lines(tmp_path):
    """In a copy of the package: the page's file, the page's change, and a stage that is trained with it."""
    shutil.copytree(ROOT / "indelible", tmp_path / "indelible", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = blocks_of(text_of("add-a-guard.md"))
    for block in blocks:
        if block.file:
            (tmp_path / block.file).write_text(block.text)
        elif block.language == "diff":
            done = subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=block.text, text=True, capture_output=True)
            assert done.returncode == 0, done.stdout + done.stderr
    study = yaml.safe_load((tmp_path / "guard.yaml").read_text())
    tiny = {**TINY, "stages": study["stages"]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    program = (
        "from pathlib import Path; from tutorial import run_command, finish, launch_here\n"
        "from indelible.scheduling import launcher; launcher.launch = launch_here\n"
        "for words in (['plan', 'guard.yaml'], ['run', 'tiny.yaml', '--out', 'out'], ['results', 'out']):\n"
        "    code, text = run_command(words); assert code == 0, text\n"
        "print(text)\n"
    )
    path = f"{tmp_path}:{ROOT / 'tests' / 'support'}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.split()
    at = header.split(",").index("finetune_guard")
    assert sorted(row.split(",")[at] for row in rows) == ["l1sp", "none"]
    losses = [row.split(",")[header.split(",").index("L_ret")] for row in rows]
    assert len(set(losses)) == 2, "the guard did nothing"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_is_shown_of_a_committed_table_is_what_the_command_prints(page, monkeypatch):
    """A `text` block behind a command on a table of `reference/` holds lines of its output, in order."""
    monkeypatch.chdir(ROOT)
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    for before, block in itertools.pairwise(blocks):
        if block.language == "text" and before.language == "bash" and "reference/" in before.text:
            (line,) = before.text.splitlines()
            lines = run_command(line.split()[1:])[1].splitlines()
            shown = block.text.splitlines()
            at = lines.index(shown[0])
            assert lines[at : at + len(shown)] == shown
