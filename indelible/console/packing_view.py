"""What is to be said before a study runs: rows of corpora whose documents stay whole, and proportions that are off."""

from pathlib import Path

from rich.console import Console

from indelible.records import PackedRows, PackedSide, Plan


def print_packing(out: Path, console: Console) -> None:
    """Prints what became of the documents of a study folder; nothing if all its corpora are streams."""
    record = PackedRows.read(out / "packing.json")
    for side in record.sides if record is not None else ():
        console.print(packing_line(side), highlight=False, soft_wrap=True)


def print_notes(out: Path, console: Console) -> None:
    """Prints what the plan of a study folder notes: what is out of proportion, and what to do."""
    plan = Plan.read(out / "plan.json")
    for note in plan.notes if plan is not None else ():
        console.print(f"Note: {note}", highlight=False, soft_wrap=True)


def packing_line(side: PackedSide) -> str:
    """One line on one side of a corpus."""
    fate = {"drop": "left out", "cut": f"cut to {side.seq_len + 1:,} tokens", "error": "refused"}[side.too_long]
    longer = f"; {side.documents_too_long:,} longer than a row {fate}" if side.documents_too_long else ""
    share = side.tokens / (side.rows * (side.seq_len + 1)) if side.rows else 0.0
    empty = f"; {side.rows_without_trained:,} rows train on nothing" if side.rows_without_trained else ""
    return (
        f"{side.corpus} {side.split}, packing {side.packing}: {side.documents:,} documents in {side.rows:,} rows of "
        f"{side.seq_len:,} tokens, {share:.0%} full{longer}; {side.trained_tokens:,} of {side.tokens:,} tokens count "
        f"(loss_on: {side.loss_on}){empty}."
    )
