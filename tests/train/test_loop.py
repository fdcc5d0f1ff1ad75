"""What the loop does between its updates: evaluations, lines of metrics, reports, resume states, and a wish to stop."""

import itertools
import json
import time
from dataclasses import replace

import pytest
import torch
from tiny_engine import TINY, layered, loop_of, losses_of
from token_folder import plan_on_arrays

from indelible.train import loop as module
from indelible.train.loop import SAVE_BYTES_PER_SECOND

FP32 = layered(TINY, {"precision": "fp32"})
STEPS = 5  # of stage 1


@pytest.fixture
def loop(tmp_path):
    return loop_of(plan_on_arrays(tmp_path, FP32, 512))


@pytest.fixture
def stopping_loop(tmp_path):
    return loop_of(plan_on_arrays(tmp_path, layered(FP32, {"pretrain": {"eval_interval": 2}}), 512))


def progress_of(loop) -> list:
    """What the loop reports, from now on."""
    seen = []
    object.__setattr__(loop.context, "progress", seen.append)
    return seen


def test_a_short_stage_has_a_line_for_every_step(loop):
    before = {name: weight.clone() for name, weight in loop._weights.items()}
    assert loop.run() == "max_tokens"
    assert loop.state.step == loop.total_steps == STEPS
    assert loop.state.tokens == STEPS * 4 * 32
    assert list(losses_of(loop.context.run_dir)) == [1, 2, 3, 4, 5]
    assert not any(before[name].equal(weight) for name, weight in loop._weights.items()), "every weight is trained"
    lines = [json.loads(line) for line in (loop.context.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == [128, 256, 384, 512, 640]
    assert all(line["speed/tokens_per_second"] > 0 for line in lines)
    assert not any(key.startswith(("eval/", "watch/", "train/guard")) for line in lines for key in line)


def test_a_long_stage_has_a_line_now_and_then_and_for_its_first_and_last_step(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_LINES", 2)
    loop = loop_of(plan_on_arrays(tmp_path, layered(FP32, {"pretrain": {"tokens": 1100}}), 512))
    assert loop.total_steps == 9, "the last one is smaller"
    loop.run()
    assert list(losses_of(loop.context.run_dir)) == [1, 4, 8, 9]


def test_a_stage_is_evaluated_before_the_first_step_at_the_interval_and_at_its_end(stopping_loop):
    stopping_loop.run()
    assert list(losses_of(stopping_loop.context.run_dir, "eval/pre/nats_per_token")) == [0, 2, 4, 5]


def test_an_interval_without_a_corpus_that_stops_evaluates_nothing(stopping_loop):
    object.__setattr__(stopping_loop.context, "stop_rule", None)
    assert stopping_loop.run() == "max_tokens"
    assert losses_of(stopping_loop.context.run_dir, "eval/pre/nats_per_token") == {}


def test_without_patience_no_weights_are_kept_aside(stopping_loop):
    stopping_loop.run()
    assert stopping_loop.best == {}
    assert stopping_loop.state.best_step > 0


def test_the_evaluation_before_the_first_step_is_not_repeated_when_a_stage_goes_on(stopping_loop):
    assert stopping_loop._timed_update()
    stopping_loop.run()
    assert list(losses_of(stopping_loop.context.run_dir, "eval/pre/nats_per_token")) == [2, 4, 5]


def test_the_time_that_is_left(loop):
    assert loop.progress("training").seconds_left is None
    loop.state.step, loop.state.tokens = 2, 256
    loop.state.trained_seconds, loop.state.eval_seconds = 4.0, 2.0
    now = loop.progress("training")
    assert (now.step, now.total_steps, now.tokens, now.seconds_left) == (2, STEPS, 256, 9.0)
    assert now.tokens_per_second == 64.0, "of the time that was trained"
    loop._started_with = (128, 2.0)
    assert loop.progress("training").tokens_per_second == 64.0, "by this process alone"
    loop._started_with = (256, 4.0)
    assert loop.progress("training").tokens_per_second == 0.0


def test_reports_of_training_have_a_least_distance(loop, monkeypatch):
    seen, now = progress_of(loop), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    loop._reported_at = 0.0
    loop._report("training")
    loop._report("training")
    now[0] += 0.1
    loop._report("training")
    assert len(seen) == 1
    loop._report("evaluating")  # whatever takes long is reported at once
    assert [one.phase for one in seen] == ["training", "evaluating"]
    now[0] += 0.1
    loop._report("training")
    assert len(seen) == 2, "0.2 s since the last report of any kind"
    now[0] += 0.15
    loop._report("training")
    assert len(seen) == 3


@pytest.mark.parametrize("is_compiled", [True, False])
def test_that_the_first_update_compiles_is_said(loop, is_compiled, monkeypatch):
    monkeypatch.setattr(loop.program, "device", replace(loop.program.device, compile=is_compiled))
    seen = progress_of(loop)
    loop.run()
    assert ([one.phase for one in seen][:1] == ["compiling"]) == is_compiled


def test_resume_states_take_a_small_share_of_the_time(loop, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    num_weights = sum(weight.numel() for weight in loop._weights.values())
    assert loop._save_seconds == pytest.approx(4 * 4 * num_weights / SAVE_BYTES_PER_SECOND), "before one was written"
    loop._save_seconds = 2.0
    object.__setattr__(loop.context, "resume_seconds", 30.0)
    for waited, is_due in ((199.0, False), (200.0, True)):
        loop._saved_at = now[0] - waited
        assert loop._save_is_due() is is_due, "a hundredth of the time at most"
    loop._save_seconds = 0.0
    for waited, is_due in ((29.0, False), (30.0, True)):
        loop._saved_at = now[0] - waited
        assert loop._save_is_due() is is_due, "no state before its least time, however quickly it is written"
    monkeypatch.setattr(module, "save_resume", lambda *_: now.__setitem__(0, now[0] + 3.0))
    loop.save()
    assert loop._save_seconds == 3.0, "what writing the last one took"
    assert not loop._save_is_due(), "counted from the last one on"


def test_a_wish_to_stop_is_met_between_two_steps_with_a_state_saved(loop, monkeypatch):
    class Enough(Exception):
        pass

    def stop(now):
        if now.step == 2:
            raise Enough

    object.__setattr__(loop.context, "progress", stop)
    loop._reported_at = -1e9
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.0)
    with pytest.raises(Enough):
        loop.run()
    assert loop.state.step == 2
    assert [path.name for path in (loop.context.run_dir / "resume").iterdir()] == ["step-000000002"]


def test_no_state_is_saved_after_the_last_step(loop):
    object.__setattr__(loop.context, "resume_seconds", 0.0)
    loop._save_seconds = 0.0
    saved = []
    loop.save = lambda: (saved.append(loop.state.step), setattr(loop, "_save_seconds", 0.0))
    loop.run()
    assert saved == [1, 2, 3, 4]


class WatchedSteps:
    """A watcher of no corpus: which steps it is asked about, and which of them is the last."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bool]] = []

    def is_due(self, step: int, *, is_last: bool) -> bool:
        self.asked.append((step, is_last))
        return False


@pytest.mark.parametrize(("patience", "last"), [(None, STEPS), (1, 2)])
def test_the_last_point_of_a_curve_is_the_end_of_the_stage_however_it_ends(tmp_path, patience, last):
    over = {"pretrain": {"eval_interval": 2, "patience": patience, "min_improvement": 50.0}}
    loop = loop_of(plan_on_arrays(tmp_path, layered(FP32, over), 512))
    object.__setattr__(loop.context, "watcher", WatchedSteps())
    assert loop.run() == ("max_tokens" if patience is None else "patience")
    assert loop.context.watcher.asked == [(step, step == last) for step in range(last + 1)]


def test_dropout_depends_on_nothing_that_was_drawn_before(tmp_path):
    losses = []
    for number in range(2):
        over = {"pretrain": {"dropout": 0.2}}
        loop = loop_of(plan_on_arrays(tmp_path / str(number), layered(FP32, over), 512))
        torch.manual_seed(number)
        loop.run()
        losses.append(losses_of(loop.context.run_dir))
    assert losses[0] == losses[1]


def test_without_dropout_nothing_is_drawn(loop):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loop.run()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_above_the_most_ends_the_stage_before_its_update(tmp_path):
    loop = loop_of(plan_on_arrays(tmp_path, layered(FP32, {"pretrain": {"max_loss": 0.01}}), 512))
    before = {name: weight.clone() for name, weight in loop._weights.items()}
    assert loop.run() == "diverged"
    assert (loop.state.step, loop.state.tokens) == (0, 0)
    assert all(before[name].equal(weight) for name, weight in loop._weights.items())
    assert list(losses_of(loop.context.run_dir)) == [0], "the loss that ended it is logged"


def test_time_is_counted_by_what_it_was_for(stopping_loop, monkeypatch):
    now = itertools.count(1_000_000)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    stopping_loop.run()
    assert stopping_loop.state.eval_seconds == 4.0, "four evaluations, from one look at the clock to the next"
    assert stopping_loop.state.trained_seconds == STEPS
