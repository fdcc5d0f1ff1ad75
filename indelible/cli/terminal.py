"""What commands need of the terminal and of the environment before they start, whatever both can do."""

import getpass
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def console(**settings: Any) -> "Console":
    """A console that shows text as it is: names may hold ``[brackets]`` and ``:colons:``, which rich reads as style."""
    from rich.console import Console

    return Console(markup=False, emoji=False, **settings)


def counted(number: int, what: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def prepare_terminal() -> None:
    """Makes every text printable: what the terminal's encoding lacks is written as ``\\u03bb``.

    Child processes write to logs in UTF-8, whatever the terminal has.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # replaced by something that is no text stream
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if not _is_utf8(sys.stdout):
        os.environ["PYTHONIOENCODING"] = "utf-8:backslashreplace"


def at_home(argument: str) -> str:
    """An argument with ``~/`` as the home folder, where a shell leaves it as it is: quoted, or behind ``--out=``."""
    option, equals, path = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + os.path.expanduser(path) if path.startswith("~/") else argument


def prepare_user() -> None:
    """Gives a user without home folder or name, as containers have, those that libraries ask for.

    With INDELIBLE_CACHE the home is there; without it the commands that need a cache say so.
    """
    try:
        Path.home()
    except RuntimeError:
        if cache := os.environ.get("INDELIBLE_CACHE"):
            os.environ["HOME"] = str(Path(cache).absolute())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def _is_utf8(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf8")
