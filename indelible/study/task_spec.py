"""Tasks that every checkpoint of a study is evaluated on beside its corpora, as the study file names them."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from indelible.strict import Count, Strict
from indelible.study.corpus_spec import at_home

IM = "_im"  # ends the name of a task's accuracy at the hand-over, right after stage 2


class TaskSpec(Strict):
    """One task of a study: a file of one's own, or one that lm-eval brings."""

    file: Annotated[str | None, BeforeValidator(at_home)] = None  # a task file (docs/tasks.md); null = one of lm-eval
    name: str | None = None  # lm-eval's name of it; null = the name that the study gives it
    few_shot: int | None = Field(default=None, ge=0, le=1_000)  # solved examples in front; null = as the task says
    limit: Count | None = Field(default=None, gt=0)  # examples, the first ones; null = all
    metric: str | None = None  # e.g. acc_norm; null = acc or exact_match, whichever the task has

    @model_validator(mode="after")
    def _a_file_says_the_rest(self) -> "TaskSpec":
        named = [name for name in ("name", "few_shot", "limit", "metric") if getattr(self, name) is not None]
        if self.file is not None and named:
            raise ValueError(
                f"file and {', '.join(named)}: a task file says all of that itself; leave them out here, or leave out "
                "file for a task of lm-eval's own"
            )
        return self


def _path_as_file(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


Task = Annotated[TaskSpec, BeforeValidator(_path_as_file, json_schema_input_type=str | TaskSpec)]  # a path is a file


def check_task_names(tasks: Iterable[str], corpora: Iterable[str]) -> None:
    """Checks that the names of tasks can be names of columns and of files, and are no others' names.

    Args:
        tasks: the names.
        corpora: of the study; tables name what is measured by one column for both.

    Raises:
        ValueError: one cannot.
    """
    names = list(tasks)
    for name in names:
        where = f"evaluation.tasks.{name}"
        if not name.replace("_", "").isalnum() or not name.isascii():
            raise ValueError(f"{where}: use letters, digits and _ only (it becomes the name of a column)")
        for other in corpora:
            if name in (other, other + IM) or name + IM == other:
                raise ValueError(f"{where}: corpus {other!r} has this name in tables; name the task otherwise")
        if name.removesuffix(IM) in names and name.endswith(IM):
            raise ValueError(f"{where}: the accuracy of task {name.removesuffix(IM)!r} after stage 2 has this name in "
                             "tables; name one of the two otherwise")  # fmt: skip
