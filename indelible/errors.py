"""The one exception that users are meant to read, and what turns a library's into it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """The request was wrong: the command prints the message, without a traceback, and exits with code 2.

    The message says what is wrong, where, what was found, the rule, and the fix, e.g.
    ``pretrain.global_batch_size = 96 cannot be split into micro_batch_size 8 on 10 devices (80); use 80 or 160.``
    """


@contextmanager
def refusing(message: Callable[[str], str]) -> Iterator[None]:
    """Turns whatever a library raises on a file of the user's into a UserError.

    Args:
        message: makes the whole message of the first line of what the library says.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(message(lines[0] if lines else type(error).__name__)) from None
