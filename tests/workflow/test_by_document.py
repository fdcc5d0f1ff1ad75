"""`compare --by-document`: two checkpoints of a study run, and what is refused."""

import json
from pathlib import Path

import pytest
import typer
from fake_files import edit_json, write_documents
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

import indelible
from indelible.cli.compare_command import register
from indelible.errors import UserError
from indelible.records import Plan

TOKENS = [100, 300, 200, 400]


@pytest.fixture
def study(tmp_path) -> tuple[Path, str, str]:
    """A folder and two of its last runs, the second worse on music by 0.1 nats per token in every document but one."""
    root = write_fake_study(tmp_path / "run", FakeStudy(seeds=(0,), fractions=(0.0, 1.0), is_traced=False))
    chains = indelible.open(root).results().filter(post_tokens=10_000, finetune_lr=1e-3).sort("exposure_fraction")
    first, second = chains["finetune_id"]
    for corpus in ("general", "music", "chemistry"):
        write_documents(root, first, corpus, TOKENS, [3.0 * count for count in TOKENS])
        write_documents(root, second, corpus, TOKENS, [3.0 * count for count in TOKENS])
    write_documents(root, second, "music", TOKENS, [310.0, 930.0, 600.0, 1200.0 + 80.0])
    return root, first, second


def call(*arguments):
    app = typer.Typer()
    app.command("results")(lambda: None)
    register(app)
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def refusal(*arguments) -> str:
    error = call(*arguments).exception
    assert isinstance(error, UserError)
    return str(error)


def test_each_corpus_is_compared_by_document(study):
    root, first, second = study
    found = {one.corpus: one.found for one in indelible.open(root).compare_documents(first, second)}
    assert list(found) == ["general", "music", "chemistry"]
    assert (found["general"].effect, found["general"].standard_error) == (0.0, 0.0)
    music = found["music"]
    assert music.effect == pytest.approx((10 + 30 + 80) / 1000)
    assert (music.num_worse, music.num_better, music.num_documents) == (3, 0, 4)
    assert [one.document for one in music.worst] == [3, 0, 1]
    back = indelible.open(root).compare_documents(second, first, "music")[0].found
    assert (back.effect, back.low, back.high) == pytest.approx((-music.effect, -music.high, -music.low))


def test_the_interval_has_the_level_of_the_study(study):
    root, first, second = study
    edit_json(root / "plan.json", lambda plan: plan["inference"].update(level=0.01))
    (strict,) = indelible.open(root).compare_documents(first, second, "music")
    assert strict.found.level == 0.01


def test_the_command_prints_a_line_a_corpus_and_the_worst_documents(study):
    root, first, second = study
    done = call(root, "--by-document", first, second, "--corpus", "music")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{second} against {first}"
    assert lines[1].startswith("  music: +0.1200 [")
    assert lines[1].endswith("4 documents: 3 worse, 0 better")
    assert lines[2].startswith("    worst documents: 3 (400 tokens, +0.2000), 0 (100 tokens, +0.1000)")
    assert "paired by held-out document" in done.stdout
    (row,) = json.loads(call(root, "--by-document", first, second, "--corpus", "music", "--json").stdout)
    assert (row["corpus"], row["run_a"], row["run_b"]) == ("music", first, second)
    assert row["found"]["num_worse"] == 3


def test_a_given_checkpoint_can_be_one_of_the_two(study):
    root, first, second = study
    kinds = Plan.read(root / "plan.json").evaluations[first]

    def add(plan):
        plan["given"] = {"given-0123456789ab": "/models/x"}
        plan["evaluations"]["given-0123456789ab"] = kinds

    edit_json(root / "plan.json", add)
    folder = (root / "evaluations" / first).rename(root / "evaluations" / "given-0123456789ab")
    for path in folder.glob("*.json"):
        edit_json(path, lambda record: record.update(checkpoint=folder.name))
    (found,) = indelible.open(root).compare_documents("given-0123", second, "music")
    assert found.run_a == "given-0123456789ab"
    assert found.found.effect == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"windows": 64}, "windows 128 and 64"), ({"loss_on": "completion"}, "loss_on all and completion")],
)
def test_other_windows_and_targets_are_refused(study, change, message):
    root, first, second = study

    def edit(plan):
        kinds = plan["evaluations"][second]
        (name,) = (name for name in kinds if name.startswith("music-"))
        plan["heldout"].append({**plan["heldout"][kinds[name]], **change})
        kinds[name] = len(plan["heldout"]) - 1

    edit_json(root / "plan.json", edit)
    said = refusal(root, "--by-document", first, second)
    assert f"on music they are evaluated with {message}; documents are paired only on the same windows" in said
    assert call(root, "--by-document", first, second, "--corpus", "chemistry").exit_code == 0


def test_other_documents_are_refused(study):
    root, first, second = study
    write_documents(root, second, "music", [100, 300, 200, 401], [1.0, 2.0, 3.0, 4.0])
    assert "4 and 4 documents, of which 3 have the same number and tokens in both" in refusal(
        root, "--by-document", first, second
    )


def test_what_is_not_evaluated_or_not_finite_is_refused(study):
    root, first, second = study
    write_documents(root, second, "music", TOKENS, [float("nan"), 1.0, 1.0, 1.0])
    assert "is not finite" in refusal(root, "--by-document", first, second)
    write_documents(root, second, "music", TOKENS, [1.0] * 4).unlink()
    assert "is not evaluated yet, or diverged" in refusal(root, "--by-document", first, second)


def test_unclear_requests_are_refused(study):
    root, first, second = study
    pair = ("--by-document", first, second)
    assert "either --by SETTING, --by-exposure or --by-document" in refusal(root)
    assert "either --by SETTING, --by-exposure or --by-document" in refusal(root, *pair, "--by", "dropout")
    assert "go with --by" in refusal(root, *pair, "--gain")
    assert "goes with --by-document" in refusal(root, "--by", "exposure_fraction", "--corpus", "music")
    assert "name two checkpoints" in refusal(root, "--by-document", first, first)
    assert "no stage run of this plan" in refusal(root, "--by-document", first, "nothing")
    assert "stage runs begin so" in refusal(root, "--by-document", first, "finetune-")
    said = refusal(root, *pair, "--corpus", "poems")
    assert "both are evaluated on general, music, chemistry" in said
