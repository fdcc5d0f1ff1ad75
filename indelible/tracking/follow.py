"""A process beside the launcher that sends as stage runs go on: a tracker that hangs or fails stops nothing.

The launcher starts it, holds its standard input open, and closes that when the launch is over; then it sends once more
and ends. It ends with its launcher, too, however that ends.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from indelible.errors import UserError
from indelible.records import TrackerName
from indelible.tracking.sending import Sender, Sent
from indelible.tracking.trackers import check_tracker, tracker_folder

INTERVAL_SECONDS = 15.0  # between two looks, and at least four times as long as the last one took
LAST_SECONDS = 60.0  # given to the last pass, when all training is over
_NICE = 10  # the workers come first


class Follower:
    """The process beside the launcher."""

    def __init__(self, root: Path, name: TrackerName) -> None:
        """Starts it.

        Args:
            root: folder of the study run, with its plan.
            name: of the tracker.
        """
        self._root, self._name = root, name
        self.log = tracker_folder(root, name) / "log.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "indelible.tracking.follow", str(root), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the launcher, which tells it
            )

    def finish(self, seconds: float = LAST_SECONDS) -> Sent:
        """Lets it send what is left, and says what became of it; ends it when that takes too long.

        Args:
            seconds: how long to wait.
        """
        try:
            answer, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._end()
            return Sender(self._root, self._name).unsent(f"no answer within {seconds:.0f} s")
        except BaseException:
            self._end()
            raise
        try:
            return Sent(**json.loads(answer))
        except (ValueError, TypeError):
            code = self._process.returncode
            return Sender(self._root, self._name).unsent(f"its process ended with code {code}; see {self.log}")

    def _end(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=5)


def follow(root: Path, name: TrackerName, interval: float = INTERVAL_SECONDS) -> Sent:
    """Sends again and again until standard input is closed, then once more.

    Args:
        root: folder of the study run.
        name: of the tracker.
        interval: seconds between two passes.
    """
    sender, total = Sender(root, name), Sent()
    is_over = False
    while True:
        began = time.monotonic()
        total += sender.send()
        if is_over:
            sender.close()
            return total
        is_over = _is_closed(max(interval, 4 * (time.monotonic() - began)))


def _is_closed(seconds: float) -> bool:
    """Waits, at most so long; True when the launcher has closed the pipe, or has gone."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and os.read(0, 1) == b""


def main() -> None:
    """Arguments: folder, tracker. The last line of standard output is what was sent, as JSON."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print is for the log
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    try:
        sent = follow(Path(sys.argv[1]), check_tracker(sys.argv[2]))
    except (UserError, OSError) as error:
        sent = Sender(Path(sys.argv[1]), sys.argv[2]).unsent(str(error))  # type: ignore[arg-type]
    os.write(answer, json.dumps(asdict(sent)).encode())
    os._exit(0)  # threads of libraries that still wait for a network are not waited for


if __name__ == "__main__":
    main()
