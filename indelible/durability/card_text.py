"""The card as Markdown for a model card: YAML metadata in front, then the numbers as tables."""

from typing import Any

from indelible.durability import figures
from indelible.durability.card import Audit
from indelible.durability.card_html import facts, unit_text
from indelible.durability.wording import ACCURACIES_TEXT, VERDICT_WORDS, names_text, short_name
from indelible.study.yaml_reader import write_yaml

_SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#"})


def plain(text: object) -> str:
    """Text that Markdown shows as it is, in one line."""
    return " ".join(str(text).split()).translate(_SPECIAL)


def card_markdown(audit: Audit) -> str:
    """The whole card."""
    shares = figures.is_in_shares(audit)
    parts = [
        "---",
        write_yaml(metadata(audit)).rstrip(),
        "---",
        "",
        f"# Durability of {plain(short_name(audit.model))}",
        "",
    ]
    parts += [f"**{VERDICT_WORDS[audit.verdict].capitalize()}.** {plain(audit.sentence)}", ""]
    parts += [plain(audit.scope.covers), ""]
    if audit.kept is not None:
        parts += [
            f"n = {audit.kept.n} {unit_text(audit)}; trials: {audit.trials}, of which {audit.diverged} diverged.",
            "",
        ]
    parts += ["## Three customers, at equal gain on the new task", ""]
    head = ["new data", "part of the gain", "customer", "nats lost", *(["share left"] if shares else []), "settings"]
    parts += table(head, [
        [row.later, f"{100 * row.gain:.0f} %", row.customer, figures.number_text(row.lost),
         *([figures.number_text(row.share, is_share=True)] if shares else []), row.settings]
        for row in audit.customers
    ])  # fmt: skip
    if audit.comparison:
        parts += [f"## Against {plain(short_name(audit.against))}", ""]
        parts += ["Loss lost, model minus the other; below zero the model keeps more.", ""]
        parts += table(
            ["new data", "part of the gain", "customer", "difference, nats", "verdict"],
            [[row.later, f"{100 * row.gain:.0f} %", row.customer, figures.number_text(row.difference), row.verdict]
             for row in audit.comparison],
        )  # fmt: skip
    if audit.relearning:
        parts += ["## Suppressed or erased", ""]
        parts += table(
            ["updates on the kept data", "restored, of what was lost", "still missing"],
            [[row.updates, figures.number_text(row.restored, is_share=True),
              figures.number_text(row.missing, is_share=True)] for row in audit.relearning],
        )  # fmt: skip
    if audit.accuracies:
        parts += ["## Accuracies", "", plain(ACCURACIES_TEXT), ""]
        parts += table(
            ["task", "checkpoint", "new data", "before", "after", "examples", "settings"],
            [[row.task, row.checkpoint, row.later, figures.number_text(row.before, is_share=True),
              figures.number_text(row.after, is_share=True), row.examples, row.settings] for row in audit.accuracies],
        )  # fmt: skip
    for heading, lines in (("Warnings", audit.warnings), ("Threat model", audit.threat_model),
                           ("Not tested", (*audit.not_tested, *_left_out(audit)))):  # fmt: skip
        if lines:
            parts += [f"## {heading}", "", *(f"- {plain(one)}" for one in lines), ""]
    parts += ["## What a loss says", "", plain(audit.proxy), "", "## Behind the numbers", ""]
    parts += table(["", ""], [[key, value] for key, value in facts(audit)])
    return "\n".join(parts).rstrip() + "\n"


def metadata(audit: Audit) -> dict[str, Any]:
    """What a machine reads of the card's head, in the form of the hub's model cards."""
    found: dict[str, Any] = {
        "tags": ["indelible", "durability"],
        "durability": {
            "verdict": audit.verdict,
            "model": list(audit.model),
            "keep": audit.keep,
            "later": [one.name for one in audit.later],
            "customer": audit.customer,
            "part_of_gain": audit.gain,
            "required": audit.require,
            "unit": audit.scope.unit,
            "battery": str(audit.battery.get("name", "own")),
        },
    }
    if audit.kept is not None:
        is_share = audit.kept.unit == "share"  # in nats it is what was lost: more is worse
        found["durability"]["kept" if is_share else "lost"] = audit.kept.model_dump(mode="json")
    if audit.base is not None:
        found["durability"]["base"] = audit.base
    return found


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """A Markdown table and an empty line."""
    lines = ["| " + " | ".join(plain(one) for one in head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(plain(one) for one in row) + " |" for row in rows), ""]


def _left_out(audit: Audit) -> list[str]:
    return [f"Left out by the budget: {names_text(audit.left_out)}."] if audit.left_out else []
