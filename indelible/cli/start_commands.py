"""`init`, `doctor` and `schema`: before the first study."""

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import JsonOption
from indelible.cli.terminal import console
from indelible.errors import UserError

_Seeds = Annotated[int, typer.Option(min=1, max=1_000, help="How many seeds; two give an interval.")]


def init(
    file: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.yaml"),
    pre: Annotated[str, typer.Option(help="Text of pretraining: file, folder or offline corpus.")] = "",
    post: Annotated[str, typer.Option(help="Text of the capability to be kept.")] = "",
    ft: Annotated[str, typer.Option(help="Text of the later fine-tune.")] = "",
    question: Annotated[str, typer.Option(help="exposure, how-much, replay or remedies.")] = "",
    scale: Annotated[str, typer.Option(help="pico, nano, 135m or 1b.")] = "pico",
    seeds: _Seeds = 2,
    text_column: Annotated[str | None, typer.Option(help="For files: the column that holds the text.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="For files: the column that holds the prompt.")] = None,
    completion_column: Annotated[str | None, typer.Option(help="For files: the column of the completion.")] = None,
) -> None:
    """Write a study file for your own data: looks at the text, fits the budgets, says what it costs."""
    from indelible.workflow.starting import QUESTIONS, ROLES

    if os.path.lexists(file):
        raise UserError(f"{file} exists already; give another name, or remove it.")
    given = {"pre": pre, "post": post, "ft": ft}
    targets = {
        role: given[role] or _ask(f"{text}: file, folder or offline corpus", role) for role, text in ROLES.items()
    }
    if not question:
        choices = "\n".join(f"  {name:9} {one.text}" for name, one in QUESTIONS.items())
        question = _ask(f"The question:\n{choices}\nquestion", "question", "exposure")
    if question not in QUESTIONS:
        raise UserError(f"--question {question!r}: choose one of {', '.join(QUESTIONS)}.")
    columns = {"text_column": text_column, "prompt_column": prompt_column, "completion_column": completion_column}
    _write(file, targets, question, scale, seeds, {key: value for key, value in columns.items() if value})


def _ask(text: str, flag: str, default: str | None = None) -> str:
    if not sys.stdin.isatty():
        if default is not None:
            return default
        shipped = "; `--pre general` takes text that is fetched for you" if flag == "pre" else ""
        raise UserError(f"--{flag} is missing: {text}{shipped}.")
    return str(typer.prompt(text, default=default))


def _write(
    file: Path,
    targets: dict[str, str],
    question: str,
    scale: str,
    seeds: int,
    columns: dict[str, str],
) -> None:
    from indelible.files import write_text
    from indelible.workflow.starting import write_study

    written = write_study(file, targets, question, scale, seeds, columns)
    write_text(file, written.text)
    print(f"{file}: {written.price}")
    for line in written.remarks:
        print(f"Note: {line}")
    name, out = (shlex.quote(text) for text in (str(file), f"runs/{file.stem}"))
    name = f"./{name}" if name.startswith("-") else name
    print(f"Next: indelible plan {name}   then   indelible run {name} --out {out}")


def doctor(as_json: JsonOption = False) -> None:
    """Say what this installation and this machine can do; for bug reports."""
    from indelible.workflow.doctor import examine

    facts = examine()
    if as_json:
        print(json.dumps([asdict(fact) for fact in facts], indent=1))
    else:
        marks = {"ok": "  ", "note": "! ", "bad": "x "}
        screen = console(soft_wrap=True)
        for fact in facts:
            screen.print(f"{marks[fact.state]}{fact.topic:10} {fact.text}" + (f"  -> {fact.fix}" if fact.fix else ""))
    if any(fact.state == "bad" for fact in facts):
        raise typer.Exit(1)


def schema() -> None:
    """Print the JSON Schema of study files: editors complete and check with it."""
    from indelible.workflow.schema import study_schema

    print(json.dumps(study_schema(), indent=1))


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    for command in (init, doctor, schema):
        app.command()(command)
