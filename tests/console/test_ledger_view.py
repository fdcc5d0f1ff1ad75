"""The audit of ledgers as it is shown on a terminal."""

import io

from rich.console import Console

from indelible.console.ledger_view import print_audit, short_count
from indelible.data.audit import Audit, UseAudit
from indelible.data.audit_checks import Check


def shown(audit: Audit) -> str:
    out = io.StringIO()
    print_audit(audit, Console(file=out, width=150))
    return out.getvalue()


def test_uses_of_one_ledger_stand_together_and_checks_follow():
    rows = [
        UseAudit(["a", "b"], "finetune", 3, "general", 66_048, 66_048, 516, 66_048, 66_048, [6_600] * 10),
        UseAudit(["a", "b"], "finetune", 3, "general:replay", 19_968, 19_840, 155, 12_000, 9_000, [1_984] * 10),
        UseAudit(["c"], "pretrain", 3, "music", 0, 0, 0, 0, 0, [0] * 10),
    ]
    checks = [Check("passes are distinct", True, 1_200), Check("mixes nest", False, 3), Check("the rest", True, 0)]
    text = shown(Audit(rows, checks))
    lines = [[part.strip() for part in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [line[:8] for line in lines] == [
        ["finetune", "3", "2", "general", "66,048", "66,048", "516", "66,048"],
        ["", "", "", "general:replay", "19,968", "19,840", "155", "9,000"],
        ["pretrain", "3", "1", "music", "0", "0", "0", "0"],
    ]
    assert lines[0][8].split() == ["6.6k"] * 10
    assert text.splitlines()[-3:] == [
        "passes are distinct: holds (1,200 compared)",
        "mixes nest: DOES NOT HOLD (3 compared)",
        "the rest: nothing to compare",
    ]
    assert not Audit(rows, checks).holds


def test_counts_are_short():
    assert [short_count(n) for n in (0, 950, 12_345, 200_064, 870_000_000, 8_700_000_000)] == [
        "0", "950", "12.3k", "200k", "870M", "8.7B",
    ]  # fmt: skip
