"""The card as one HTML page that opens from disk, with everything it needs inside."""

import re
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from indelible.durability import figures
from indelible.durability.card import Audit
from indelible.durability.charts import gauge, short
from indelible.durability.wording import ACCURACIES_TEXT, VERDICT_WORDS, names_text, number_text, short_name

MOST_ROWS = 200  # settings in the page's table


def card_html(audit: Audit) -> str:
    """The whole page as text. All text of the audit is escaped; nothing is loaded from anywhere."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    style = _read("indelible.report", "report.css") + _read("indelible.durability", "card.css")
    return environment.from_string(_read("indelible.durability", "card.html")).render(
        audit=audit,
        name=short_name(audit.model),
        other=short_name(audit.against) if audit.against else "",
        later=names_text([one.name for one in audit.later]),
        verdict=VERDICT_WORDS[audit.verdict],
        shares=figures.is_in_shares(audit),
        kept="" if audit.kept is None else number_text(audit.kept),
        unit=unit_text(audit),
        rows=audit.settings[:MOST_ROWS],
        figures={
            "gauge": gauge(audit),
            "survival": figures.survival_figure(audit),
            "customers": figures.customers_figure(audit),
            "worst": figures.worst_figure(audit),
            "trials": figures.trials_figure(audit),
            "comparison": figures.comparison_figure(audit),
        },
        facts=facts(audit),
        accuracies_text=ACCURACIES_TEXT,
        short_name=short_name,
        interval=lambda number, is_share=False: figures.number_text(number, is_share=is_share, with_n=False),
        short=short,
        tied=tied,
        style=Markup(style),
    )


def tied(words: str) -> str:
    """Numbers and their units, and both ends of an interval, on one line."""
    joined = re.sub(r"(?<=\d) (?=%|nats)", "\u00a0", words)
    return re.sub(r"(?<=\d) to (?=-?\d)", "\u00a0to\u00a0", joined)


def unit_text(audit: Audit) -> str:
    """What n counts, in the plural."""
    return "checkpoints" if audit.scope.unit == "checkpoint" else "seeds of fine-tuning"


def facts(audit: Audit) -> list[tuple[str, str]]:
    """Small print, by name."""
    found = [
        ("model", names_text(audit.model)),
        ("base", audit.base or "none: losses in nats"),
        ("against", names_text(audit.against) if audit.against else "nothing"),
        ("loss of the model on the kept data", "–" if audit.before is None else f"{audit.before:.4f} nats per token"),
        ("capability: base minus model", "–" if audit.capability is None else f"{audit.capability:.4f} nats per token"),
        ("noise of a re-run (other seed)", "–" if audit.noise is None else f"{audit.noise:.4f} nats per token"),
        ("seeds of fine-tuning", ", ".join(map(str, audit.seeds))),
        ("stage runs", f"{audit.cost['stage_runs']:,.0f}"),
        ("tokens trained", f"{audit.cost['trained_tokens']:,.0f}"),
        ("worker hours", f"{audit.cost['worker_hours']:.2f}"),
    ]
    known = ("indelible", "torch", "device", "precision", "machine")
    return found + [(key, str(audit.environment[key])) for key in known if audit.environment.get(key)]


@cache
def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath("templates", name).read_text(encoding="utf-8")
