"""Log-probabilities of a preference stage's pairs under the model that it starts from: computed once, then read.

They depend on nothing but the weights at the start, the pairs and the precision, whose hash stands in the file; so a
stage that is killed while it computes them gets the same bits the second time, and one that is resumed reads them.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from indelible.data.loader import Batch
from indelible.data.pairs import ROWS, PairTable
from indelible.files import atomic_write
from indelible.objectives.preference import Floats
from indelible.train.answers import row_log_probs
from indelible.train.batch import padded
from indelible.train.distributed import World
from indelible.train.evaluate import EVAL_TOKENS
from indelible.train.heldout import ReportedPairs
from indelible.train.pair_losses import answer_log_probs
from indelible.train.program import Program

FILE = "start_log_probs.safetensors"
WIDTH_STEP = 8  # predicted tokens: rows are as wide as their longest, to a multiple of this


@dataclass(frozen=True)
class StartLogProbs:
    """Log-probabilities of the better and the worse answer of each pair, nats."""

    numbers: npt.NDArray[np.int64]  # (N,) of the training pairs that the stage shows, rising
    train: npt.NDArray[np.float32]  # (N, 2), in the precision of training
    stop: Floats  # (M, 2), of the held-out pairs that stop the stage, fp32 arithmetic; (0, 2) where none do

    def of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Those of some training pairs: (K, 2)."""
        return self.train[np.searchsorted(self.numbers, numbers)]


def start_log_probs(
    run_dir: Path,
    of: dict[str, Any],
    program: Program,
    table: PairTable,
    numbers: npt.NDArray[np.int64],
    stopping: ReportedPairs | None,
    seq_len: int,
    world: World,
) -> StartLogProbs:
    """Those of a stage, from its folder if they are there. Called before ranks wrap the program.

    Args:
        run_dir: folder of the run.
        of: what they are computed from, as JSON, beside the pairs' numbers: a file of another one is not used.
        program: with the weights that the stage starts from; it is left in the mode it was in.
        table: the training pairs.
        numbers: of those that the stage shows, rising.
        stopping: held-out pairs that stop the stage.
        seq_len: predicted tokens a row.
        world: the ranks, which share the work; all get the same.
    """
    form = json.dumps({**of, "pairs": hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()}, sort_keys=True)
    digest, path = hashlib.sha256(form.encode()).hexdigest(), run_dir / FILE
    if world.broadcast(str(world.is_first and _digest_of(path) == digest)) == "True":
        with safe_open(path, framework="numpy") as file:
            return StartLogProbs(numbers, file.get_tensor("train"), file.get_tensor("stop"))
    train = training_log_probs(program, table, numbers, seq_len, world)
    stop = np.zeros((0, ROWS)) if stopping is None else answer_log_probs(program, stopping.pairs, world)
    if world.is_first:
        with atomic_write(path) as temporary:
            temporary.write_bytes(save({"numbers": numbers, "train": train, "stop": stop}, {"of": digest}))
    world.barrier()
    return StartLogProbs(numbers, train, stop)


def _digest_of(path: Path) -> str:
    """What the file in a run's folder was computed from; empty where there is none, or it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("of", "")
    except (OSError, SafetensorError):
        return ""


@torch.no_grad()
def training_log_probs(
    program: Program, table: PairTable, numbers: npt.NDArray[np.int64], seq_len: int, world: World
) -> npt.NDArray[np.float32]:
    """Log-probabilities of training pairs in the precision of training, without dropout: float32 (N, 2).

    In batches that depend on the pairs alone, whatever the micro batch: the same bits at every attempt. Pairs of like
    length go together, so that little padding is computed; a compiled program has one shape.
    """
    was_training, device = program.model.training, program.device
    program.model.eval()
    share = -(-len(numbers) // world.size)
    mine = numbers[world.rank * share : (world.rank + 1) * share]
    size, widths = max(1, EVAL_TOKENS // (ROWS * seq_len)), table.widths(mine, seq_len)
    longest = int(table.widths(numbers, seq_len).max(initial=1))
    step = -(-longest // WIDTH_STEP) * WIDTH_STEP if device.compile else WIDTH_STEP
    order = np.argsort(widths, kind="stable")
    found = np.zeros((share, ROWS), np.float32)
    for first in range(0, share, size):
        here = order[first : first + size]
        pairs = table.read(mine[here], seq_len)
        every = slice(0, ROWS * size)
        batch = Batch(pairs.tokens, pairs.valid).without_padding(step)
        rows = padded(batch, every, ROWS * size, device.torch_device)[:3]
        with device.autocast():
            now = program.run(row_log_probs, *rows)
        found[here] = now.float().cpu().numpy().reshape(-1, ROWS)[: len(here)]
    program.model.train(was_training)
    return world.gather_rows(found, len(numbers))
