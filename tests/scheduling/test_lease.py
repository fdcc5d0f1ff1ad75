"""Leases: one owner at a time, fenced, judged without trusting any clock."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from indelible.host import is_known_dead, this_process
from indelible.scheduling import lease as lease_module
from indelible.scheduling.lease import (
    Lease,
    LeaseLost,
    LeaseObserver,
    generations,
    latest_generation,
    read_beat,
    read_record,
    saved_mark,
)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _rewrite_owner(run_dir: Path, generation: int, **changes: object) -> None:
    path = run_dir / "lease" / f"{generation}.json"
    value = json.loads(path.read_text())
    value["owner"] |= changes
    path.write_text(json.dumps(value))


def test_only_one_of_many_takes_a_generation(tmp_path: Path) -> None:
    taken: list[Lease] = []
    barrier = threading.Barrier(16)

    def contend() -> None:
        barrier.wait()
        lease = Lease.take(tmp_path, 1, "w")
        if lease is not None:
            taken.append(lease)

    threads = [threading.Thread(target=contend) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    taken[0].release("done")
    assert latest_generation(tmp_path) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lease_module.os, "link", no_link)
    first = Lease.take(tmp_path, 1, "a")
    assert first is not None
    assert Lease.take(tmp_path, 1, "b") is None
    first.release("stopped")


def test_guard_raises_once_a_higher_generation_exists(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path, 1, "a", beat_seconds=0.01)
    assert lease is not None
    lease.guard()
    thief = Lease.take(tmp_path, 2, "b")
    assert thief is not None
    with pytest.raises(LeaseLost, match="attempt 1 was taken over"):
        lease.guard()
    time.sleep(0.05)
    before = read_beat(tmp_path, 1)
    time.sleep(0.05)
    assert read_beat(tmp_path, 1) == before  # a lost lease no longer beats
    lease.abandon()
    thief.release("done")


def test_release_frees_the_run_at_once(tmp_path: Path) -> None:
    observer = LeaseObserver(1e9)
    lease = Lease.take(tmp_path, 1, "a")
    assert lease is not None
    assert observer.look(tmp_path).is_held
    lease.release("stopped")
    view = observer.look(tmp_path)
    assert (view.is_held, view.outcome, view.generation) == (False, "stopped", 1)


def test_silent_owner_on_another_host_is_stale_by_the_observers_clock_only(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path, 1, "a", beat_seconds=1e9)
    assert lease is not None
    _rewrite_owner(tmp_path, 1, host="elsewhere")
    os.utime(tmp_path / "lease" / "1.beat", (0, 0))  # a file time of 1970 or 2100 says nothing
    clock = Clock()
    observer = LeaseObserver(60.0, clock)
    assert observer.look(tmp_path).is_held
    clock.now += 59
    os.utime(tmp_path / "lease" / "1.beat", (4e9, 4e9))
    assert observer.look(tmp_path).is_held
    clock.now += 2
    assert not observer.look(tmp_path).is_held
    lease.show(step=3)
    lease._write_beat(None)
    assert observer.look(tmp_path).is_held  # it beats again, and nobody has taken it: it still owns the run
    lease.release("done")


def test_dead_owner_on_this_host_is_stale_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from indelible.scheduling.lease import Lease; import os\n"
    code += "Lease.take(Path(sys.argv[1]), 1, 'a'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    record = read_record(tmp_path, 1)
    assert record is not None
    assert is_known_dead(record.owner)
    assert not LeaseObserver(1e9).look(tmp_path).is_held


def test_unreadable_record_counts_by_its_heartbeat(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "1.json").write_text("")
    clock = Clock()
    observer = LeaseObserver(60.0, clock)
    assert observer.look(tmp_path).is_held
    clock.now += 61
    assert not observer.look(tmp_path).is_held


def test_beat_shows_progress_and_no_nan(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path, 1, "a")
    assert lease is not None
    lease.show(step=3, loss=float("nan"), phase="training")
    lease.release("done")
    raw, beat = read_beat(tmp_path, 1)
    assert beat["step"] == 3
    assert beat["loss"] is None
    assert len(raw) == 512
    lease2 = Lease.take(tmp_path, 2, "a")
    assert lease2 is not None
    lease2.show(phase="x" * 1000)
    lease2.release("done")
    assert read_beat(tmp_path, 2)[1]["outcome"] == "done"  # too long to show: the beat itself still counts


def test_beats_need_no_free_space(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path, 1, "a")
    assert lease is not None
    info = (tmp_path / "lease" / "1.beat").stat()
    lease.show(step=10**9, loss=1.25, phase="evaluating")
    lease.release("failed")
    after = (tmp_path / "lease" / "1.beat").stat()
    assert (info.st_ino, info.st_size, info.st_blocks) == (after.st_ino, after.st_size, after.st_blocks)


def test_record_round_trip(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path, 1, "a", failures=2, launcher=this_process())
    assert lease is not None
    record = read_record(tmp_path, 1)
    assert record is not None
    assert asdict(record) == asdict(lease.record)
    assert (record.failures, record.launcher) == (2, this_process())
    lease.release("done")


def test_what_nobody_has_taken(tmp_path: Path) -> None:
    view = LeaseObserver(60.0).look(tmp_path)
    assert (view.generation, view.is_held, view.record, view.beat) == (0, False, None, {})


def test_the_beat_counts_up_by_itself(tmp_path: Path) -> None:
    beats = threading.Semaphore(0)
    lease = Lease.take(tmp_path, 1, "a", beat_seconds=0.01, on_beat=beats.release)
    assert lease is not None
    counts = []
    for _ in range(3):
        assert beats.acquire(timeout=10)
        counts.append(read_beat(tmp_path, 1)[1]["count"])
    lease.release("done")
    assert counts[0] >= 2
    assert sorted(set(counts)) == counts, "an observer takes a count that stands still for a dead owner"


def test_release_waits_for_the_beat_that_is_under_way(tmp_path: Path) -> None:
    begun, is_over = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        is_over.wait(0.2)
        is_over.set()

    lease = Lease.take(tmp_path, 1, "a", beat_seconds=0.01, on_beat=slow)
    assert lease is not None
    assert begun.wait(10)
    lease.release("done")
    assert is_over.is_set(), "else a beat after it would take the outcome away"
    assert not lease._thread.is_alive()


def test_what_was_saved_shows_whether_an_attempt_got_further(tmp_path: Path) -> None:
    assert saved_mark(tmp_path) == ""
    marks = [""]
    for name in ("resume/step-1/state.json", "a.documents.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
        marks.append(saved_mark(tmp_path))
    os.utime(tmp_path / "resume/step-1/state.json", (1, 1))
    marks.append(saved_mark(tmp_path))
    assert len(set(marks)) == len(marks)
    assert saved_mark(tmp_path) == marks[-1]


@pytest.mark.parametrize(
    ("field", "value"), [("owner", "me"), ("failures", -1), ("failures", "many"), ("generation", 7), ("launcher", {})]
)
def test_a_record_that_was_edited_is_no_record(tmp_path: Path, field: str, value: object) -> None:
    lease = Lease.take(tmp_path, 1, "a")
    assert lease is not None
    lease.release("stopped")
    path = tmp_path / "lease/1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    assert read_record(tmp_path, 1) is None
    assert not LeaseObserver(60.0).look(tmp_path).is_held


def test_a_beat_shows_nothing_that_is_not_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    odd = {"loss": "x", "step": -1, "lr": 1e300, "phase": "[red]", "outcome": 5, "seconds": True, "tokens": 7}
    (tmp_path / "lease/1.beat").write_text(json.dumps(odd))
    assert read_beat(tmp_path, 1)[1] == {"tokens": 7}
    (tmp_path / "lease/1.beat").write_text("[" * 5000)
    assert read_beat(tmp_path, 1)[1] == {}


def test_attempts_are_those_whose_files_are_there(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    for name in ("3.json", "999999999999.json", "²3.json", "-1.json", "x.json", "12.beat"):
        (tmp_path / "lease" / name).write_text("")
    assert generations(tmp_path) == [3, 999999999999]


def test_beats_leave_no_file_open(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path, 1, "a", beat_seconds=1e9)
    assert lease is not None
    before = psutil.Process().num_fds()
    for _ in range(20):
        lease._write_beat(None)
    assert psutil.Process().num_fds() < before + 10
    lease.release("done")
