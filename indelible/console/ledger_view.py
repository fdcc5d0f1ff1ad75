"""The audit of a study's ledgers on a terminal: tokens by use and tenth of the stage, then the checks."""

from rich.console import Console
from rich.table import Table

from indelible.data.audit import Audit


def print_audit(audit: Audit, console: Console) -> None:
    """Prints a table with a row for each use of a corpus in each ledger, then a line for each check."""
    table = Table(title="Tokens by use: requested, realised, and in each tenth of the stage")
    for heading in ("stage", "seed", "runs", "corpus", "requested", "realised", "rows", "trained", "by tenth"):
        table.add_column(heading, justify="left" if heading in ("stage", "corpus", "by tenth") else "right")
    last: list[str] = []
    for row in audit.rows:
        table.add_row(
            *(("", "", "") if row.runs == last else (row.stage, str(row.seed), str(len(row.runs)))),
            row.use,
            f"{row.requested_tokens:,}",
            f"{row.realised_tokens:,}",
            f"{row.rows:,}",
            f"{row.trained_tokens:,}",
            " ".join(f"{short_count(tokens):>5}" for tokens in row.tenths),
        )
        last = row.runs
    console.print(table)
    for check in audit.checks:
        verdict = "holds" if check.holds else "DOES NOT HOLD"
        outcome = f"{verdict} ({check.compared:,} compared)" if check.compared else "nothing to compare"
        console.print(f"{check.name}: {outcome}", highlight=False, soft_wrap=True)


def short_count(count: float) -> str:
    """A count in at most five characters: 950, 12.3k, 200k, 870M."""
    for unit in ("", "k", "M"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}B"
