"""Evaluations of a checkpoint on held-out windows: with the weights in memory after a stage, or of a checkpoint alone.

An evaluation that is not finite is a result too: `diverged`.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from indelible.data.ledger import corpus_of
from indelible.data.store import TokenStore
from indelible.files import atomic_write
from indelible.models.build import load_config
from indelible.models.weights import read_state
from indelible.records import Evaluation
from indelible.study.stage_spec import EvaluationSpec
from indelible.train.device import choose_device, environment
from indelible.train.distributed import World
from indelible.train.evaluate import DocumentLosses
from indelible.train.heldout import ReportedPairs, ReportedWindows, windows_of
from indelible.train.job import EvaluationJob, Progress
from indelible.train.packing_check import check_packing
from indelible.train.pair_losses import PairLosses, reported_losses
from indelible.train.program import Program, get_program
from indelible.train.start import existing_checkpoint, given_program
from indelible.train.task_evaluation import evaluate_on_tasks

Made = dict[str, tuple[Evaluation, DocumentLosses]]  # by evaluation id


def run_evaluations(job: EvaluationJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
    """Makes the evaluations of one checkpoint that are not there yet.

    Args:
        job: the checkpoint and what is wanted of it.
        progress: called as it goes on; may raise to stop.
        guard: called before every write; raises when this process may not write any more.

    Raises:
        UserError: the checkpoint or a store is missing, or does not fit.
    """
    progress(Progress(0, 0, None, 0, 0.0, "loading"))
    there = {path.stem for path in job.evaluations_dir.glob("*.json")}
    wanted = {name: spec for name, spec in job.evaluations.items() if name not in there}
    tasks = {name: spec for name, spec in job.tasks.items() if name not in there}
    if not wanted and not tasks:
        return
    folder = existing_checkpoint(job.checkpoint_dir, f"{job.checkpoint} is evaluated by")
    device = choose_device("fp32", job.execution)
    if job.checkpoint.startswith("given-"):
        seq_len = max((spec.seq_len for spec in wanted.values()), default=1)
        program = given_program(folder, job.tokenizer_dir, seq_len, device)
    else:
        program = get_program(load_config(folder), 0.0, None, device)
        program.load_base(read_state(folder), 0)
    if any(spec.packing == "best_fit" for spec in wanted.values()):
        check_packing(program, f"evaluations of {job.checkpoint}, packing: best_fit")
    stores = open_stores({spec.store for spec in wanted.values()}, job.tokens_dir)
    windows = {name: windows_of(spec, stores) for name, spec in wanted.items()}
    made = evaluate_all(program, wanted, windows, stores, World(), progress)
    write_evaluations(made, job.evaluations_dir, guard)
    if tasks:
        evaluate_on_tasks(program, job, tasks, progress, guard)


def open_stores(names: Iterable[str], tokens_dir: Path) -> dict[str, TokenStore]:
    """Token stores by folder name.

    Raises:
        UserError: one is missing or damaged.
    """
    return {name: TokenStore.open(tokens_dir / name) for name in sorted(set(names))}


def evaluate_all(
    program: Program,
    wanted: Mapping[str, EvaluationSpec],
    windows: Mapping[str, ReportedWindows | ReportedPairs],
    stores: Mapping[str, TokenStore],
    world: World,
    progress: Callable[[Progress], None],
) -> Made:
    """Evaluates a program on everything that is wanted of it; writes nothing.

    Args:
        program: the model.
        wanted: evaluations by id.
        windows: those of each evaluation, by its id.
        stores: by folder name.
        world: the ranks that share the windows.
        progress: called before each evaluation.
    """
    made: Made = {}
    for number, (name, spec) in enumerate(wanted.items()):
        progress(Progress(number, len(wanted), None, 0, 0.0, "evaluating"))
        begun = time.perf_counter()
        losses = reported_losses(program, windows[name], world)
        store, is_finite = stores[spec.store], math.isfinite(losses.mean)
        nats = losses.mean if is_finite else None
        record = Evaluation(
            id=name,
            checkpoint=spec.checkpoint,
            corpus=corpus_of(spec.store),
            status="done" if is_finite else "diverged",
            nats_per_token=nats,
            bits_per_byte=None if nats is None or store.has_pairs else _bits_per_byte(nats, store),
            standard_error=losses.standard_error if is_finite else None,
            tokens=int(losses.tokens.sum()),
            documents=len(losses.document),
            windows=_num_windows(windows[name]),
            loss_on=spec.loss_on,
            seconds=round(time.perf_counter() - begun, 6),
            environment=environment(program.device),
            **(_measures(losses) if isinstance(losses, PairLosses) and is_finite else {}),
        )
        made[name] = record, losses
    return made


def _bits_per_byte(nats: float, store: TokenStore) -> float:
    return nats / math.log(2) / store.bytes_per_token("heldout")


def _num_windows(windows: ReportedWindows | ReportedPairs) -> int:
    return len(windows.numbers) if isinstance(windows, ReportedPairs) else len(windows.heldout.valid)


def _measures(losses: PairLosses) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, one in losses.measures.items():
        found |= {name: one.value, f"{name}_se": one.standard_error}
    return found


def write_evaluations(made: Made, folder: Path, guard: Callable[[], None]) -> None:
    """Writes evaluations and their losses by document; an evaluation is there once its JSON file is."""
    for name, (record, losses) in made.items():
        guard()
        columns = {field.name: getattr(losses, field.name) for field in fields(losses)}
        table = pa.table(columns)
        with atomic_write(folder / f"{name}.documents.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        record.write(folder / f"{name}.json")
