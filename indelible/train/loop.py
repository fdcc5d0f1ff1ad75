"""The loop that all stages share: update, evaluate, stop early, save; exact under a kill at any step.

Nothing in it draws random numbers that depend on its history: data order comes from the ledger and dropout masks from
(seed, stage, step), so a resumed loop needs the weights, the optimizer's moments and a few numbers.
"""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from indelible.data.loader import Batch, read_batch
from indelible.train.checkpoint import read_record, read_resume, save_resume
from indelible.train.context import LoopState, StageContext, StoppedByFirst, step_seed
from indelible.train.job import Progress
from indelible.train.metrics import append_line, cut_metrics
from indelible.train.optim import learning_rate, make_optimizer, set_learning_rate
from indelible.train.pieces import step_pieces
from indelible.train.preference import StepPairs, step_entries
from indelible.train.program import State, full_tensor
from indelible.train.stopping import stop_loss

StopReason = Literal["max_tokens", "patience", "diverged"]
LOG_LINES = 100  # training lines in metrics.jsonl, about, whatever the length of the stage
REPORT_SECONDS = 0.2  # between two reports of progress
RESUME_SHARE = 0.01  # of the stage's time that saving resume states may take
SAVE_BYTES_PER_SECOND = 2e8  # assumed of the disk until the first resume state was written


