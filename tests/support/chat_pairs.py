"""Pairs of conversations of made-up words, and a study that prefers the better ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from chat_folder import CHATML, write_chat_tokenizer
from chat_study import WORDS

from indelible.data.store import TokenStore
from indelible.study.load import resolve_study
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan

SEQ = 96
APART = {"prompt_column": "prompt", "chosen_column": "chosen", "rejected_column": "rejected", "template": "chat"}
WHOLE = {"chosen_column": "chosen", "rejected_column": "rejected", "template": "chat"}
Record = dict[str, Any]


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def records(count: int = 60, *, turns: int = 1) -> list[Record]:
    """Prompts of one or three messages; two answers of ``turns`` turns each, between which the user goes on."""
    source = np.random.default_rng(0)

    def words(most: int) -> str:
        return " ".join(source.choice(WORDS, source.integers(1, most)))

    def answer(number: int, opening: str) -> list[dict[str, str]]:
        later = [say(role, words(4)) for _ in range(turns - 1) for role in ("user", "assistant")]
        return [say("assistant", f"{opening} {number} {words(6)}"), *later]

    made = []
    for number in range(count):
        prompt = [say("user", f"What is {number - (number % 3 == 2)}?")]
        if number % 2:
            prompt = [say("user", "Hello."), say("assistant", "Hello, and what else?"), *prompt]
        made.append({"prompt": prompt, "chosen": answer(number, "It is"), "rejected": answer(number, "No:")})
    return made


def whole(rows: list[Record]) -> list[Record]:
    """The same with the prompt inside both conversations."""
    return [{side: [*row["prompt"], *row[side]] for side in ("chosen", "rejected")} for row in rows]


def raw_study(folder: Path, rows: list[Record], columns: Record, template: str | None = CHATML) -> Record:
    """A study of a stage on conversations and one on pairs; its files lie in ``folder``."""
    write_chat_tokenizer(folder / "tok", template)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [" ".join(np.random.default_rng(n).choice(WORDS, 60)) for n in range(60)]
    (folder / "base.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    text = {"tokens": SEQ * 12, "max_tokens": None, "global_batch_size": 4, "eval_interval": None, "patience": None}
    return {
        "name": "chosen", "scale": "pico", "seq_len": SEQ, "precision": "fp32", "seeds": [0],
        "tokenizer": {"kind": "hf", "path": str(folder / "tok")},
        "corpora": {
            "base": {"kind": "local", "path": str(folder / "base.jsonl")},
            "answers": {"kind": "local", "path": str(path), **columns},
        },
        "data": {"leaks": {"near": False}, "split": {"heldout_fraction": 0.2}},
        "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
        "stages": {
            "pretrain": {"corpus": "base", **text},
            "prefer": {"corpus": "answers", "objective": "dpo", **text, "tokens": 2 * SEQ * 20},
        },
        "evaluation": {"windows": 4, "stop_windows": 4},
        "execution": {"compile": "off", "threads": 1, "device": "cpu", "workers": 1},
    }  # fmt: skip


def made(
    folder: Path, rows: list[Record], columns: Record = APART, template: str | None = CHATML
) -> tuple[Path, TokenStore]:
    """A planned study folder and its store of pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    planned = plan_study(resolve_study(raw_study(folder, rows, columns, template)))
    write_plan(planned, folder / "out")
    return folder / "out", TokenStore.open(folder / "out" / "tokens" / planned.stores.corpora["answers"], verify=True)
