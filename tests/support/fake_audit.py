"""Writes the folder of a finished audit's study, with losses from a formula and seeded noise."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from indelible.durability.battery import Battery
from indelible.durability.findings import Asked
from indelible.durability.request import AuditRequest, make_request
from indelible.durability.study import BASE_CONTROL, FINETUNE, MODEL_CONTROL, RELEARNING, Portion, Setting, portions
from indelible.records import (
    Evaluation,
    Plan,
    PlannedChain,
    PlannedRun,
    Record,
    StageResult,
    documents_path,
    evaluation_path,
    run_dir,
)
from indelible.study.stage_spec import EvaluationSpec
from indelible.study.training import WatchSpec

BASE_LOSS, MODEL_LOSS, NEW_LOSS = 3.0, 2.0, 4.0
DOCUMENTS = 40


@dataclass(frozen=True)
class FakeAudit:
    """What to fake: each model forgets so many nats for each nat gained, at rates around 1e-4."""

    forgetting: dict[str, float]  # by model
    against: tuple[str, ...] = ()
    base: str | None = "base"
    lrs: tuple[float, ...] = (1e-4, 3e-4, 3e-5)
    adapt: tuple[str, ...] = ("full",)
    seeds: Sequence[int] = (0, 1, 2)
    later: tuple[str, ...] = ("chemistry", "music")
    noise: float = 0.02

    @property
    def request(self) -> AuditRequest:
        """As it would have been asked."""
        battery = Battery(lr=self.lrs, adapt=self.adapt, seeds=tuple(self.seeds), replay=(), updates=32)
        models = [name for name in self.forgetting if name not in self.against]
        return make_request(models, "instruction", self.later, battery, base=self.base, against=self.against)

    @property
    def portion(self) -> Portion:
        """The whole battery."""
        return portions(self.request)[-1]

    @property
    def asked(self) -> Asked:
        """What the card is made for."""
        names = [*self.forgetting, *([self.base] if self.base else [])]
        return Asked(self.request, self.portion, (), {name: f"given-{name}" for name in names})


class _Writer:
    """Writes records, and collects the plan."""

    def __init__(self, root: Path, fake: FakeAudit) -> None:
        self.root, self.fake, self.request = root, fake, fake.request
        self.corpora = ("instruction", *fake.later)
        self.stores = {corpus: f"{corpus}-000000000000" for corpus in self.corpora}
        self.kinds = tuple(
            EvaluationSpec(checkpoint="", store=store, stop_windows=1, windows=16, seq_len=128, loss_on="all")
            for store in self.stores.values()
        )
        self.runs: list[PlannedRun] = []
        self.chains: list[PlannedChain] = []
        self.evaluations: dict[str, dict[str, int]] = {}
        self.rng = np.random.default_rng(0)
        self.tokens = self.rng.integers(20, 60, DOCUMENTS)
        self.forgotten = self.rng.normal(0, 0.1, DOCUMENTS)  # how much more or less a document is forgotten
        self.learned = self.rng.normal(0, 0.1, DOCUMENTS)  # and was learned

    def evaluate(self, checkpoint: str, kept: float, *, has_documents: bool) -> None:
        self.evaluations[checkpoint] = {}
        for kind, corpus in enumerate(self.corpora):
            name = f"{corpus}-{checkpoint}"
            self.evaluations[checkpoint][name] = kind
            loss = kept if corpus == "instruction" else NEW_LOSS
            _write(evaluation_path(self.root, checkpoint, name), Evaluation(
                id=name, checkpoint=checkpoint, corpus=corpus, status="done", nats_per_token=loss, bits_per_byte=1.0,
                standard_error=0.02, tokens=2048, documents=DOCUMENTS, windows=16, loss_on="all",
            ))  # fmt: skip
            if has_documents and corpus == "instruction":
                flavour = self.learned if checkpoint.startswith("given") else self.forgotten
                nats = self.tokens * (kept + (kept - MODEL_LOSS) * flavour)
                frame = pl.DataFrame({"document": np.arange(DOCUMENTS), "tokens": self.tokens, "nats": nats})
                frame.write_parquet(documents_path(self.root, checkpoint, name))

    def stage(self, name: str, stage: str, parent: str | None, corpus: str, points: list[dict[str, Any]]) -> str:
        spec = {"seq_len": 128, "stage": stage, "data": {"main": {"store": self.stores[corpus]}}}
        watch = WatchSpec(corpora=("instruction", corpus), steps=tuple(point["step"] for point in points))
        self.runs.append(PlannedRun(id=name, stage=stage, parent=parent, spec=spec, watch=watch))
        _write(run_dir(self.root, name) / "result.json", StageResult(
            id=name, stage=stage, status="done", stop_reason="max_tokens", steps=32, total_steps=32, warmup_steps=3,
            train_tokens=16_384, tokens_seen={corpus: 16_384}, trained_seconds=1.0, eval_seconds=1.0, total_seconds=2.0,
            tokens_per_second=1.0, flops=1e9, ledger_sha256="0", precision="fp32", watched=watch,
        ))  # fmt: skip
        lines = [{"step": step, "tokens": 512 * step, "train/loss": 3.0, "train/lr": 1e-4} for step in range(1, 33)]
        (run_dir(self.root, name) / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in sorted([*lines, *points], key=lambda one: one["step"]))
        )
        return name

    def chain(self, arm: str, seed: int, stages: dict[str, str], start: str) -> None:
        self.chains.append(PlannedChain(columns={"arm": arm, "seed": seed}, stages=stages, start=start))

    def relearning(self, name: str, parent: str | None, start: float) -> str:
        points = [
            {
                "step": step,
                "tokens": 512 * step,
                "watch/instruction/nats_per_token": start - 0.5 * max(0, start - 1.9) * step / 20,
            }
            for step in (0, 5, 20)
        ]
        return self.stage(name, RELEARNING, parent, "instruction", points)

    def trial(self, model: str, setting: Setting, seed: int, *, is_relearned: bool, has_documents: bool) -> None:
        rate = math.log10(setting.lr / 1e-4) - (setting.adapt == "lora")
        best = 1.0 - 0.4 * abs(rate - 0.5) + 0.01 * self.fake.noise * self.rng.standard_normal()
        slope = self.fake.forgetting[model] * (1 + 0.5 * rate) * (1 + self.fake.noise * self.rng.standard_normal())
        points = []
        for step in (0, 2, 4, 8, 16, 32):
            gain = max(0.05, best) * (1 - math.exp(-step / 10))
            points.append({
                "step": step, "tokens": 512 * step,
                "watch/instruction/nats_per_token": MODEL_LOSS + max(0.01, slope) * gain,
                f"watch/{setting.corpus}/nats_per_token": NEW_LOSS - gain,
            })  # fmt: skip
        end = points[-1]["watch/instruction/nats_per_token"]
        name = f"finetune-{setting.name}-{model}-s{seed}"
        stages = {FINETUNE: self.stage(name, FINETUNE, None, setting.corpus, points)}
        self.evaluate(name, end, has_documents=has_documents)
        if is_relearned:
            stages[RELEARNING] = self.relearning(f"relearning-{setting.name}-{model}-s{seed}", name, end)
            self.evaluate(stages[RELEARNING], end, has_documents=False)
        self.chain(setting.name, seed, stages, f"given-{model}")


def write_fake_audit(root: Path, fake: FakeAudit) -> Asked:
    """Writes plan.json, runs/ and evaluations/ of a finished audit; returns what its card is made for."""
    writer, portion = _Writer(root, fake), fake.portion
    for model in fake.forgetting:
        writer.evaluate(f"given-{model}", MODEL_LOSS, has_documents=True)
        for seed in portion.seeds:
            control = writer.relearning(f"relearning-{model}-s{seed}", None, MODEL_LOSS)
            writer.evaluate(control, MODEL_LOSS, has_documents=False)
            writer.chain(MODEL_CONTROL, seed, {RELEARNING: control}, f"given-{model}")
    if fake.base is not None:
        writer.evaluate("given-base", BASE_LOSS, has_documents=True)
        control = writer.relearning("relearning-base-s0", None, BASE_LOSS)
        writer.evaluate(control, BASE_LOSS, has_documents=False)
        writer.chain(BASE_CONTROL, 0, {RELEARNING: control}, "given-base")
    is_small = len(portion.settings) * len(portion.seeds) * len(fake.forgetting) < 500
    for model in fake.forgetting:
        for number, setting in enumerate(portion.settings):
            for seed in portion.seeds:
                writer.trial(model, setting, seed, is_relearned=setting in portion.relearned,
                             has_documents=is_small or number == 0)  # fmt: skip
    given = [*fake.forgetting, *([fake.base] if fake.base else [])]
    Plan(
        name="audit", scale="pico", seeds=tuple(portion.seeds), stores=writer.stores, tokenizer="tokenizer-0",
        given={f"given-{name}": f"/models/{name}" for name in given}, stage_runs=tuple(writer.runs),
        heldout=writer.kinds, evaluations=writer.evaluations, chains=tuple(writer.chains),
    ).write(root / "plan.json")  # fmt: skip
    return fake.asked


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_copy(update={"format": record.FORMAT}).model_dump_json())  # no flush to the disk
