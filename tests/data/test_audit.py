"""`indelible ledger`: the audit says what is so, and notices what is not."""

import json

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from indelible.cli import study_commands
from indelible.cli.study_commands import plan_study
from indelible.data import audit, audit_checks
from indelible.data.audit import audit_study, chosen_chains, short_count
from indelible.errors import UserError

OVER = {"exposure": {"fraction": [0, 0.5, 1.0]}, "posttrain": {"allocation": ["full", "matched"]}, "seeds": [0, 1]}
REPLAY = "replayed windows are such that pretraining showed, or did not, as asked"
PASSES = "no window stands twice in one pass"


@pytest.fixture
def planned(tiny_study):
    out = tiny_study(OVER)
    return plan_study(str(out.parent / "out.yaml"), []), out / "tokens"


def test_every_property_holds_and_was_really_compared(planned):
    study, tokens = planned
    report = audit_study(study.graph, tokens)
    assert all(check.holds for check in report.checks)
    assert [check.name for check in report.checks if not check.compared] == [REPLAY]
    assert all(row.realised_tokens == sum(row.tenths) for row in report.rows)
    assert {run for row in report.rows for run in row.runs} == set(study.graph.runs)
    json.dumps(report.as_json())


def test_a_wrong_order_is_noticed(planned, monkeypatch):
    study, tokens = planned
    build = audit.build_ledger

    def reversed_with_exposure(spec, windows):
        ledger = build(spec, windows)
        if spec.data.exposure is not None:
            ledger.window[:] = ledger.window[::-1].copy()
        return ledger

    monkeypatch.setattr(audit, "build_ledger", reversed_with_exposure)
    held = {check.name: check.holds for check in audit_study(study.graph, tokens).checks}
    assert not held["the pretraining order of D_pre is the same in all arms of a seed"]


def test_raw_ledgers_are_written_as_parquet(planned, tmp_path):
    study, tokens = planned
    report = audit_study(study.graph, tokens, ["2"], parquet=tmp_path / "ledgers")
    files = sorted((tmp_path / "ledgers").glob("*.parquet"))
    assert len(files) == 3
    for file in files:
        table = pl.read_parquet(file)
        asked = {row.source: row.realised_tokens for row in report.rows if file.stem in row.runs}
        counts = dict(table.group_by(pl.col("source").cast(pl.String)).len().iter_rows())
        assert {source: count * 32 for source, count in counts.items()} == {s: n for s, n in asked.items() if n}
        assert table["row"].to_list() == list(range(len(table)))


def test_arms_are_chosen_by_number_name_and_column(planned):
    graph = planned[0].graph
    assert chosen_chains(graph, ["3"]) == (graph.chains[3],)
    found = chosen_chains(graph, ["exposure_fraction=0.5", "allocation=matched", "seed=1"])
    assert [(c.columns["exposure_fraction"], c.columns["seed"]) for c in found] == [(0.5, 1)]
    assert len(chosen_chains(graph, ["seed=0"])) == 6
    assert chosen_chains(graph, []) == graph.chains
    with pytest.raises(UserError, match=r"--arm 99: none of the plan's 12 chains; give a number below 12"):
        chosen_chains(graph, ["99"])
    with pytest.raises(UserError, match=r"no column 'sede'; they have study, scale"):
        chosen_chains(graph, ["sede=1"])


def test_a_doubled_window_and_a_wrong_replay_are_noticed(tiny_study, monkeypatch):
    out = tiny_study({"posttrain": {"replay_fraction": 0.1, "replay_from": ["seen", "unseen"]}})
    graph = plan_study(str(out.parent / "out.yaml"), []).graph
    held = {check.name: check for check in audit_study(graph, out / "tokens").checks}
    assert held[REPLAY].holds
    assert held[PASSES].holds
    assert held[REPLAY].compared >= 2
    build = audit.build_ledger

    def wrong(spec, windows):
        ledger = build(spec, windows)
        if spec.data.replay is not None:
            ledger.window[ledger.source == 1] = ledger.window[ledger.source == 1].max()
            ledger.window[np.flatnonzero(ledger.source == 1)[0]] = 0
        return ledger

    monkeypatch.setattr(audit, "build_ledger", wrong)
    report = audit_study(graph, out / "tokens")
    held = {check.name: check for check in report.checks}
    assert not held[PASSES].holds
    assert not held[REPLAY].holds
    assert not report.holds


def test_counts_are_short():
    assert [short_count(n) for n in (0, 950, 12_345, 200_064, 870_000_000, 8_700_000_000)] == [
        "0", "950", "12.3k", "200k", "870M", "8.7B",
    ]  # fmt: skip


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
    shown = CliRunner().invoke(app, ["ledger", study, "--out", str(out)])
    assert shown.exit_code == 0
    assert "exposures of a seed nest: holds (" in shown.stdout
    monkeypatch.setattr(audit_checks, "_is_prefix", lambda *_: False)
    assert CliRunner().invoke(app, ["ledger", study, "--out", str(out)]).exit_code == 1
