"""A limit on the time of what others wrote and this process runs: a chat template that loops for ever must end.

Python cannot be interrupted from within, and signals reach the main thread alone. One thread looks twice a second
whether a limit has passed and raises in the thread that set it; between looks it costs nothing.
"""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.5


class TooSlow(Exception):
    """The limit has passed."""


class _Watch:
    """The thread, the limits by the thread that set them, and those that have passed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: dict[int, float] = {}
        self.passed: set[int] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread where there is none: not yet, or not in this process, which was forked."""
        if self._thread is None or not self._thread.is_alive():
            self.lock, self.passed = threading.Lock(), set()
            self._thread = threading.Thread(target=self._look, name="time limit", daemon=True)
            self._thread.start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with self.lock:
                for thread, end in self.ends.items():
                    if time.monotonic() > end and thread not in self.passed:
                        self.passed.add(thread)
                        _raise_in(thread, TooSlow)


_WATCH = _Watch()


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raises in a thread at its next step of Python; None takes back what was not raised yet."""
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """What runs longer than ``seconds`` by the clock ends in `TooSlow`; limits are not set inside one another.

    Raises:
        TooSlow: it did.
    """
    thread = threading.get_ident()
    _WATCH.start()
    with _WATCH.lock:
        _WATCH.ends[thread] = time.monotonic() + seconds
    try:
        yield
    finally:
        with _WATCH.lock:
            _WATCH.ends.pop(thread, None)
            if thread in _WATCH.passed:  # raised, or about to be: no later step may be hit by it
                _WATCH.passed.discard(thread)
                _raise_in(thread, None)
