"""Writes run folders that look like a finished study, with losses from a small formula and seeded noise."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PIPELINE = ("general", "music", "chemistry")


@dataclass(frozen=True)
class FakeStudy:
    """What to fake. The effect of exposure is on L_ret only: ``-benefit * fraction * erasure``."""

    name: str = "fake"
    fractions: Sequence[float] = (0.0, 0.5, 1.0)
    post_tokens: Sequence[int] = (10_000, 100_000)
    posttrain_lrs: Sequence[float] = (1e-3,)
    finetune_lrs: Sequence[float] = (1e-4, 3e-4, 1e-3)
    dropouts: Sequence[float] = (0.0,)
    replays: Sequence[float] = (0.0,)
    methods: Sequence[str] = ("full",)
    seeds: Sequence[int] = (0, 1, 2)
    allocation: str = "full"
    benefit: float = 0.4
    noise: float = 0.01  # sd of the part that differs between arms
    shared_noise: float = 0.03  # sd of the part that a seed shares over arms
    extra_settings: dict[str, Any] | None = None
    pipeline: tuple[str, str, str] = PIPELINE
    is_traced: bool = True  # write metrics.jsonl and ledger.json


def write_fake_study(root: Path, fake: FakeStudy | None = None) -> Path:
    """Writes plan.json and runs/*/ of a complete study under ``root``; returns ``root``."""
    fake = fake or FakeStudy()
    runs: dict[str, dict[str, Any]] = {}
    chains = [_chain(fake, runs, point) for point in _points(fake)]
    root.mkdir(parents=True, exist_ok=True)
    plan_runs = [
        {"id": key, "stage": run["stage"], "parent": run["parent"], "spec": run["spec"],
         "cost": {"tokens": run["train_tokens"], "flops": run["flops"]}}
        for key, run in runs.items()
    ]  # fmt: skip
    plan = {
        "format": 1, "name": fake.name, "scale": "pico", "stores": {}, "tokenizer": "tokenizer-0",
        "execution": {"workers": None}, "stage_runs": plan_runs, "chains": chains, "key_of_a_later_release": [1],
    }  # fmt: skip
    (root / "plan.json").write_text(json.dumps(plan))
    for key, run in runs.items():
        _write_run(root / "runs" / key, run, is_traced=fake.is_traced)
    return root


def _points(fake: FakeStudy) -> list[dict[str, Any]]:
    axes = {
        "seed": fake.seeds, "exposure_fraction": fake.fractions, "post_tokens": fake.post_tokens,
        "method": fake.methods, "replay_fraction": fake.replays, "dropout": fake.dropouts,
        "posttrain_lr": fake.posttrain_lrs, "finetune_lr": fake.finetune_lrs,
    }  # fmt: skip
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _chain(fake: FakeStudy, runs: dict[str, dict[str, Any]], point: dict[str, Any]) -> dict[str, Any]:
    pre, post, ft = fake.pipeline
    seed, fraction, tokens = point["seed"], point["exposure_fraction"], point["post_tokens"]
    shared = np.random.default_rng(seed).normal(0, fake.shared_noise)
    first = f"pretrain-e{fraction:g}-s{seed}-{_hash(tokens if fraction else 0, fraction, seed)}"
    stage2 = {key: value for key, value in point.items() if key != "finetune_lr"}
    second = f"posttrain-t{tokens}-s{seed}-{_hash(*stage2.values())}"
    third = f"finetune-l{point['finetune_lr']:g}-s{seed}-{_hash(*point.values())}"
    second_noise = _noise(fake, stage2.values(), 1)
    third_noise = _noise(fake, point.values(), 3)
    base = 3.4 - 0.12 * math.log10(tokens / 10_000)
    tune = 0.03 * abs(math.log10(point["posttrain_lr"] / 1e-3)) + 0.05 * point["dropout"]
    adaptation = math.log10(point["finetune_lr"] / 1e-5)  # 1 at 1e-4, 2 at 1e-3
    erasure = 0.25 * adaptation**1.5
    im = base + tune + shared + second_noise[0] + (0.2 * fraction if fake.allocation == "matched" else 0)
    ret = im + erasure * (1 - fake.benefit * fraction) - 0.1 * point["replay_fraction"] + third_noise[0]
    adapted = 3.6 - 0.25 * adaptation + 0.02 * fraction + shared + third_noise[1]
    general = 3.0 + 0.2 * adaptation + shared + third_noise[2]
    seen = {pre: 2_000_000, post: round(fraction * tokens)} if fraction else {pre: 2_000_000}
    losses = [
        {pre: 2.9 + shared, post: im + 0.4, ft: 3.8},
        {pre: 2.95 + shared, post: im, ft: 3.7},
        {pre: general, post: ret, ft: adapted},
    ]
    runs.setdefault(first, _run(first, "pretrain", None, seen, losses[0], fraction))
    runs.setdefault(second, _run(second, "posttrain", first, {post: tokens * 4}, losses[1], 0))
    runs.setdefault(third, _run(third, "finetune", second, {ft: 50_000}, losses[2], 0))
    columns = {
        "study": fake.name, "scale": "pico", "pipeline": ">".join(fake.pipeline), "arm": "", "exposure_mode": "add",
        "placement": "uniform", "pretrain_tokens": 2_000_000, "finetune_tokens": 50_000,
        "allocation": fake.allocation, "pretrain_lr": 3e-3, "posttrain_global_batch_size": 16,
        **point, **(fake.extra_settings or {}),
    }  # fmt: skip
    return {"columns": columns, "roles": {"pre": pre, "post": post, "ft": ft},
            "pretrain_id": first, "posttrain_id": second, "finetune_id": third}  # fmt: skip


def _noise(fake: FakeStudy, key: Iterable[Any], size: int) -> list[float]:
    generator = np.random.default_rng(int(_hash(fake.name, *key), 16))
    return [float(value) for value in generator.normal(0, fake.noise, size)]


def _run(
    key: str, stage: str, parent: str | None, seen: dict[str, int], losses: dict[str, float], fraction: float
) -> dict[str, Any]:
    total = sum(seen.values())
    post = list(losses)[1]
    return {
        "format": 1, "id": key, "stage": stage, "status": "done", "parent": parent,
        "stop_reason": "patience" if stage == "posttrain" else "max_tokens",
        "spec": {"exposure": {"corpus": post, "fraction": fraction} if fraction else None},
        "losses": {name: {"nats_per_token": value, "bits_per_byte": value / 2.9, "tokens": 16384, "windows": 128,
                          "loss_on": "all"} for name, value in losses.items()},
        "best_step": 90, "steps": total // 2048, "train_tokens": total, "tokens_seen": seen,
        "trained_seconds": total / 40_000, "eval_seconds": 1.0, "total_seconds": total / 40_000 + 1,
        "tokens_per_second": 40_000.0, "flops": total * 1.5e6, "mfu": None, "precision": "fp32", "resumed": 0,
        "environment": {"indelible": "0.1.0", "torch": "2.13.0", "device": "cpu", "threads": 1, "machine": "x"},
    }  # fmt: skip


def _write_run(folder: Path, run: dict[str, Any], *, is_traced: bool) -> None:
    folder.mkdir(parents=True)
    spec = run.pop("spec")
    (folder / "result.json").write_text(json.dumps(run))
    if not is_traced:
        return
    (folder / "spec.json").write_text(json.dumps({"spec": spec}))
    lines = []
    for step in range(0, 101, 2):
        tokens = run["train_tokens"] * step // 100
        lines.append({"step": step, "tokens": tokens, "train/loss": 3 + 4 * math.exp(-step / 20), "train/lr": 1e-3})
        if step % 10 == 0:
            evals = {f"eval/{name}/nats_per_token": loss["nats_per_token"] + 2 * math.exp(-step / 15)
                     for name, loss in run["losses"].items()}  # fmt: skip
            lines.append({"step": step, "tokens": tokens, **evals})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = {"sources": list(run["tokens_seen"]), "bins": 50,
              "tokens": [[count // 50] * 50 for count in run["tokens_seen"].values()]}  # fmt: skip
    (folder / "ledger.json").write_text(json.dumps(ledger))


def _hash(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]
