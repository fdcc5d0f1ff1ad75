"""Conversations of made-up words, and a study that trains on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from chat_folder import CHATML, write_chat_tokenizer

SEQ = 64
WORDS = ["Paris", "Rome", "city", "capital", "answer", "short", "again", "Seine", "wish", "helpful"]


def talks(count: int, *, longest: int = 12, seed: int = 0) -> list[list[dict[str, str]]]:
    """Conversations of one to three questions and answers of some words."""
    source = np.random.default_rng(seed)

    def say(role: str) -> dict[str, str]:
        return {"role": role, "content": " ".join(source.choice(WORDS, source.integers(1, longest)))}

    return [[say(role) for _ in range(source.integers(1, 4)) for role in ("user", "assistant")] for _ in range(count)]


def write_talks(path: Path, conversations: list[Any], column: str = "messages") -> Path:
    path.write_text("".join(json.dumps({column: talk}) + "\n" for talk in conversations))
    return path


def raw_study(tmp_path: Path, corpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A study of one stage on conversations."""
    return {
        "name": "chat",
        "scale": "pico",
        "precision": "fp32",
        "seq_len": SEQ,
        "tokenizer": {"kind": "hf", "path": str(tmp_path / "tok")},
        "corpora": {
            "base": {"kind": "local", "path": str(tmp_path / "base.jsonl")},
            "chat": {"kind": "local", "messages_column": "messages", "path": str(tmp_path / "chat.jsonl"), **corpus},
        },
        "data": {"leaks": {"near": False}, "split": {"heldout_fraction": 0.2}},
        "pipeline": {"pre": "base", "post": "chat", "ft": "base"},
        "exposure": {"fraction": [0, 0.5]},
        "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
        "pretrain": {"tokens": SEQ * 32, "lr": 4e-3, "global_batch_size": 4, "warmup_steps": 2},
        "posttrain": {
            "tokens": SEQ * 12, "max_tokens": SEQ * 24, "lr": 2e-3, "global_batch_size": 4, "eval_interval": 2,
            "patience": 2, "warmup_steps": 2,
        },
        "finetune": {"tokens": SEQ * 16, "lr": 1e-3, "global_batch_size": 4, "warmup_steps": 2},
        "evaluation": {"windows": 8, "stop_windows": 4},
        "execution": {"compile": "off", "threads": 1, "device": "cpu", "workers": 1},
        "seeds": [0],
        **more,
    }  # fmt: skip


def write_inputs(tmp_path: Path, template: str | None = CHATML, longest: int = 12) -> None:
    write_chat_tokenizer(tmp_path / "tok", template)
    write_talks(tmp_path / "chat.jsonl", talks(150, longest=longest))
    source = np.random.default_rng(1)
    texts = [" ".join(source.choice(WORDS, 60)) for _ in range(120)]
    (tmp_path / "base.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
