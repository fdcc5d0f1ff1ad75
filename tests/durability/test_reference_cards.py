"""The committed cards: docs/findings.md says of them what their JSON says, and JSON and page agree."""

import re
from pathlib import Path

import pytest

from indelible.durability.card import Audit

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "reference" / "audit"
NUMBER = re.compile(r"(-?\d+\.\d{3}) \((-?\d+\.\d{3}) to (-?\d+\.\d{3})\)")


def read(name: str) -> Audit:
    return Audit.model_validate_json((CARDS / f"{name}.json").read_text(encoding="utf-8"))


def section(title: str) -> str:
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_table_of_the_real_model_is_that_of_its_cards():
    rows = [NUMBER.findall(line) for line in section("An audit of a real model").splitlines() if NUMBER.search(line)]
    assert len(rows) == 6
    for column, name in enumerate(("smollm2", "smollm2-lora")):
        told = [row[column] for row in rows]
        lost = [one.lost for one in read(name).customers if one.later == "all"]
        assert told == [(f"{one.value:.3f}", f"{one.low:.3f}", f"{one.high:.3f}") for one in lost]


@pytest.mark.parametrize(("name", "verdict"), [("smollm2", "cannot tell"), ("smollm2-lora", "not durable")])
def test_the_verdicts_that_are_told_are_those_of_the_cards(name, verdict):
    card = read(name)
    assert card.verdict.replace("_", " ") == verdict
    assert f"({verdict})" in section("An audit of a real model")
    kept = f"{card.kept.value:.3f} nats ({card.kept.low:.3f} to {card.kept.high:.3f})"
    assert kept in card.sentence
    page = (CARDS / f"{name}.html").read_text(encoding="utf-8")
    assert kept in page.replace("\N{NO-BREAK SPACE}", " ")
