"""Feeds mutants to what reads them: whatever comes out must be a result or a message."""

import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from indelible.errors import UserError

COUNT = int(os.environ.get("FUZZ_MUTANTS", "100"))
MOST_SECONDS = float(os.environ.get("FUZZ_SECONDS", "inf"))  # of a kind; fewer mutants are tried where it ends before
PATIENCE_SECONDS = 30  # of one mutant; the slowest takes about one


@contextmanager
def in_time() -> Iterator[None]:
    """A mutant that keeps the process busy for ever is a fault as well."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done within {PATIENCE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def feed(inputs: Iterator[Any], take: Callable[[Any], object]) -> Counter[str]:
    """Gives every input to ``take``; fails with those that end in anything but a UserError with a message."""
    ends: Counter[str] = Counter()
    faults: dict[str, str] = {}  # by where they arose
    end = time.monotonic() + MOST_SECONDS
    for one in inputs:
        if time.monotonic() > end:
            break
        try:
            with in_time():
                take(one)
            ends["read"] += 1
        except UserError as error:
            ends["refused"] += 1
            if len(str(error)) < 20:
                faults[str(error)] = f"{one!r:.300}\n  says no more than {error}"
        except BaseException as error:
            ends["fault"] += 1
            faults[f"{type(error)} {traceback.format_exc(limit=-1)}"] = (
                f"{one!r:.300}\n{traceback.format_exc(limit=-6)}"
            )
    print(f"{sum(ends.values())} mutants: {dict(ends)}")
    assert not faults, f"{len(faults)} kinds of faults:\n" + "\n".join(list(faults.values())[:12])
    return ends


def expect_both(ends: Counter[str]) -> None:
    """Some mutants must be read and some refused, or the mutator misses what it is for."""
    assert ends["read"], "every mutant is refused: nothing behind the first check is tried"
    assert ends["refused"], "no mutant is refused: the mutator changes nothing that matters"
