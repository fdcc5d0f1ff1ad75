"""The loop that all stages share: update, evaluate, stop early, save; exact under a kill at any step.

Nothing in it draws random numbers that depend on its history: data order comes from the ledger and dropout masks from
(seed, stage, step), so a resumed loop needs the weights, the optimizer's moments and a few numbers.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from indelible.data.ledger import Ledger
from indelible.data.loader import Batch, WindowReader, read_batch
from indelible.study.stages import StageSpec
from indelible.train.checkpoint import read_record, read_resume, save_resume
from indelible.train.distributed import World
from indelible.train.evaluate import evaluate, padded
from indelible.train.job import Progress
from indelible.train.metrics import append_line, cut_metrics
from indelible.train.optim import learning_rate, make_optimizer, set_learning_rate
from indelible.train.program import Program, State, whole

StopReason = Literal["max_tokens", "patience", "diverged"]
LOG_LINES = 100  # training lines in metrics.jsonl, about, whatever the length of the stage
REPORT_SECONDS = 0.2  # between two signs of life
RESUME_SHARE = 0.01  # of the stage's time that saving resume states may take
SAVE_BYTES_PER_SECOND = 2e8  # assumed of the disk until the first resume state was written


class StoppedByFirst(Exception):
    """Raised on the other ranks when rank 0 was asked to stop; the state is saved."""


@dataclass
class LoopState:
    """What changes as the loop runs, besides tensors. All of it is in a resume state."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # targets trained on
    best_loss: float | None = None  # of the stop corpus, nats per token
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    trained_seconds: float = 0.0
    eval_seconds: float = 0.0


@dataclass(frozen=True)
class StopRule:
    """Windows whose loss stops the stage early and chooses the best weights."""

    heldout: Batch
    corpus: str
    bytes_per_token: float


