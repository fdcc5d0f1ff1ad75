"""A task of the user's own as lm-eval is given it: every record of its data checked and written out as plain text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from indelible.corpora.local import json_records
from indelible.errors import UserError
from indelible.files import file_sha256
from indelible.records import TaskExample, TaskExamples
from indelible.study.identity import digest
from indelible.tasks.task_file import TaskFile, data_path, read_task_file

FORMAT = 1  # of what examples are made of records; raised when the same file gives other examples


def read_examples(name: str, path: Path) -> TaskExamples:
    """The examples of a task file.

    Args:
        name: of the task in the study.
        path: of its file.

    Raises:
        UserError: the file or its data cannot be read, a record lacks a column or holds no such value, or there are
            fewer examples than asked.
    """
    settings = read_task_file(path)
    files = {"data": data_path(path, settings.data, "data")}
    if settings.shots is not None:
        files["shots"] = data_path(path, settings.shots, "shots")
        if files["shots"] == files["data"]:
            raise UserError(f"task file {path}: shots and data are one file; an example must not stand in its prompt.")
    examples = _first(_examples(settings, files["data"]), settings.limit, "limit", files["data"])
    if not examples:
        raise UserError(f"{files['data']}: holds no example; a task needs at least one.")
    shots = _first(_examples(settings, files["shots"]), settings.few_shot, "few_shot", files["shots"]) if (
        "shots" in files) else []  # fmt: skip
    form = settings.model_dump(mode="json", exclude={"data", "shots"})
    content = digest({"format": FORMAT, "settings": form, **{key: file_sha256(file) for key, file in files.items()}})
    return TaskExamples(
        task=name,
        content=content,
        kind=settings.kind,
        separator=settings.separator,
        few_shot=settings.few_shot,
        length_normalised=settings.length_normalised,
        ignore_case=settings.ignore_case,
        max_new_tokens=settings.max_new_tokens,
        shots=tuple(shots),
        examples=tuple(examples),
    )


def _first(examples: Iterator[TaskExample], count: int | None, key: str, path: Path) -> list[TaskExample]:
    """The first examples; all of the file is checked."""
    found = list(examples)
    if count is not None and len(found) < count:
        raise UserError(f"{path}: holds {len(found):,} examples, and {key} = {count:,} of them are asked for.")
    return found[:count]


def _examples(settings: TaskFile, path: Path) -> Iterator[TaskExample]:
    choices = settings.choices
    listed = [choices] if isinstance(choices, str) else list(choices or ())
    columns = list(dict.fromkeys([*settings.prompt_columns, *listed, settings.answer]))
    try:
        for where, record in json_records(path, columns):
            for column in columns:
                if column not in record:
                    there = ", ".join(map(repr, record)) or "no columns"
                    raise UserError(
                        f"{where}: no column {column!r}; it has {there}. Name the columns in the task file: those in "
                        "braces in prompt, choices and answer."
                    )
            yield _example(settings, record, where)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def _example(settings: TaskFile, record: Mapping[str, Any], where: str) -> TaskExample:
    prompt = settings.filled({column: _text(record[column], column, where) for column in settings.prompt_columns})
    answer = record[settings.answer]
    if settings.kind == "exact_match":
        listed = answer if isinstance(answer, list) else [answer]
        if not listed:
            raise UserError(f"{where}: column {settings.answer!r} is an empty list; write at least one right answer.")
        accepted = tuple(_text(one, settings.answer, where) for one in listed)
        for one in accepted:
            if one != one.strip() or "\n" in one:
                raise UserError(
                    f"{where}: the answer {one[:60]!r} begins or ends in a blank or has a line break, which ends what "
                    "is generated: it could never match. Strip it."
                )
        return TaskExample(prompt=prompt, accepted=accepted)
    choices = _choices(settings, record, where)
    return TaskExample(prompt=prompt, choices=choices, answer=_right(settings, choices, answer, where))


def _choices(settings: TaskFile, record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if isinstance(settings.choices, str):
        column, found = settings.choices, record[settings.choices]
        if not isinstance(found, list) or len(found) < 2:
            raise UserError(f"{where}: column {column!r} must be a list of two or more choices, found {found!r:.60}.")
        choices = tuple(_text(one, column, where) for one in found)
    else:
        choices = tuple(_text(record[column], column, where) for column in settings.choices or ())
    if twice := sorted({one for one in choices if choices.count(one) > 1}):
        raise UserError(f"{where}: the choice {twice[0][:60]!r} stands twice; only one of two equal ones can be right.")
    return choices


def _right(settings: TaskFile, choices: tuple[str, ...], answer: Any, where: str) -> int:
    """The number of the right choice."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str):
        if answer in choices:
            return choices.index(answer)
        if isinstance(settings.choices, tuple) and answer in settings.choices:
            return settings.choices.index(answer)
    columns = ", or the name of its column" if isinstance(settings.choices, tuple) else ""
    raise UserError(
        f"{where}: column {settings.answer!r} = {answer!r:.60} names no choice; write the number of the right one, 0 "
        f"to {len(choices) - 1}, or its text{columns}."
    )


def _text(value: Any, column: str, where: str) -> str:
    """A value as text: what a person would read."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise UserError(f"{where}: column {column!r} = {value!r:.60}; expected text that is not empty, or a number.")
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: column {column!r} holds half a character (a lone surrogate); mend the text.") from (
            None)  # fmt: skip
    return text


def most_tokens(task: TaskExamples) -> int:
    """Tokens that a model reads for all examples, at most: a byte-level tokenizer needs one for each byte."""
    total = 0
    for one in task.examples:
        context = len(task.context(one).encode()) + len(task.separator)
        if task.kind == "exact_match":
            total += context + task.max_new_tokens
        else:
            total += sum(context + len(choice.encode()) for choice in one.choices)
    return total
