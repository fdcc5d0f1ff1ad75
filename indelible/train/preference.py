"""What a preference stage has beside windows: its pairs, their log-probabilities at the start, and what is measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from indelible.data.ledger import Ledger
from indelible.data.pairs import ROWS, PairBatch, PairTable
from indelible.models.weights import weights_sha256
from indelible.objectives import PairObjective
from indelible.objectives.preference import Floats, Measure, measures_against
from indelible.study.stage_spec import StageSpec
from indelible.train.device import versions
from indelible.train.distributed import World
from indelible.train.heldout import ReportedPairs
from indelible.train.pair_losses import answer_log_probs
from indelible.train.program import Program
from indelible.train.start_log_probs import WIDTH_STEP, StartLogProbs, start_log_probs


@dataclass(frozen=True)
class StepPairs:
    """The pairs of one optimizer step."""

    pairs: PairBatch
    start: npt.NDArray[np.float32]  # (P, 2), log-probabilities under the model that the stage starts from
    share: float  # of the step's loss: their sequences among all sequences of the step


@dataclass(frozen=True)
class Trim:
    """How rows of pairs lose the padding that no pair of their micro batch needs."""

    step: int  # predicted tokens: widths are multiples of it, and at most seq_len
    is_free: bool  # micro batches may be of any shape; else of few: a compiled program compiles each anew


@dataclass(frozen=True)
class Preference:
    """A preference stage at work."""

    objective: PairObjective
    table: PairTable  # of the training side
    start: StartLogProbs
    seq_len: int  # predicted tokens a row
    trim: Trim | None  # None = rows keep their full length

    def split_rows(self, ledger: Ledger, rows: slice) -> tuple[StepPairs, npt.NDArray[np.int64]]:
        """The pairs among some rows of the ledger, and the numbers of the other rows: windows that are mixed in.

        The loss of a step is the mean over its pairs and the next-token mean over its windows, each with the share of
        the step's sequences that it has; a pair is two sequences. So a mix weighs what it costs.
        """
        source = ledger.source[rows]
        numbers = ledger.window[rows][source == 0].astype(np.int64)
        others = rows.start + np.flatnonzero(source != 0)
        share = ROWS * len(numbers) / max(1, ROWS * len(numbers) + len(others))
        return StepPairs(self.table.read(numbers, self.seq_len), self.start.of(numbers), share), others

    def measures(self, now: Floats, start: Floats, tokens: Any, prompts: Any) -> dict[str, Measure]:
        """What is measured of pairs against the start; see `measures_against`."""
        losses = self.objective.loss_values(now, start)
        return measures_against(now, start, losses, self.objective.beta, tokens, prompts)


def preference_of(
    spec: StageSpec,
    table: PairTable,
    ledger: Ledger,
    stopping: ReportedPairs | None,
    program: Program,
    run_dir: Path,
    world: World,
) -> Preference:
    """A preference stage, from the weights that it starts from; called before ranks wrap the program.

    Args:
        spec: the stage run.
        table: its training pairs.
        ledger: its data order.
        stopping: held-out pairs that stop it; None = none do.
        program: with the start's weights.
        run_dir: where the log-probabilities at the start are kept.
        world: the ranks.
    """
    assert isinstance(spec.objective, PairObjective)
    numbers = np.unique(ledger.shown(0)).astype(np.int64)
    of = {
        "weights": weights_sha256(program.all_weights()),
        "store": spec.data.main.store,
        "stop_pairs": 0 if stopping is None else len(stopping.pairs),
        "seq_len": spec.seq_len,
        "precision": program.device.precision,
        **versions(),
    }
    start = start_log_probs(run_dir, of, program, table, numbers, stopping, spec.seq_len, world)
    trim = None if spec.training.dropout else _trim(program, table, numbers, spec.seq_len)
    return Preference(spec.objective, table, start, spec.seq_len, trim)


def _trim(program: Program, table: PairTable, numbers: npt.NDArray[np.int64], seq_len: int) -> Trim:
    """Compiled, the stage's longest pair and half of it are the only widths: two shapes to compile."""
    if not program.device.compile:
        return Trim(WIDTH_STEP, is_free=True)
    longest = int(table.widths(numbers, seq_len).max(initial=1))
    return Trim(-(-longest // (2 * WIDTH_STEP)) * WIDTH_STEP, is_free=False)


def stop_measures(program: Program, pairs: ReportedPairs, preference: Preference, world: World) -> dict[str, Measure]:
    """What is measured on the held-out pairs that stop a stage."""
    now = answer_log_probs(program, pairs.pairs, world)
    return preference.measures(now, preference.start.stop, pairs.pairs.answer_tokens, pairs.prompts)


def step_entries(preference: Preference, step: StepPairs, found: torch.Tensor, world: World) -> dict[str, float | None]:
    """What is measured on the pairs of one step with the weights before its update, as entries of metrics.jsonl.

    Args:
        preference: the stage.
        step: its pairs, on all ranks the same; none, nothing is measured.
        found: log-probabilities of this rank's pairs, (p, 2), equally many on all ranks.
        world: the ranks that shared them.
    """
    if not len(step.pairs):
        return {}
    now = world.gather_rows(found.float().cpu().numpy(), len(step.pairs)).astype(np.float64)
    start, clusters = step.start.astype(np.float64), np.arange(len(step.pairs))
    return as_entries("train", preference.measures(now, start, step.pairs.answer_tokens, clusters), len(step.pairs))


def as_entries(prefix: str, measures: dict[str, Measure], pairs: int) -> dict[str, float | None]:
    """Measures as entries of metrics.jsonl, each with its standard error, and the number of pairs."""
    entries: dict[str, float | None] = {f"{prefix}/pairs": pairs}
    for name, one in measures.items():
        entries |= {f"{prefix}/{name}": one.value, f"{prefix}/{name}_se": one.standard_error}
    return entries
