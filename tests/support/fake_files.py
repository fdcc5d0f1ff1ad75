"""The files of a made-up study folder: what stage runs and evaluations leave, and what tests do to them."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from indelible.records import Evaluation, Plan, Record, StageResult, documents_path, evaluation_path, run_dir
from indelible.study.stage_spec import EvaluationSpec
from indelible.study.training import WatchSpec

WINDOWS = 128
STEPS = 100  # of every made-up run


@dataclass
class FakeRun:
    """A made-up stage run and the losses of its checkpoint."""

    id: str
    stage: str
    parent: str | None
    seen: dict[str, int]  # tokens by corpus
    losses: dict[str, float]  # nats per token by corpus
    before: Mapping[str, float]  # the same where it started
    spec: dict[str, Any]
    watch: WatchSpec | None = None

    @property
    def train_tokens(self) -> int:
        return sum(self.seen.values())


def write_all(root: Path, plan: Plan, runs: Iterable[FakeRun], *, is_traced: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    text = plan.model_copy(update={"format": Plan.FORMAT}).model_dump_json()
    (root / "plan.json").write_text(f'{text[:-1]},"key_of_a_later_release":[1]}}')
    for run in runs:
        folder = run_dir(root, run.id)
        folder.mkdir(parents=True)
        _write_record(folder / "result.json", _result(run))
        write_evaluations(root, plan, run.id, run.losses)
        if is_traced:
            _write_trace(folder, run)


def _write_record(path: Path, record: Record) -> None:
    path.write_text(record.model_copy(update={"format": record.FORMAT}).model_dump_json())  # no flush to the disk


def _result(run: FakeRun) -> StageResult:
    total = run.train_tokens
    is_early = run.stage == "posttrain"
    return StageResult(
        id=run.id, stage=run.stage, status="done", parent=run.parent,
        stop_reason="patience" if is_early else "max_tokens",
        steps=STEPS, total_steps=STEPS * (2 if is_early else 1), warmup_steps=5, best_step=90 if is_early else None,
        train_tokens=total, tokens_seen=run.seen, trained_seconds=total / 40_000, eval_seconds=1.0,
        total_seconds=total / 40_000 + 1, tokens_per_second=40_000.0, flops=total * 1.5e6, ledger_sha256="0",
        precision="fp32", watched=run.watch,
        environment={"indelible": "0.2.0", "torch": "2.13.0", "device": "cpu", "threads": 1, "machine": "x"},
    )  # fmt: skip


def write_evaluations(root: Path, plan: Plan, checkpoint: str, losses: Mapping[str, float]) -> None:
    corpora = {store: corpus for corpus, store in plan.stores.items()}
    for name, kind in plan.evaluations[checkpoint].items():
        corpus = corpora[plan.heldout[kind].store]
        path = evaluation_path(root, checkpoint, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_record(path, Evaluation(
            id=name, checkpoint=checkpoint, corpus=corpus, status="done", nats_per_token=losses[corpus],
            bits_per_byte=losses[corpus] / 2.9, standard_error=0.02, tokens=WINDOWS * 128, documents=64,
            windows=WINDOWS, loss_on="all",
        ))  # fmt: skip


def _write_trace(folder: Path, run: FakeRun) -> None:
    lines = []
    own = next(iter(run.seen))
    for step in range(0, STEPS + 1, 2):
        place = {"step": step, "tokens": run.train_tokens * step // STEPS}
        if step:
            lines.append({**place, "train/loss": 3 + 4 * math.exp(-step / 20), "train/lr": 1e-3})
        if step % 10 == 0:
            lines.append({**place, f"eval/{own}/nats_per_token": run.losses[own] + 2 * math.exp(-step / 15)})
            if run.watch is not None:
                lines.append({**place, **_watched(run, step / STEPS)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = {"sources": list(run.seen), "bins": 50, "tokens": [[count // 50] * 50 for count in run.seen.values()]}
    (folder / "ledger.json").write_text(json.dumps(ledger))


def _watched(run: FakeRun, part: float) -> dict[str, float]:
    assert run.watch is not None
    entry = {}
    for corpus in run.watch.corpora or run.losses:
        entry[f"watch/{corpus}/nats_per_token"] = (1 - part) * run.before[corpus] + part * run.losses[corpus]
        entry[f"watch/{corpus}/standard_error"] = 0.02
    return entry


def heldout_kind(store: str) -> EvaluationSpec:
    return EvaluationSpec(checkpoint="", store=store, stop_windows=WINDOWS, windows=WINDOWS, seq_len=128, loss_on="all")


def plain(text: str) -> str:
    """Without what no file name has."""
    return "".join(letter if letter.isalnum() else "_" for letter in text)


def hashed(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]


# ---- what tests do to a finished study


def set_loss(root: Path, checkpoint: str, corpus: str, **changes: Any) -> None:
    """Changes the evaluation of a checkpoint on a corpus, e.g. ``nats_per_token=nan, status="diverged"``."""
    for path in (root / "evaluations" / checkpoint).glob(f"{corpus}-*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def losses_of(root: Path, checkpoint: str) -> dict[str, float]:
    """The losses of a checkpoint by corpus, as its evaluations have them."""
    made = [json.loads(path.read_text()) for path in (root / "evaluations" / checkpoint).glob("*.json")]
    return {one["corpus"]: one["nats_per_token"] for one in made}


def forget(root: Path, run_id: str) -> None:
    """Takes away everything that a stage run left: its folder and its evaluations."""
    shutil.rmtree(root / "runs" / run_id)
    shutil.rmtree(root / "evaluations" / run_id)


def diverge(root: Path, run_id: str) -> None:
    """Makes a stage run one that diverged: a result without a checkpoint, hence without evaluations."""
    path = run_dir(root, run_id) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "diverged", "stop_reason": "diverged"}))
    shutil.rmtree(root / "evaluations" / run_id)


def edit_json(path: Path, change: Any) -> None:
    """Reads a JSON file, lets ``change`` work on it, and writes it back."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def merge_studies(roots: Sequence[Path]) -> Path:
    """Makes one study of several in the folder of the first, as if one plan had them all; returns that folder."""
    plans = [Plan.read(root / "plan.json") for root in roots]
    first = plans[0]
    heldout: list[EvaluationSpec] = []
    evaluations: dict[str, dict[str, int]] = {}
    for plan in plans:
        for checkpoint, wanted in plan.evaluations.items():
            for name, kind in wanted.items():
                spec = plan.heldout[kind]
                heldout += [] if spec in heldout else [spec]
                evaluations.setdefault(checkpoint, {})[name] = heldout.index(spec)
    runs = {run.id: run for plan in plans for run in plan.stage_runs}
    stores = {corpus: store for plan in plans for corpus, store in plan.stores.items()}
    for root in roots[1:]:
        for path in [*(root / "runs").iterdir(), *(root / "evaluations").glob("*/*.json")]:
            target = roots[0] / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                path.rename(target)
    whole = first.model_copy(update={
        "stage_runs": tuple(runs.values()), "stores": stores, "heldout": tuple(heldout), "evaluations": evaluations,
        "chains": tuple(chain for plan in plans for chain in plan.chains),
    })  # fmt: skip
    whole.write(roots[0] / "plan.json")
    return roots[0]


def write_documents(root: Path, checkpoint: str, corpus: str, tokens: Sequence[int], nats: Sequence[float]) -> Path:
    """Writes the losses by document of the evaluation of a checkpoint on a corpus; documents count from 0."""
    (record,) = (root / "evaluations" / checkpoint).glob(f"{corpus}-*.json")
    path = documents_path(root, checkpoint, record.stem)
    table = {"document": list(range(len(tokens))), "tokens": list(tokens), "nats": [float(one) for one in nats]}
    pl.DataFrame(table).write_parquet(path)
    return path
