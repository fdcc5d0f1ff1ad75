"""The file of a task of the user's own: a few settings in YAML, and the data beside it. Nothing in it is executed."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from indelible.errors import UserError
from indelible.files import printable
from indelible.records.task_examples import TaskKind
from indelible.strict import Count, Strict
from indelible.study.validation import nearest, problems_of
from indelible.study.yaml_reader import read_mapping

MAX_BYTES = 1_000_000  # of a task file
MAX_DATA_BYTES = 256_000_000  # of its data: the examples are held in memory
_COLUMN = re.compile(r"\{([A-Za-z_][\w .-]*)\}")
_CODE = ("{{", "{%", "{#")


def _columns(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class TaskFile(Strict):
    """What a task file says."""

    kind: TaskKind  # which choice is the likeliest, or whether what is generated is the answer
    data: str  # JSON lines, beside this file or below its folder
    prompt: str = Field(min_length=1)  # text with columns in braces: "Question: {question}\nAnswer:"
    choices: Annotated[str | tuple[str, ...] | None, BeforeValidator(_columns)] = None  # of a multiple choice: the
    # column that lists them, or a column for each
    answer: str = "answer"  # column: the right choice (its number from 0, or its text), or the text to be generated
    separator: str = Field(default=" ", max_length=100)  # between the prompt and an answer
    shots: str | None = None  # a file like `data`, of solved examples
    few_shot: int = Field(default=0, ge=0, le=1_000)  # of them, the first ones, in front of every prompt
    limit: Count | None = Field(default=None, gt=0)  # examples, the first ones; null = all
    length_normalised: bool = False  # rank choices by log-probability a character: lm-eval's acc_norm
    ignore_case: bool = False  # of an exact match
    max_new_tokens: int = Field(default=32, gt=0, le=100_000)  # of an exact match

    @property
    def prompt_columns(self) -> list[str]:
        """The columns that the prompt names."""
        return list(dict.fromkeys(_COLUMN.findall(self.prompt)))

    def filled(self, values: dict[str, str]) -> str:
        """The prompt of a record, by column. What a value holds is text, also where it looks like a column."""
        return _COLUMN.sub(lambda found: values[found[1]], self.prompt)

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> "TaskFile":
        is_choice = self.kind == "multiple_choice"
        if code := next((mark for mark in _CODE if mark in self.prompt), None):
            raise ValueError(
                f"prompt holds {code!r}: this is no template language, and nothing in it is executed; name a column in "
                "single braces, e.g. {question}"
            )
        if not self.prompt_columns:
            raise ValueError("prompt names no column, so that all examples would be one; write e.g. {question}")
        if self.prompt[-1].isspace() and self.separator[:1].isspace():
            raise ValueError(
                "prompt ends in a blank, and the separator is one too: an answer would follow two of them; leave the "
                'blank out of the prompt, or set separator: ""'
            )
        if is_choice and self.choices is None:
            raise ValueError("choices is missing: name the column that lists them, or a list of columns")
        if isinstance(self.choices, tuple) and (len(self.choices) < 2 or len({*self.choices}) < len(self.choices)):
            raise ValueError("choices: expected one column that lists them, or two or more different columns")
        wrong = ("ignore_case", "max_new_tokens") if is_choice else ("choices", "length_normalised")
        if told := [name for name in wrong if name in self.model_fields_set]:
            raise ValueError(f"{', '.join(told)}: not for kind: {self.kind}; leave {'them' if told[1:] else 'it'} out")
        if self.few_shot and self.shots is None:
            raise ValueError(
                f"few_shot = {self.few_shot} needs shots: a file of solved examples that are not in data; put the "
                "first lines of your data into one of its own"
            )
        return self


def read_task_file(path: Path) -> TaskFile:
    """The settings in a task file.

    Raises:
        UserError: it cannot be read, is no YAML, or says something that no task has.
    """
    where = printable(str(path))
    try:
        with open(path, "rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            f"task file {where}: cannot be read ({reason}); docs/tasks.md shows what one looks like."
        ) from None
    if len(data) > MAX_BYTES:
        raise UserError(f"task file {where}: more than {MAX_BYTES:,} bytes; the examples belong into its `data` file.")
    raw = read_mapping(data, f"task file {where}")
    if unknown := [key for key in raw if key not in TaskFile.model_fields]:
        known = ", ".join(TaskFile.model_fields)
        hint = nearest(unknown[0], TaskFile.model_fields)
        raise UserError(
            f"task file {where}: {unknown[0]}: unknown key{hint}; known here: {known}. A task file is not lm-eval's "
            "YAML: no functions, templates or data sets are taken from it (docs/tasks.md)."
        )
    try:
        return TaskFile.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"task file {where}: {'; '.join(problems_of(error, raw))}.") from None


def data_path(task_file: Path, name: str, key: str) -> Path:
    """The file that a task file names, which must lie in the folder of the task file or below it.

    Args:
        task_file: that names it.
        name: what stands there.
        key: under which.

    Raises:
        UserError: it lies elsewhere, also by way of a link, or is no file.
    """
    where = f"task file {printable(str(task_file))}: {key} = {printable(repr(name))}"
    home = task_file.resolve().parent
    try:
        found = (home / name).resolve()
        is_inside, is_file = found.is_relative_to(home), found.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: no path of a file ({error}).") from None
    if not is_inside or Path(name).is_absolute():
        raise UserError(f"{where}: lies outside of {home}; put the data beside the task file, and name it from there.")
    if not is_file:
        raise UserError(f"{where}: there is no such file in {home}.")
    if found.stat().st_size > MAX_DATA_BYTES:
        raise UserError(f"{where}: larger than {MAX_DATA_BYTES:,} bytes; give a task fewer examples.")
    return found
