"""The page of the commands: from the functions behind them, so that it depends on no version of the library."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

import typer
from page_text import cell, table
from typer.models import OptionInfo

from indelible.cli.main import build_app


def commands_page() -> str:
    """Every command with its arguments and options."""
    text = [
        "# Commands\n",
        "Exit codes: 0 done, 1 some run failed, 2 the request was wrong (one message). `audit` adds 3 (not durable) "
        "and 4 (cannot tell).\n",
    ]

    def walk(app: typer.Typer, prefix: str) -> None:
        for command in app.registered_commands:
            name = command.name or command.callback.__name__.replace("_", "-")
            text.append(command_text(f"{prefix} {name}", command.callback))
        for group in app.registered_groups:
            walk(group.typer_instance, f"{prefix} {group.name}")

    walk(build_app(), "indelible")
    return "\n".join(text)


def command_text(name: str, callback: Callable[..., Any]) -> str:
    """One command, from the function behind it."""
    hints = typing.get_type_hints(callback, include_extras=True)
    rows, usage = [], [name]
    for key, parameter in inspect.signature(callback).parameters.items():
        kind, info = typing.get_args(hints[key])
        is_option = isinstance(info, OptionInfo)
        has_default = parameter.default is not parameter.empty
        shown = info.metavar or key.upper()
        if not is_option:
            usage.append(f"[{shown}]" if has_default else shown)
        said = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str) and one[:1] == "-"]
        named = ", ".join(f"`{one}`" for one in said or [f"--{key.replace('_', '-')}"])
        default = parameter.default if has_default else None
        rows.append(
            (
                named if is_option else f"`{cell(shown)}`",
                "" if kind is bool else value_words(kind) + (f" ({shown})" if is_option and info.metavar else ""),
                f"`{default}`" if default not in (None, False, "") else "",
                cell(info.help or ""),
            )
        )
    heading = f"## {name.removeprefix('indelible ')}\n\n{inspect.getdoc(callback)}\n\n`{' '.join(usage)}`\n"
    return f"{heading}\n{table(('argument or option', 'value', 'default', 'meaning'), rows)}"


def value_words(kind: Any) -> str:
    """The type of an argument in words."""
    arguments = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is list:
        return f"{value_words(arguments[0])}, may be repeated"
    if arguments:
        return value_words(arguments[0])
    return {"Path": "path", "str": "text", "int": "whole number", "float": "number"}[kind.__name__]
