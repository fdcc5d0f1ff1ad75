"""The tasks of a study before its first step: read and checked without training, then written into its folder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.records import TaskExamples, task_path
from indelible.study.graph import Graph
from indelible.study.identity import digest
from indelible.study.load import Study
from indelible.study.stage_spec import TaskEvaluation
from indelible.study.task_spec import TaskSpec
from indelible.tasks.examples import most_tokens, read_examples
from indelible.tasks.own_tasks import lm_eval_version, own_task_file


@dataclass(frozen=True)
class StudyTasks:
    """The tasks of a study."""

    specs: tuple[TaskEvaluation, ...] = ()
    examples: dict[str, TaskExamples] = field(default_factory=dict)  # of the user's own, by name


NO_TASKS = StudyTasks()


def study_tasks(study: Study, tokenizer: str) -> StudyTasks:
    """Reads the task files of a study and looks up the names of lm-eval's tasks; loads no data of those.

    Args:
        study: all its arms have the same tasks.
        tokenizer: folder name of the study's tokenizer.

    Raises:
        UserError: lm-eval is not installed, has no such task, or a task file is not sound.
    """
    specs, examples = [], {}
    for name, settings in study.arms[0].evaluation.tasks.items():
        version = lm_eval_version(f"evaluation.tasks.{name}")
        common = {"checkpoint": "", "task": name, "lm_eval": version, "tokenizer": tokenizer}
        if settings.file is not None:
            found = examples[name] = read_examples(name, Path(settings.file))
            own = {"own_name": None, "content": found.content, "few_shot": found.few_shot, "limit": None}
            specs.append(TaskEvaluation(**common, **own, metric=found.metric, tokens=most_tokens(found)))
        else:
            specs.append(TaskEvaluation(**common, **_of_own(name, settings)))
    return StudyTasks(tuple(specs), examples)


def _of_own(name: str, settings: TaskSpec) -> dict[str, Any]:
    own_name = settings.name or name
    own_task_file(own_name)
    said = {"own_name": own_name, **settings.model_dump(include={"few_shot", "limit", "metric"})}
    return {**said, "content": digest(said)}


def write_tasks(tasks: StudyTasks, graph: Graph, contexts: Mapping[str, int | None], out: Path) -> None:
    """Writes the examples of a study's own tasks into its folder, and loads the others once; tokens must be there.

    Args:
        tasks: of the study.
        graph: whose checkpoints are evaluated.
        contexts: tokens that each given checkpoint can read, by checkpoint id; None where it does not say.
        out: folder of the study run.

    Raises:
        UserError: an example is longer than what a model of the study can read, or a task of lm-eval's own cannot be
            loaded.
    """
    if not tasks.specs:
        return
    context = min(_contexts(graph, contexts), default=None)
    for spec in tasks.specs:
        if spec.own_name is not None:
            from indelible.tasks.harness import check_own_task  # lm-eval: seconds, and only for its own tasks

            check_own_task(spec)
            continue
        examples = tasks.examples[spec.task]
        if context is not None:
            check_lengths(examples, out / "tokens" / spec.tokenizer, context)
        path = task_path(out, spec.stored_name)
        if not path.exists():
            examples.write(path, indent=None)


def _contexts(graph: Graph, given: Mapping[str, int | None]) -> Iterator[int]:
    for chain in graph.chains:
        found = chain.arm.seq_len if chain.start is None else given.get(chain.start)
        if found is not None:
            yield found


def check_lengths(task: TaskExamples, tokenizer_dir: Path, context: int) -> None:
    """Checks that every example fits into what a model can read, its answer included.

    Raises:
        UserError: some do not; lm-eval would cut them from the left, question first.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    tokenizer.no_truncation()
    lengths = []
    for one in task.examples:
        before = task.context(one)
        texts = [f"{before}{task.separator}{choice}" for choice in one.choices] or [before]
        longest = max(len(found.ids) for found in tokenizer.encode_batch(texts))
        # the last token of a choice is not read
        lengths.append(longest - 1 if one.choices else longest + task.max_new_tokens)
    if too_long := [length for length in lengths if length > context]:
        raise UserError(
            f"evaluation.tasks.{task.task}: {len(too_long):,} of {len(lengths):,} examples are longer than the "
            f"{context:,} tokens that a model of this study can read, answer included; the longest has "
            f"{max(too_long):,}. Raise seq_len, or give the task shorter examples, fewer few_shot or a smaller "
            "max_new_tokens."
        )
