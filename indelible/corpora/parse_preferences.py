"""Parser of pairs made of multiple-choice questions: the right option is the better answer, a wrong one the worse.

The questions are those of the corpus `instruction` (`parse_instruction`), so whoever trains on both trains on them
twice. Options are left out of the prompt, and their letters out of the answers: what is learned is which answer fits.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from indelible.corpora.document import Parsed
from indelible.corpora.parse_instruction import rows_of
from indelible.corpora.wheels import Archive

WITH_OPTIONS = ("MMLU", "BIG-bench", "MedQA", "MedMCQA", "CommonsenseQA", "OpenBookQA", "LogiQA", "SIQA", "PIQA")
_OPTION = re.compile(r"^\(?([A-Z])[.):]\s*(.*\S)\s*$")


def answer_pair(row: dict[str, Any]) -> Parsed | None:
    """Prompt, better and worse answer of one row; None of a row without options, or without a right one among them.

    The worse answer is one of the wrong options, chosen by a hash of the question: the same in every build, and at no
    place more often than at another.
    """
    found = [_OPTION.match(line) for line in str(row.get("options") or "").splitlines()]
    options = list(dict.fromkeys(match.group(2) for match in found if match))
    right = _OPTION.match(str(row.get("answer") or "").strip())
    if right is None or right.group(2) not in options or len(options) < 2:
        return None
    wrong = [option for option in options if option != right.group(2)]
    question = str(row["question"]).strip()
    parts = [str(row["passage"]).strip()] if row.get("passage") else []
    prompt = "\n\n".join([*parts, f"Question: {question}"]) + "\n\nAnswer:"
    digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
    worse = wrong[int.from_bytes(digest, "little") % len(wrong)]
    return Parsed(f"{prompt} {right.group(2)}", len(prompt), row.get("passage") or prompt, f" {worse}")


def parser(name: str) -> Callable[[Archive], Iterator[Parsed]]:
    """The parser of one data set; questions on one passage form a group."""

    def parse(archive: Archive) -> Iterator[Parsed]:
        yield from (found for row in rows_of(name, archive) if (found := answer_pair(row)) is not None)

    return parse