class Loop:
    """One stage's training. `run` trains to the end; `save` may be called between any two steps."""

    def __init__(
        self,
        spec: StageSpec,
        program: Program,
        ledger: Ledger,
        stores: dict[str, WindowReader],
        stop_rule: StopRule | None,
        run_dir: Path,
        progress: Callable[[Progress], None],
        guard: Callable[[], None],
        resume_seconds: float,
        world: World,
    ) -> None:
        self.spec, self.training, self.program = spec, spec.training, program
        self.ledger, self.stores, self.stop_rule = ledger, stores, stop_rule
        self.run_dir, self._progress, self._guard, self.world = run_dir, progress, guard, world
        self.total_steps = math.ceil(len(ledger) / spec.training.global_batch_size)
        self.state = LoopState()
        self.best: State = {}  # weights with the lowest stop loss, empty without patience
        self.optimizer = make_optimizer(program.model, spec.training)
        self._weights = program.trainable()
        self._log_interval = max(1, self.total_steps // LOG_LINES)
        state_bytes = sum(4 * 4 * weight.numel() for weight in self._weights.values())  # moments and best weights too
        self._resume_seconds, self._save_seconds = resume_seconds, state_bytes / SAVE_BYTES_PER_SECOND
        self._saved_at = self._reported_at = time.monotonic()
        self._started_with = (0, 0.0)  # tokens and seconds at the start of this process
        self._latest: dict[str, float] = {}  # loss, lr and grad_norm of the latest update
        self._asked_to_stop: Exception | None = None

    def run(self) -> StopReason:
        """Trains until the ledger ends, patience runs out or the loss diverges."""
        self.program.model.train()
        self._started_with = (self.state.tokens, self.state.trained_seconds)
        if self.state.step == 0 and self._evaluates:
            self._evaluate()
        while self.state.step < self.total_steps:
            if not self._timed_update():
                return "diverged"
            is_last = self.state.step == self.total_steps
            if self._evaluates and (is_last or self.state.step % (self.training.eval_interval or 1) == 0):
                self._evaluate()
                if self._patience_is_over:
                    return "patience"
            self._report("training")
            self._save_or_stop(not is_last and self._save_is_due())
        return "max_tokens"

    def _save_or_stop(self, is_due: bool) -> None:
        """Between two steps: what rank 0 wants, all do."""
        must_stop, must_save = self.world.any(self._asked_to_stop is not None, is_due and self.world.is_first)
        if must_stop or must_save:
            self.save()
        if must_stop:
            raise self._asked_to_stop or StoppedByFirst

    @property
    def _evaluates(self) -> bool:
        return self.training.eval_interval is not None and self.stop_rule is not None

    @property
    def _patience_is_over(self) -> bool:
        patience = self.training.patience
        return patience is not None and self.state.evaluations_without_improvement >= patience

    @property
    def tokens_per_second(self) -> float:
        """Trained tokens per second of training time in this process."""
        tokens, seconds = self._started_with
        return (self.state.tokens - tokens) / max(1e-9, self.state.trained_seconds - seconds)

    def _timed_update(self) -> bool:
        begun = time.perf_counter()
        is_finite = self._update()
        self.state.trained_seconds += time.perf_counter() - begun
        if not is_finite or self.state.step % self._log_interval == 0 or self.state.step in (1, self.total_steps):
            self._log_training()
        return is_finite

    def _update(self) -> bool:
        """One optimizer step over a global batch; False, before the weights change, if the loss diverged.

        The loss is the sum over valid tokens divided by their number in the whole step, however it is split.
        """
        size = self.training.global_batch_size
        first = self.state.step * size
        batch = read_batch(self.ledger, self.stores, slice(first, first + size), self.spec.loss_on)
        num_valid = max(1, int(batch.valid.sum()))
        if self.training.dropout:
            torch.manual_seed(_step_seed(self.spec, self.state.step, self.world.rank))
        total = self._backward(batch, num_valid)
        norm = whole(torch.nn.utils.clip_grad_norm_(self._weights.values(), self.training.max_grad_norm, foreach=True))
        loss, grad_norm = torch.stack([total, norm]).tolist()  # one wait for the device, not two
        loss = self.world.sum(loss)
        lr = learning_rate(self.state.step, self.total_steps, self.training)
        self._latest = {"loss": loss, "lr": lr, "grad_norm": grad_norm}
        if not (math.isfinite(loss) and math.isfinite(grad_norm)) or loss > self.training.max_loss:
            self.optimizer.zero_grad(set_to_none=True)
            return False
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.tokens += num_valid
        return True

    def _backward(self, batch: Batch, num_valid: int) -> torch.Tensor:
        """Accumulates gradients over micro batches of one shape; returns this rank's part of the loss, nats a token."""
        device, world = self.program.device, self.world
        share = world.share_of(self.training.global_batch_size)
        mine = world.slice_of(batch, share)
        size = min(device.micro_batch_size or share, share)
        starts = range(0, min(len(batch.tokens), share), size)  # equally many on all ranks
        total = torch.zeros((), device=device.torch_device)
        for start in starts:
            inputs, targets, weights = padded(mine, slice(start, start + size), size, device.torch_device)
            with world.accumulating(is_last=start == starts[-1]):
                with device.autocast():
                    loss = self.program.loss_sum(inputs, targets, weights) / num_valid
                (loss * world.size if world.size > 1 else loss).backward()  # ranks' gradients are averaged
            total += loss.detach()
        return total

    def _evaluate(self) -> None:
        """Evaluates on the stop corpus and keeps the weights if they are the best so far."""
        assert self.stop_rule is not None
        self._report("evaluating")
        begun = time.perf_counter()
        rule = self.stop_rule
        loss = evaluate(self.program, rule.heldout, rule.bytes_per_token, self.world).nats_per_token
        state = self.state
        if state.best_loss is None or loss < state.best_loss - self.training.min_improvement:
            state.best_loss, state.best_step, state.evaluations_without_improvement = loss, state.step, 0
            if self.training.patience is not None:
                self.best = {name: weight.detach().clone() for name, weight in self._weights.items()}
        else:
            state.evaluations_without_improvement += 1
        state.eval_seconds += time.perf_counter() - begun
        self._log({f"eval/{rule.corpus}/nats_per_token": loss})

    @torch.no_grad()
    def restore_best(self) -> None:
        """Puts the weights of the lowest stop loss back into the model, if patience kept them."""
        for name, weight in self.best.items():
            self._weights[name].copy_(weight)

    def progress(self, phase: str) -> Progress:
        """A sign of life of this moment."""
        state, latest = self.state, self._latest
        left = None
        if state.step:
            seconds = state.trained_seconds + state.eval_seconds
            left = seconds / state.step * (self.total_steps - state.step)
        return Progress(
            state.step,
            self.total_steps,
            latest.get("loss"),
            state.tokens,
            self.tokens_per_second,
            phase,
            latest.get("lr"),
            latest.get("grad_norm"),
            left,
        )

    def _report(self, phase: str) -> None:
        """Gives a sign of life; the receiver may ask to stop by raising, which is done between two steps."""
        now = time.monotonic()
        if now - self._reported_at < REPORT_SECONDS and phase == "training":
            return
        self._reported_at = now
        try:
            self._progress(self.progress(phase))
        except Exception as request:
            self._asked_to_stop = request

    def _log_training(self) -> None:
        line = {f"train/{key}": value for key, value in self._latest.items()}
        self._log({**line, "speed/tokens_per_second": round(self.tokens_per_second, 1)})

    def _log(self, entry: dict[str, Any]) -> None:
        if self.world.is_first:
            line = {"step": self.state.step, "tokens": self.state.tokens, **entry}
            append_line(self.run_dir / "metrics.jsonl", line)

    def _save_is_due(self) -> bool:
        waited = time.monotonic() - self._saved_at
        return waited >= max(self._resume_seconds, self._save_seconds / RESUME_SHARE)

    def save(self) -> None:
        """Writes a resume state of this moment."""
        self._guard()
        begun = time.monotonic()
        tensors = {f"model.{name}": weight for name, weight in self._weights.items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        names = {id(weight): name for name, weight in self._weights.items()}
        for weight, moments in self.optimizer.state.items():
            tensors |= {f"optimizer.{names[id(weight)]}/{key}": value for key, value in moments.items()}
        record = {"loop": asdict(self.state), "ledger": self.ledger.sha256}
        save_resume(self.run_dir, self.state.step, tensors, record, self.world)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - begun

    def load(self, folder: Path) -> None:
        """Continues from a resume state; metrics of later steps are cut."""
        record = read_record(folder)
        self.state = LoopState(**record["loop"])
        tensors: State = {}
        for key in record["tensors"]:
            kind, _, rest = key.partition(".")
            name, _, moment = rest.partition("/")
            weight = self._weights[name]
            if kind == "model":
                tensors[key] = weight.detach()
            elif kind == "best":
                tensors[key] = self.best[name] = torch.empty_like(weight, requires_grad=False)
            else:
                is_count = moment == "step"
                tensors[key] = torch.zeros((), device=weight.device) if is_count else torch.zeros_like(weight)
                tensors[key] = tensors[key].detach()
                self.optimizer.state[weight][moment] = tensors[key]
        read_resume(folder, tensors, self.world)
        if self.world.is_first:
            cut_metrics(self.run_dir / "metrics.jsonl", self.state.step)


def _step_seed(spec: StageSpec, step: int, rank: int) -> int:
    name = f"{spec.seed}/dropout {spec.stage}/{step}" + (f"/{rank}" if rank else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
