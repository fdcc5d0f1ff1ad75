"""The audit of ledgers says what is so, and notices what is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from tiny_engine import TINY, layered
from typer.testing import CliRunner

from indelible.cli import study_commands
from indelible.data import audit, audit_checks
from indelible.data.audit import Audit, audit_study
from indelible.data.fingerprint import study_stores
from indelible.data.ledger import Ledger
from indelible.data.prepare import prepare_study
from indelible.study.graph import Graph, build_graph
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec

OVER = {"exposure": {"fraction": [0, 0.5, 1.0]}, "posttrain": {"allocation": ["full", "matched"]}, "seeds": [0, 1]}
EXACT = "realised tokens equal the requested ones to within one window a pass"
PASSES = "no window stands twice in one pass"
PLACES = "mixed windows lie where their placement says"
ORDERS = "the order of a stage's own corpus is the same in all arms of a seed"
NESTED = "the windows of a mix nest over its sizes"
REST = "a stage that shows the rest shows exactly what the named stages did not"
REPLAY = "replayed windows are such that earlier stages showed, or did not, as requested"
CHECKS = [EXACT, PASSES, PLACES, ORDERS, NESTED, REST, REPLAY]
LONG = {  # five stages: replay of three corpora, one that is the rest, a corpus in two uses
    "posttrain": {"replay_fraction": 0.1},
    "exposure": {"fraction": [0, 0.5], "placement": "late"},
    "stages": {
        "finetune": {"mix": [{"corpus": "post", "fraction": 0.3, "per": "stage"}]},
        "second": {"corpus": "ft", "tokens": 640, "not_shown_in": ["finetune"]},
        "relearn": {
            "corpus": "post",
            "tokens": 160,
            "mix": [
                {"corpus": "post", "share_of": "posttrain", "fraction": 0.2, "not_shown_in": ["posttrain"]},
                {"corpus": "ft", "share_of": "finetune", "fraction": [0.1, 0.5], "per": "stage", "mode": "replace"},
                {"corpus": "pre", "fraction": 0.4, "not_shown_in": ["pretrain"]},
            ],
        },
    },
}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audited")
    prepare_study(resolve_study(TINY), root / "tokens", root / "cache")
    return root / "tokens"


@pytest.fixture
def graph_of(tmp_path: Path) -> Callable[[dict[str, Any]], Graph]:
    def make(over: dict[str, Any]) -> Graph:
        seeds = over.get("seeds", TINY["seeds"])
        study = resolve_study({**layered(TINY, {**over, "seeds": []}), "seeds": seeds})
        return build_graph(study, study_stores(study, tmp_path / "cache"))

    return make


def held(report: Audit) -> dict[str, bool]:
    return {check.name: check.holds for check in report.checks}


def test_every_property_holds_and_was_really_compared(graph_of, tokens):
    graph = graph_of(OVER)
    report = audit_study(graph, tokens)
    assert [check.name for check in report.checks] == CHECKS
    assert report.holds
    assert [check.name for check in report.checks if not check.compared] == [REPLAY]
    assert all(row.realised_tokens == sum(row.tenths) for row in report.rows)
    assert {run for row in report.rows for run in row.runs} == set(graph.runs)
    pretrain = {(row.use, row.requested_tokens) for row in report.rows if row.stage == "pretrain" and row.seed == 0}
    assert pretrain == {("pre", 640), ("post", 160), ("post", 320)}
    assert json.loads(json.dumps(report.as_json()))["rows"][0]["requested_tokens"] == 640


def test_a_chain_of_five_stages(graph_of, tokens):
    graph = graph_of(LONG)
    report = audit_study(graph, tokens)
    assert {check.name: check.compared > 0 for check in report.checks} == dict.fromkeys(CHECKS, True)
    assert report.holds
    uses = {stage: [row.use for row in report.rows if row.stage == stage] for stage in graph.stages}
    assert uses["relearn"][:4] == ["post", "pre", "ft", "post:replay post"]
    rows = {(row.stage, row.use): row for row in report.rows}
    one = rows["relearn", "post:replay post"]
    assert (one.requested_tokens, one.realised_tokens) == (28, 32), "4 of the 9 windows of a pass are left"
    assert rows["second", "ft"].realised_tokens == 640 - 320


def test_one_corpus_in_two_uses_is_audited_by_use(graph_of, tokens):
    mix = [{"corpus": "ft", "fraction": 0.5}]
    report = audit_study(graph_of({"stages": {"finetune": {"tokens": 320, "mix": mix}}}), tokens)
    assert report.holds
    rows = {row.use: row for row in report.rows if row.stage == "finetune"}
    assert {use: (row.requested_tokens, row.realised_tokens) for use, row in rows.items()} == {
        "ft": (320, 320),
        "ft:mix ft": (160, 160),
    }


def damaged(change: Callable[[StageSpec, Ledger], None]) -> Callable[..., Ledger]:
    build = audit.build_ledger

    def build_wrong(spec: StageSpec, windows: dict[str, int]) -> Ledger:
        ledger = build(spec, windows)
        change(spec, ledger)
        return ledger

    return build_wrong


def reverse_mixed(spec: StageSpec, ledger: Ledger) -> None:
    if spec.data.mix and spec.stage == "pretrain":
        ledger.window[:] = ledger.window[::-1].copy()


def show_twice(spec: StageSpec, ledger: Ledger) -> None:
    for index in range(1, len(ledger.uses)):
        rows = np.flatnonzero(ledger.source == index)
        ledger.window[rows[-1]] = ledger.window[rows[0]]


def show_others(spec: StageSpec, ledger: Ledger) -> None:
    if spec.stage in ("posttrain", "relearn"):
        ledger.window[ledger.source > 0] = ledger.window[ledger.source > 0][::-1] + 20


def swap_sources(spec: StageSpec, ledger: Ledger) -> None:
    ledger.source[:] = ledger.source[::-1].copy()


def lose_one(spec: StageSpec, ledger: Ledger) -> None:
    rows = np.flatnonzero(ledger.source > 0)
    ledger.source[rows[:2]] = 0


def show_again(spec: StageSpec, ledger: Ledger) -> None:
    if spec.data.main.first_window:
        ledger.window[-1:] = ledger.window[:1]


@pytest.mark.parametrize(
    ("over", "change", "noticed"),
    [
        (OVER, reverse_mixed, {ORDERS, NESTED}),
        (LONG, show_twice, {PASSES}),
        (LONG, show_others, {REPLAY}),
        (LONG, swap_sources, {PLACES}),
        (LONG, lose_one, {EXACT}),
        (LONG, show_again, {REST, PASSES}),
        (OVER, show_again, {REST, PASSES}),
    ],
)
def test_what_is_wrong_is_noticed(graph_of, tokens, monkeypatch, over, change, noticed):
    graph = graph_of(over)
    monkeypatch.setattr(audit, "build_ledger", damaged(change))
    report = audit_study(graph, tokens)
    assert not report.holds
    assert noticed <= {name for name, holds in held(report).items() if not holds}


@pytest.mark.parametrize("where", ["seen", "unseen"])
def test_the_papers_replay(graph_of, tokens, monkeypatch, where):
    graph = graph_of({"posttrain": {"replay_fraction": 0.1, "replay_from": where}})
    report = audit_study(graph, tokens)
    assert report.holds
    assert {check.name: check.compared for check in report.checks}[REPLAY] == 1
    pretrained: list[int] = []

    def show_one_of_the_other_kind(spec: StageSpec, ledger: Ledger) -> None:
        if spec.stage == "pretrain":
            pretrained.extend(ledger.window.tolist())
        if spec.data.mix:
            rows = np.flatnonzero(ledger.source == 1)
            unseen = next(window for window in range(len(pretrained) + 1) if window not in pretrained)
            ledger.window[rows[0]] = unseen if where == "seen" else pretrained[0]

    monkeypatch.setattr(audit, "build_ledger", damaged(show_one_of_the_other_kind))
    report = audit_study(graph, tokens)
    assert [name for name, holds in held(report).items() if not holds] == [REPLAY]


def test_seeds_that_are_swept_apart_are_audited(graph_of, tokens):
    """The stages of a chain share one permutation of each corpus, whatever the seeds that shuffle their passes."""
    over = {"exposure": {"fraction": 0.5}, "posttrain": {"allocation": "matched"}, "finetune": {"replay_fraction": 0.1}}
    seeds = {"pretrain": [0, 1], "posttrain": [2, 3], "finetune": [4, 5]}
    report = audit_study(graph_of(over | {"seeds": seeds}), tokens)
    assert report.holds
    assert {check.name: check.compared for check in report.checks}[REPLAY] == 8
    assert {(row.stage, row.seed) for row in report.rows} == {(stage, s) for stage, two in seeds.items() for s in two}


def test_raw_ledgers_are_written_as_parquet(graph_of, tokens, tmp_path):
    report = audit_study(graph_of(OVER), tokens, ["2"], parquet=tmp_path / "ledgers")
    files = sorted((tmp_path / "ledgers").glob("*.parquet"))
    assert len(files) == 3
    for file in files:
        table = pl.read_parquet(file)
        realised = {row.use: row.realised_tokens for row in report.rows if file.stem in row.runs}
        counts = dict(table.group_by(pl.col("source").cast(pl.String)).len().iter_rows())
        assert {use: count * 32 for use, count in counts.items()} == {use: n for use, n in realised.items() if n}
        assert table["row"].to_list() == list(range(len(table)))


def test_the_command_needs_no_folder_and_changes_none(tiny_study, tmp_path, monkeypatch):
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    out = tiny_study(OVER)
    app = typer.Typer()
    study_commands.register(app)
    before = (out / "plan.json").read_bytes()
    study = str(out.parent / "out.yaml")
    arguments = ["ledger", study, "--set", "execution.workers=3", "--arm", "seed=1", "--json"]
    found = [json.loads(CliRunner().invoke(app, arguments + more).stdout) for more in (["--out", str(out)], [])]
    assert (out / "plan.json").read_bytes() == before
    assert found[0]["rows"] == found[1]["rows"]
    assert {row["seed"] for row in found[0]["rows"]} == {1}
    files = {path.stem for path in (tmp_path / "cache" / "ledger" / "tiny" / "ledgers").glob("*.parquet")}
    assert files == {run for row in found[1]["rows"] for run in row["runs"]}
    printed = CliRunner().invoke(app, ["ledger", study, "--out", str(out)])
    assert printed.exit_code == 0
    assert f"{NESTED}: holds (" in printed.stdout
    monkeypatch.setattr(audit_checks, "passes_are_distinct", lambda _: iter([False]))
    assert CliRunner().invoke(app, ["ledger", study, "--out", str(out)]).exit_code == 1
