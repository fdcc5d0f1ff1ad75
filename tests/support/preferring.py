"""Tiny studies with a preference stage, on arrays: general text, then pairs of answers, then other text."""

from pathlib import Path
from typing import Any

from tiny_engine import TINY, layered
from token_folder import plan_on_arrays

PAIRS = {"kind": "local", "path": "pairs.jsonl", "prompt_column": "p", "chosen_column": "c", "rejected_column": "r"}
STAGE = {
    "corpus": "pairs", "objective": {"kind": "dpo", "beta": 0.5}, "tokens": 2 * 32 * 22, "max_tokens": 2 * 32 * 44,
    "global_batch_size": 4, "lr": 0.01, "warmup_steps": 0,
}  # fmt: skip


def preference_study(over: dict[str, Any] | None = None, stage: dict[str, Any] | None = None) -> dict[str, Any]:
    """Three stages of the tiny study, of which `prefer` is one on pairs, the last one on other text.

    Args:
        over: laid over the study.
        stage: laid over the preference stage.
    """
    base = {key: value for key, value in TINY.items() if key not in ("pipeline", "pretrain", "posttrain", "finetune")}
    text = {"tokens": 640, "max_tokens": None, "global_batch_size": 4, "warmup_steps": 2, "patience": None,
            "eval_interval": None, "lr": 0.01}  # fmt: skip
    stages = {
        "pretrain": {"corpus": "pre", **text},
        "prefer": layered(layered({**text, "max_tokens": 1}, STAGE), stage or {}),
        "finetune": {"corpus": "ft", **text, "tokens": 330},
    }
    corpora = {**TINY["corpora"], "pairs": PAIRS}
    return layered({**base, "corpora": corpora, "stages": stages}, over or {})


def planned(out: Path, over: dict[str, Any] | None = None, stage: dict[str, Any] | None = None) -> Path:
    """A planned folder of `preference_study`."""
    return plan_on_arrays(out, preference_study(over, stage), 512)
