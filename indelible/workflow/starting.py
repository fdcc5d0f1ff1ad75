"""A first study file for one's own data: looks at the text, chooses budgets that fit, writes YAML with reasons."""

import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.strict import parse_count
from indelible.study.grid import load_scale
from indelible.study.load import Study, load_study
from indelible.workflow.estimate import estimate
from indelible.workflow.first_look import Look, columns_by_role, corpus_names, look_at
from indelible.workflow.planning import plan_study
from indelible.workflow.proportions import proportions

ROLES = {
    "pre": "the text of pretraining (D_pre)",
    "post": "the text of the capability to be kept (D_post)",
    "ft": "the text of the later fine-tune (D_ft)",
}
STAGE_OF = {"pre": "pretrain", "post": "posttrain", "ft": "finetune"}
USABLE = 0.85  # of a corpus: held-out documents, duplicates and leaks come off
FEW_DOCUMENTS = 40
_LARGE_VOCABULARY = 32_768  # that tokens are estimated with where the scale takes a tokenizer of the hub
FEW_WINDOWS = 40  # of a corpus in training: fewer hardly make a stage


@dataclass(frozen=True)
class Question:
    """What a first study can ask."""

    text: str
    yaml: str  # the lines that ask it, with POST for the corpus of the capability


QUESTIONS: dict[str, Question] = {
    "exposure": Question(
        "Does it last longer if pretraining has seen it?",
        "exposure: {fraction: [0, 1]}  # lambda: none or all of D_post, mixed into pretraining",
    ),
    "how-much": Question(
        "How much of it should pretraining see?",
        "exposure: {fraction: [0, 0.25, 0.5, 1]}  # lambda: which part of D_post is mixed into pretraining",
    ),
    "replay": Question(
        "Does showing a little of it again in the later fine-tune keep it?",
        "stages:\n  finetune: {mix: [{corpus: POST, fraction: [0, 0.01, 0.05]}]}  # share of D_ft's tokens",
    ),
    "remedies": Question(
        "Which keeps it best: early exposure, replay in the fine-tune, or a guard?",
        "arms:\n"
        "  nothing: {}\n"
        "  exposure: {exposure: {fraction: 1}}\n"
        "  replay: {stages: {finetune: {mix: [{corpus: POST, fraction: 0.05}]}}}\n"
        "  guard: {stages: {finetune: {guard: {kind: l2sp, weight: 0.01}}}}",
    ),
}


def draft(name: str, scale: str, question: str, looks: Mapping[str, Look], seeds: int) -> str:
    """The text of a study file.

    Args:
        name: of the study.
        scale: pico, nano, 135m or 1b.
        question: one of `QUESTIONS`.
        looks: by role, all three.
        seeds: how many.

    Raises:
        UserError: a corpus is too short for any stage.
    """
    defaults, names = load_scale(scale), corpus_names({role: look.target for role, look in looks.items()})
    seq_len = int(defaults["seq_len"])
    lines = [f"# {QUESTIONS[question].text}", f"name: {name}", f"scale: {scale}", "corpora:"]
    for role, look in looks.items():
        lines.append(
            f"  {names[role]}: {_flow(look.spec)}  # {look.documents:,} documents, about {_count(look.tokens)} tokens"
        )
    pipeline = ", ".join(f"{role}: {name}" for role, name in names.items())
    lines += [f"pipeline: {{{pipeline}}}", QUESTIONS[question].yaml.replace("POST", names["post"])]
    if any("prompt_column" in look.spec for look in looks.values()):
        lines.append(
            "data: {loss_on: completion}  # prompts are read and not trained on; all: they are trained on, too"
        )
    lines.append("")
    lines.append("# Budgets, in tokens: what the text holds after held-out documents, at most the scale's own.")
    for role, look in looks.items():
        budget = _budget(look, int(parse_count(defaults[STAGE_OF[role]]["tokens"])), seq_len)
        extra = ", lr: [0.3x, 1x, 3x, 10x]" if role == "ft" else ""
        why = "  # four rates: the harder the fine-tune, the more is lost" if role == "ft" else ""
        lines.append(f"{STAGE_OF[role]}: {{tokens: {budget}{extra}}}{why}")
    lines += ["", f"seeds: {json.dumps(list(range(seeds)))}  # an interval needs two; more make it narrower", ""]
    return "\n".join(lines)


def _budget(look: Look, most: int, seq_len: int) -> int:
    usable = int(look.tokens * USABLE)
    least = FEW_WINDOWS * seq_len
    if usable < least:
        raise UserError(
            f"--{look.role} {look.target}: about {look.tokens:,} tokens in {look.documents:,} documents; a stage wants "
            f"at least {math.ceil(least / USABLE):,} ({FEW_WINDOWS} windows of {seq_len} after held-out documents). "
            "Give more text, or write the file by hand with a smaller seq_len."
        )
    return min(most, usable // seq_len * seq_len)


@dataclass(frozen=True)
class Written:
    """A study file and what there is to say about it."""

    text: str
    price: str
    remarks: list[str]


def write_study(
    file: Path,
    targets: Mapping[str, str],
    question: str,
    scale: str,
    seeds: int,
    columns: Mapping[str, str],
) -> Written:
    """Looks at the text, drafts the study and prices it; writes nothing.

    Args:
        file: where the study will stand; its name is the study's.
        targets: file, folder or offline corpus by role.
        question: one of `QUESTIONS`.
        scale: pico, nano, 135m or 1b.
        seeds: how many.
        columns: of files, by field: ``text_column``, ``prompt_column``, ``completion_column``.

    Raises:
        UserError: a corpus cannot be read or is too short, or what was drafted is refused.
    """
    vocab_size = int(load_scale(scale)["tokenizer"].get("vocab_size", _LARGE_VOCABULARY))
    read = columns_by_role(targets, columns)  # all of them, before the first is read through, or fetched
    looks = {role: look_at(role, target, read[role], vocab_size) for role, target in targets.items()}
    name = re.sub(r"[^A-Za-z0-9._-]", "-", file.stem).strip("-.") or "study"
    text = draft(name, scale, question, looks, seeds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(text, encoding="utf-8")
        study = load_study(str(path))
    found = estimate(plan_study(study))
    price = (
        f"{found.chains} chains, {found.stage_runs} stage runs, {found.tokens:,} tokens; at most {_time(found.hours)} "
        f"with {found.workers} worker{'' if found.workers == 1 else 's'} ({found.rate} speed)"
    )
    noticed = remarks(looks, study)
    notes = "".join(f"# {line}\n" for line in (price, *noticed))
    return Written(notes + text, price, noticed)


def remarks(looks: Mapping[str, Look], study: Study) -> list[str]:
    """What makes a study weak though it runs, each with what to do."""
    found = proportions(study)
    for role, look in looks.items():
        if look.documents < FEW_DOCUMENTS:
            found.append(
                f"{role} has only {look.documents} documents: few are held out, so its losses are known badly; cut it "
                "into more, or raise data.split.heldout_fraction."
            )
    return found


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def _count(tokens: int) -> str:
    return f"{tokens / 1e6:.1f} M" if tokens >= 1e6 else f"{tokens / 1e3:.0f} k"


def _flow(spec: Mapping[str, Any]) -> str:
    """A mapping on one line, quoted as JSON quotes it: YAML reads that as the same text."""
    return "{" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in spec.items()) + "}"
