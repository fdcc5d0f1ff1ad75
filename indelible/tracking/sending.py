"""Sends what is new of every stage run of a folder, and notes what was sent. Calling it again sends nothing twice."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from indelible.data.folder_lock import folder_lock
from indelible.errors import UserError
from indelible.records import Plan, SentRun, TrackerName
from indelible.tracking.series import News, TrackedRun, news_of, tracked_runs
from indelible.tracking.trackers import Tracker, open_tracker, tracker_folder

_LONGEST_REASON = 300  # characters


@dataclass
class Sent:
    """What became of the points that were not sent yet."""

    runs: int = 0  # of which something was sent, each counted once by a sender, however often it sends
    points: int = 0  # numbers that were sent
    waiting: list[str] = field(default_factory=list)  # ids of stage runs of which something is left to be sent
    waiting_points: int = 0
    reason: str = ""  # why something is left; empty when all was sent

    def __add__(self, later: "Sent") -> "Sent":
        """Two passes, one after the other: what is left is what is left after the second."""
        return Sent(
            self.runs + later.runs,
            self.points + later.points,
            later.waiting,
            later.waiting_points,
            later.reason,
        )


class Sender:
    """Sends the runs of one folder to one tracker, as often as it is called."""

    def __init__(self, root: Path, name: TrackerName) -> None:
        self._root, self._name = root, name
        self._folder = tracker_folder(root, name)
        self._tracker: Tracker | None = None  # its library is not even imported while there is nothing to be sent
        self._is_down = False  # since a failure of this pass
        self._counted: set[str] = set()  # runs of which it sent something
        self._quiet: dict[str, tuple[int, ...]] = {}  # how the files of a run were when nothing was left to be sent

    def send(self) -> Sent:
        """One pass over all stage runs.

        After a first failure nothing more is tried in this pass: a tracker that is down would be waited for at each
        run. What is left is counted.

        Raises:
            UserError: there is no plan, or no note can be written.
        """
        plan = self._plan()
        self._folder.mkdir(parents=True, exist_ok=True)
        done, self._is_down = Sent(), False
        with folder_lock(self._folder / ".lock"):  # two launchers of one folder take turns
            for run in tracked_runs(plan):
                self._send_run(plan, run, done)
        return done

    def _send_run(self, plan: Plan, run: TrackedRun, done: Sent) -> None:
        stamp = self._stamp(plan, run.id)
        if not stamp or self._quiet.get(run.id) == stamp:
            return
        try:
            news = news_of(self._root, plan, run, self._before(run.id))
        except UserError as error:  # of this run's files alone
            done.reason = done.reason or str(error)
            done.waiting.append(run.id)
            return
        if not news.is_new:
            self._quiet[run.id] = stamp
        elif self._is_down:
            done.waiting.append(run.id)
            done.waiting_points += news.num_points
        elif self._is_sent(run, news, done):
            self._quiet[run.id] = stamp

    def _is_sent(self, run: TrackedRun, news: News, done: Sent) -> bool:
        """Sends what is new of a run, unless its tracker takes it only when it is over."""
        try:
            if not news.is_over and self._opened().ended_runs_only:
                return False
            self._opened().send(run, news.rows, news.end, is_first=not self._note(run.id).exists())
        except Exception as error:  # of a library that is not ours: nothing of it may end the launch
            self._is_down = True
            with suppress(Exception):
                self.close()
            done.reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
            done.waiting.append(run.id)
            done.waiting_points += news.num_points
            return False
        news.sent.write(self._note(run.id))
        done.runs += run.id not in self._counted
        self._counted.add(run.id)
        done.points += news.num_points
        return True

    def _plan(self) -> Plan:
        plan = Plan.read(self._root / "plan.json")
        if plan is None:
            raise UserError(f"{self._root}: no plan.json; give the folder that `indelible run STUDY --out DIR` wrote.")
        return plan

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._tracker = open_tracker(self._name, self._root)
        return self._tracker

    def _note(self, run_id: str) -> Path:
        return self._folder / run_id / "sent.json"

    def _before(self, run_id: str) -> SentRun:
        return SentRun.read(self._note(run_id)) or SentRun(id=run_id, tracker=self._name)

    def _stamp(self, plan: Plan, run_id: str) -> tuple[int, ...]:
        """Sizes and times of a run's files that are sent; empty when it has not begun."""
        evaluations = (*plan.evaluations.get(run_id, {}), *plan.task_evaluations.get(run_id, {}))
        names = [f"runs/{run_id}/metrics.jsonl", f"runs/{run_id}/result.json"]
        names += [f"evaluations/{run_id}/{name}.json" for name in evaluations]
        found: list[int] = []
        for number, name in enumerate(names):
            try:
                info = (self._root / name).stat()
            except OSError:
                continue
            found += [number, info.st_size, info.st_mtime_ns]
        return tuple(found)

    def close(self) -> None:
        """Nothing more will be sent."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close()

    def unsent(self, reason: str) -> Sent:
        """What is left to be sent, without sending it.

        Args:
            reason: why it was not sent.
        """
        self._is_down, self._quiet = True, {}
        plan, left = self._plan(), Sent()
        for run in tracked_runs(plan):
            self._send_run(plan, run, left)
        left.reason = reason if left.waiting else ""
        return left


def send_all(root: Path, name: TrackerName) -> Sent:
    """Sends everything that was not sent yet, once.

    Args:
        root: folder of a study run.
        name: as `check_tracker` gives it.

    Raises:
        UserError: there is no plan, or no note can be written.
    """
    sender = Sender(root, name)
    try:
        return sender.send()
    finally:
        sender.close()


def sent_text(name: str, sent: Sent) -> str:
    """In one line: what was sent."""
    if not sent.runs:
        return f"{name}: nothing was sent" if sent.reason else f"{name}: nothing new to send"
    return f"{name}: {sent.points:,} points of {sent.runs:,} stage run{'' if sent.runs == 1 else 's'} sent"


def unsent_text(name: str, root: Path, sent: Sent) -> str:
    """In one line: what was not sent, why, and what sends it; empty when all was sent."""
    if not sent.reason:
        return ""
    number = len(sent.waiting)
    what = f"{sent.waiting_points:,} points of {number:,} stage run{'' if number == 1 else 's'} not sent"
    return (
        f"{name}: {what} ({sent.reason}). No result misses anything; `indelible track {root} --to {name}` sends them."
    )
