"""Stage runs of a planned study, run in this process one after the other."""

import json
from pathlib import Path
from typing import Any

from indelible.train.job import Progress, StageJob

TINY: dict[str, Any] = {
    "name": "tiny",
    "scale": "pico",
    "precision": "fp32",
    "seq_len": 32,
    "tokenizer": {"kind": "bpe", "vocab_size": 512},
    "corpora": {
        "pre": {"kind": "synthetic", "language": 1, "num_documents": 120, "document_words": 120, "num_words": 64},
        "post": {"kind": "synthetic", "language": 2, "num_documents": 120, "document_words": 120, "num_words": 64},
        "ft": {"kind": "synthetic", "language": 3, "num_documents": 120, "document_words": 120, "num_words": 64},
    },
    "data": {"leaks": {"near": False}, "split": {"heldout_fraction": 0.1}},
    "pipeline": {"pre": "pre", "post": "post", "ft": "ft"},
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
    "pretrain": {"tokens": 640, "global_batch_size": 4, "warmup_steps": 2},
    "posttrain": {"tokens": 320, "max_tokens": 1600, "global_batch_size": 4, "eval_interval": 2, "warmup_steps": 2},
    "finetune": {"tokens": 330, "global_batch_size": 4, "warmup_steps": 2},
    "evaluation": {"windows": 8},
    "execution": {"compile": "off", "threads": 1, "device": "cpu"},
    "seeds": [0],
}


def layered(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of ``base`` with ``over`` on top."""
    result = json.loads(json.dumps(base))
    for key, value in over.items():
        below = result.get(key) or {}
        same_kind = isinstance(value, dict) and value.get("kind", below.get("kind")) == below.get("kind")
        result[key] = layered(below, value) if same_kind else value
    return result


def job_of(out: Path, run: dict[str, Any], execution: dict[str, Any] | None = None) -> StageJob:
    """The job of one entry of plan.json."""
    plan = json.loads((out / "plan.json").read_text())
    run_dir = out / "runs" / run["id"]
    run_dir.mkdir(parents=True, exist_ok=True)
    parent = out / "runs" / run["parent"] if run["parent"] else None
    settings = {**plan["execution"], **(execution or {})}
    return StageJob(run_dir, run["id"], run["stage"], run["spec"], parent, out / "tokens", settings)


def runs_of(out: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """Entries of plan.json, parents first."""
    runs = json.loads((out / "plan.json").read_text())["stage_runs"]
    return [run for run in runs if stage in (None, run["stage"])]


def quiet(now: Progress) -> None:
    """Takes signs of life and does nothing."""


def run_all(out: Path, execution: dict[str, Any] | None = None, until: str = "finetune") -> dict[str, dict[str, Any]]:
    """Runs what has no result yet; returns the results by stage (the last run of each stage)."""
    from indelible.train.stage import run_stage

    results = {}
    for entry in runs_of(out):
        job = job_of(out, entry, execution)
        if not (job.run_dir / "result.json").exists():
            run_stage(job, progress=quiet, guard=lambda: None)
        results[entry["stage"]] = json.loads((job.run_dir / "result.json").read_text())
        if entry["stage"] == until:
            break
    return results


def losses_of(run_dir: Path, key: str = "train/loss") -> dict[int, float]:
    """The values of one key of metrics.jsonl by step."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def loop_of(out: Path, stage: str = "pretrain", execution: dict[str, Any] | None = None) -> Any:
    """The loop of a stage run, ready for its first step; nothing is trained yet."""
    from indelible.study.identity import without_tags
    from indelible.study.stages import StageSpec
    from indelible.train import stage as engine
    from indelible.train.device import choose_device
    from indelible.train.distributed import World
    from indelible.train.start import starting_program

    job = job_of(out, runs_of(out, stage)[0], execution)
    spec = StageSpec.model_validate(without_tags(job.spec))
    inputs = engine.open_inputs(spec, job.tokens_dir)
    program = starting_program(job, spec, inputs.tokenizer_dir, choose_device(spec.precision, job.execution))
    return engine._loop(job, inputs, program, quiet, lambda: None, World())
