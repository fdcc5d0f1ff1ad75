"""Writes folders that look like a finished study of the paper's stages, with losses from a formula and seeded noise."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fake_files import FakeRun, hashed, heldout_kind, plain, write_all

from indelible.records import Plan, PlannedChain, PlannedRun, RunCost
from indelible.study.training import WatchSpec

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
    is_watched: bool = False  # and curves of the last stage


def write_fake_study(root: Path, fake: FakeStudy | None = None) -> Path:
    """Writes plan.json, runs/ and evaluations/ of a complete study under ``root``; returns ``root``."""
    fake = fake or FakeStudy()
    runs: dict[str, FakeRun] = {}
    chains = [_chain(fake, runs, point) for point in _points(fake)]
    folders = {corpus: re.sub(r"\W", "_", corpus) for corpus in fake.pipeline}  # plain, as labels need not be
    stores = {corpus: f"{folder}-000000000000" for corpus, folder in folders.items()}
    heldout = tuple(heldout_kind(store) for store in stores.values())
    plan = Plan(
        name=fake.name,
        scale="pico",
        seeds=tuple(fake.seeds),
        stores=stores,
        tokenizer="tokenizer-0",
        stage_runs=tuple(
            PlannedRun(id=run.id, stage=run.stage, parent=run.parent, spec=run.spec, watch=run.watch,
                       cost=RunCost(tokens=run.train_tokens, flops=run.train_tokens * 1.5e6))
            for run in runs.values()
        ),
        heldout=heldout,
        evaluations={name: {f"{plain(corpus)}-{hashed(name, corpus)}": kind for kind, corpus in enumerate(stores)}
                     for name in runs},
        chains=tuple(chains),
    )  # fmt: skip
    write_all(root, plan, runs.values(), is_traced=fake.is_traced)
    return root


def _points(fake: FakeStudy) -> list[dict[str, Any]]:
    axes = {
        "seed": fake.seeds, "exposure_fraction": fake.fractions, "post_tokens": fake.post_tokens,
        "method": fake.methods, "replay_fraction": fake.replays, "dropout": fake.dropouts,
        "posttrain_lr": fake.posttrain_lrs, "finetune_lr": fake.finetune_lrs,
    }  # fmt: skip
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _chain(fake: FakeStudy, runs: dict[str, FakeRun], point: dict[str, Any]) -> PlannedChain:
    pre, post, ft = fake.pipeline
    seed, fraction, tokens = point["seed"], point["exposure_fraction"], point["post_tokens"]
    shared = np.random.default_rng(seed).normal(0, fake.shared_noise)
    first = f"pretrain-e{fraction:g}-s{seed}-{hashed(tokens if fraction else 0, fraction, seed)}"
    stage2 = {key: value for key, value in point.items() if key != "finetune_lr"}
    second = f"posttrain-t{tokens}-s{seed}-{hashed(*stage2.values())}"
    third = f"finetune-l{point['finetune_lr']:g}-s{seed}-{hashed(*point.values(), ft)}"
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
    start = dict.fromkeys(fake.pipeline, 8.3)
    losses = [
        {pre: 2.9 + shared, post: im + 0.4, ft: 3.8},
        {pre: 2.95 + shared, post: im, ft: 3.7},
        {pre: general, post: ret, ft: adapted},
    ]
    exposure = {"corpus": post, "fraction": fraction} if fraction else None
    specs = [{"class": "StageSpec", "stage": stage, "seed": seed, "seq_len": 128, "exposure": given,
              "data": {"main": {"store": f"{corpus}-000000000000"}, "mix": []}}
             for stage, corpus, given in (("pretrain", pre, exposure), ("posttrain", post, None),
                                          ("finetune", ft, None))]  # fmt: skip
    watch = WatchSpec() if fake.is_watched else None
    made = (
        FakeRun(first, "pretrain", None, seen, losses[0], start, specs[0]),
        FakeRun(second, "posttrain", first, {post: tokens * 4}, losses[1], losses[0], specs[1]),
        FakeRun(third, "finetune", second, {ft: 50_000}, losses[2], losses[1], specs[2], watch),
    )
    for run in made:
        runs.setdefault(run.id, run)
    columns = {
        "study": fake.name, "scale": "pico", "pipeline": ">".join(fake.pipeline), "arm": "", "exposure_mode": "add",
        "placement": "uniform", "pretrain_tokens": 2_000_000, "finetune_tokens": 50_000,
        "allocation": fake.allocation, "pretrain_lr": 3e-3, "posttrain_global_batch_size": 16,
        **point, **(fake.extra_settings or {}),
    }  # fmt: skip
    return PlannedChain(
        columns=columns,
        roles={"pre": pre, "post": post, "ft": ft},
        stages={"pretrain": first, "posttrain": second, "finetune": third},
        views={"L_im": (second, post), "L_ret": (third, post), "L_ft": (third, ft), "L_pre": (third, pre),
               "L_pre_post": (second, pre)},
    )  # fmt: skip


def _noise(fake: FakeStudy, key: Iterable[Any], size: int) -> list[float]:
    generator = np.random.default_rng(int(hashed(fake.name, *key), 16))
    return [float(value) for value in generator.normal(0, fake.noise, size)]
