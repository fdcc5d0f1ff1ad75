"""`indelible ledger`: the audit says what is so, and notices what is not."""

import json

import polars as pl
import pytest

from indelible.cli.study_commands import plan_study
from indelible.data import audit
from indelible.data.audit import audit_study
from indelible.errors import UserError

OVER = {"exposure": {"fraction": [0, 0.5, 1.0]}, "posttrain": {"allocation": ["full", "matched"]}, "seeds": [0, 1]}


@pytest.fixture
def planned(tiny_study):
    out = tiny_study(OVER)
    return plan_study(str(out.parent / "out.yaml"), []), out / "tokens"


def test_every_property_holds_and_was_really_compared(planned):
    study, tokens = planned
    report = audit_study(study.graph, tokens)
    assert all(check.holds for check in report.checks)
    assert all(check.compared > 0 for check in report.checks)
    assert sum(row.realised_tokens for row in report.rows) == sum(sum(row.tenths) for row in report.rows)
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
    report = audit_study(study.graph, tokens, chain=2, parquet=tmp_path / "ledgers")
    files = sorted((tmp_path / "ledgers").glob("*.parquet"))
    assert len(files) == 3
    rows = {row.run: 0 for row in report.rows}
    for row in report.rows:
        rows[row.run] += row.realised_tokens // 32
    for file in files:
        assert len(pl.read_parquet(file)) == rows[file.stem]


def test_an_unknown_chain_is_refused(planned):
    study, tokens = planned
    with pytest.raises(UserError, match=r"--arm 99: the plan has 12 chains"):
        audit_study(study.graph, tokens, chain=99)