class Loop:
    """One stage's training. `run` trains to the end; `save` may be called between any two steps."""

    def __init__(self, context: StageContext) -> None:
        self.context = context
        self.spec, self.training, self.program = context.spec, context.spec.training, context.program
        self.ledger, self.world = context.ledger, context.world
        self.total_steps = math.ceil(len(self.ledger) / self.training.global_batch_size)
        self.state = LoopState()
        self.best: State = {}  # weights with the lowest stop loss, empty without patience
        self.optimizer = make_optimizer(self.program.model, self.training)
        self.optimizer.zero_grad(set_to_none=True)  # a kept program may hold gradients of a run that was stopped
        self._weights = self.program.trainable()
        is_padded = all(self.ledger.rules_of(use).packing == "documents" for use in range(len(self.ledger.uses)))
        self._is_trimmed = is_padded and not self.program.device.compile  # a compiled program has one shape
        self._log_interval = max(1, self.total_steps // LOG_LINES)
        state_bytes = sum(4 * 4 * weight.numel() for weight in self._weights.values())  # moments and best weights too
        self._save_seconds = state_bytes / SAVE_BYTES_PER_SECOND
        self._saved_at = self._reported_at = time.monotonic()
        self._started_with = (0, 0.0)  # tokens and seconds at the start of this process
        self._latest: dict[str, float] = {}  # loss, lr and grad_norm of the latest update
        self._step_pairs: tuple[StepPairs, torch.Tensor] | None = None  # of the latest update, and what was found
        self._stop_request: Exception | None = None

    def run(self) -> StopReason:
        """Trains until the ledger ends, patience runs out or the loss diverges."""
        self.program.model.train()
        self._started_with = (self.state.tokens, self.state.trained_seconds)
        if self.state.step == 0:
            if self._evaluates:
                self._evaluate()
            self._watch()
        if self.program.device.compile:
            self._report("compiling")  # the first update does, where this process has no such program yet
        while self.state.step < self.total_steps:
            if not self._timed_update():
                return "diverged"
            is_last = self.state.step == self.total_steps
            is_over = False
            if self._evaluates and (is_last or self.state.step % (self.training.eval_interval or 1) == 0):
                self._evaluate()
                is_over = self._patience_is_over
            self._watch(is_last=is_last or is_over)
            if is_over:
                return "patience"
            self._report("training")
            self._save_or_stop(not is_last and self._save_is_due())
        return "max_tokens"

    def _save_or_stop(self, is_due: bool) -> None:
        """Between two steps: what rank 0 wants, all do."""
        must_stop, must_save = self.world.any(self._stop_request is not None, is_due and self.world.is_first)
        if must_stop or must_save:
            self.save()
        if must_stop:
            raise self._stop_request or StoppedByFirst

    @property
    def _evaluates(self) -> bool:
        return self.training.eval_interval is not None and self.context.stop_rule is not None

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
        pairs, rows = None, slice(first, first + size)
        if self.context.preference is not None:
            pairs, others = self.context.preference.split_rows(self.ledger, rows)
        batch = read_batch(self.ledger, self.context.stores, rows if pairs is None else others)
        if self._is_trimmed and pairs is None:
            batch = batch.without_padding()
        num_valid = max(1, int(batch.valid.sum()) + (int(pairs.pairs.valid.sum()) if pairs is not None else 0))
        if self.training.dropout:
            torch.manual_seed(step_seed(self.spec, self.state.step, self.world.rank))
        total, guarded = self._backward(batch, num_valid, pairs)
        penalty = self.context.guard.add_to_gradients() if self.context.guard is not None else 0.0
        norm = full_tensor(
            torch.nn.utils.clip_grad_norm_(self._weights.values(), self.training.max_grad_norm, foreach=True)
        )
        loss, guard_loss, grad_norm = torch.stack([total, guarded, norm]).tolist()  # one wait for the device, not three
        loss = self.world.sum(loss)
        lr = learning_rate(self.state.step, self.total_steps, self.training)
        self._latest = {"loss": loss, "lr": lr, "grad_norm": grad_norm}
        if self.context.guard is not None:
            self._latest["guard"] = self.world.sum(guard_loss) + penalty
        if not (math.isfinite(loss) and math.isfinite(grad_norm)) or loss > self.training.max_loss:
            self.optimizer.zero_grad(set_to_none=True)
            return False
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.tokens += num_valid
        return True

    def _backward(
        self, batch: Batch, num_valid: int, pairs: StepPairs | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulates gradients over micro batches of one shape.

        Args:
            batch: the windows of the step.
            num_valid: targets that count in the step, those of pairs included.
            pairs: the pairs of the step, in a preference stage.

        Returns:
            This rank's parts of the objective and of the guard, nats per token; of pairs, nats a pair.
        """
        device, world = self.program.device, self.world
        pieces, found = step_pieces(self.context, batch, num_valid, pairs)
        self._step_pairs = None if pairs is None else (pairs, found)
        total, guarded = torch.zeros((), device=device.torch_device), torch.zeros((), device=device.torch_device)
        for number, piece in enumerate(pieces, 1):
            with world.accumulating(is_last=number == len(pieces)):
                with device.autocast():
                    loss, held = piece.losses(self.program, self.context.guard)
                loss = loss / piece.divisor
                whole = loss if held is None else loss + held / num_valid
                (whole * world.size if world.size > 1 else whole).backward()  # ranks' gradients are averaged
            total += loss.detach()
            if held is not None:
                guarded += held.detach() / num_valid
        return total, guarded

    def _evaluate(self) -> None:
        """Evaluates on the stop corpus and keeps the weights if they are the best so far."""
        self._report("evaluating")
        begun = time.perf_counter()
        loss, entries = stop_loss(self.context)
        state = self.state
        is_better = state.best_loss is None or loss < state.best_loss - self.training.min_improvement
        if math.isfinite(loss) and is_better:
            state.best_loss, state.best_step, state.evaluations_without_improvement = loss, state.step, 0
            if self.training.patience is not None:
                self.best = {name: weight.detach().clone() for name, weight in self._weights.items()}
        else:
            state.evaluations_without_improvement += 1
        state.eval_seconds += time.perf_counter() - begun
        self._log(entries)

    def _watch(self, *, is_last: bool = False) -> None:
        """Records the curves if this step is one of theirs. It changes no bit of the training."""
        watcher = self.context.watcher
        if watcher is None or not watcher.is_due(self.state.step, is_last=is_last):
            return
        self._report("evaluating")
        begun = time.perf_counter()
        self._log(watcher.look(self.program, self.world))
        self.state.eval_seconds += time.perf_counter() - begun

    @torch.no_grad()
    def restore_best(self) -> None:
        """Puts the weights of the lowest stop loss back into the model, if patience kept them."""
        for name, weight in self.best.items():
            self._weights[name].copy_(weight)

    @torch.no_grad()
    def has_finite_weights(self) -> bool:
        """False if the L2 norm of the trained weights is not finite in fp32, whatever the loss says.

        A loss can hide it: a token that no held-out window has, or a root mean square that overflows and makes every
        hidden state zero, which is the loss of a uniform guess.
        """
        norm = full_tensor(torch.nn.utils.get_total_norm(self._weights.values(), foreach=True))
        return math.isfinite(norm.item())

    def progress(self, phase: str) -> Progress:
        """Where the stage stands now."""
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
        """Reports progress; the receiver may request a stop by raising, which is done between two steps."""
        now = time.monotonic()
        if now - self._reported_at < REPORT_SECONDS and phase == "training":
            return
        self._reported_at = now
        try:
            self.context.progress(self.progress(phase))
        except Exception as request:
            self._stop_request = request

    def _log_training(self) -> None:
        line: dict[str, float | None] = {f"train/{key}": value for key, value in self._latest.items()}
        if self.context.preference is not None and self._step_pairs is not None:
            line |= step_entries(self.context.preference, *self._step_pairs, self.world)
        self._log({**line, "speed/tokens_per_second": round(self.tokens_per_second, 1)})

    def _log(self, entry: dict[str, Any]) -> None:
        if self.world.is_first:
            line = {"step": self.state.step, "tokens": self.state.tokens, **entry}
            append_line(self.context.run_dir / "metrics.jsonl", line)

    def _save_is_due(self) -> bool:
        waited = time.monotonic() - self._saved_at
        return waited >= max(self.context.resume_seconds, self._save_seconds / RESUME_SHARE)

    def save(self) -> None:
        """Writes a resume state of this moment."""
        self.context.fence()
        begun = time.monotonic()
        tensors = {f"model.{name}": weight for name, weight in self._weights.items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        names = {id(weight): name for name, weight in self._weights.items()}
        for weight, moments in self.optimizer.state.items():
            tensors |= {f"optimizer.{names[id(weight)]}/{key}": value for key, value in moments.items()}
        record = {"loop": asdict(self.state), "identity": self.context.identity}
        save_resume(self.context.run_dir, self.state.step, tensors, record, self.world)
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
            cut_metrics(self.context.run_dir / "metrics.jsonl", self.state.step)
