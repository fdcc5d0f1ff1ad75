"""Entry point of the `indelible` command."""

import errno
import importlib
import os
import sys
from typing import Annotated

import typer

from indelible import __version__
from indelible.cli.terminal import at_home, prepare_terminal, prepare_user
from indelible.errors import UserError
from indelible.files import printable

COMMANDS = {  # which module registers which commands; these modules import nothing that is slow before they are called
    "start_commands": ("init", "doctor", "schema"),
    "plan_commands": ("plan", "bench"),
    "study_commands": ("ledger", "studies"),
    "run_commands": ("run", "work", "reproduce", "status", "gc"),
    "track_commands": ("track",),
    "lineage_commands": ("show", "diff"),
    "results_commands": ("results", "report", "verdicts", "bundle"),
    "compare_command": ("compare",),
    "seeds_commands": ("seeds",),
    "corpora_commands": ("corpora",),
    "models_commands": ("models",),
    "export_commands": ("export",),
    "audit_commands": ("audit",),
    "theory_commands": ("theory",),
}


# what the system says of a name that no file can have there: too long, below a file, a folder where a file should be
_NO_SUCH_PLACE = (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP)


def build_app(command: str | None = None) -> typer.Typer:
    """The application with the commands of the module that has ``command``, or with all commands."""
    app = typer.Typer(
        name="indelible",
        help="Will this capability survive the next fine-tune, and what could have been done upstream?",
        no_args_is_help=True,
        invoke_without_command=True,
        add_completion=command is None or command.startswith("--"),
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)  # also keeps a single registered command a subcommand
    chosen = [module for module, names in COMMANDS.items() if command in names] or list(COMMANDS)
    for module in chosen:
        importlib.import_module(f"indelible.cli.{module}").register(app)
    return app


def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"indelible {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs a command. Exit codes: 0 done, 1 some run failed, 2 the request was wrong (one message, no traceback).

    `audit` adds 3 (not durable) and 4 (cannot tell).
    """
    prepare_terminal()
    prepare_user()
    sys.argv[1:] = map(at_home, sys.argv[1:])
    try:
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except UserError as error:
        print(f"indelible: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from indelible.scheduling.failures import is_disk_error

        if isinstance(error, OSError) and error.filename is not None and error.errno in _NO_SUCH_PLACE:
            place = printable(os.fsdecode(error.filename))
            print(f"indelible: {place[:300]}: {error.strerror}; give a place where a file can be.", file=sys.stderr)
            sys.exit(2)
        if not is_disk_error(error) and not isinstance(error, PermissionError):
            raise
        print(
            f"indelible: {error}: nothing can be written there. Free some space or make the folder writable and give "
            "the same command again (it continues), or choose another place (--out; INDELIBLE_CACHE for the cache).",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
