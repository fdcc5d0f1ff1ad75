"""lm-eval at work: a task of ours as its config, one of its own by name, and a model's answers to either.

The one module that imports lm_eval, inside its functions.
"""

import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indelible.errors import UserError
from indelible.records import TaskExamples
from indelible.records.task_examples import SHOT_END
from indelible.study.stage_spec import TaskEvaluation
from indelible.tasks.own_tasks import own_task_file

SEED = 1234  # of which solved examples lm-eval draws: its own default
_RANKED = ("acc", "exact_match")  # the measures that count as the accuracy, the first that a task has


@dataclass(frozen=True)
class Answers:
    """What a model did with the examples of a task."""

    metric: str  # as lm-eval names it
    examples: npt.NDArray[np.int64]  # (N,) their numbers in the task, rising
    correct: npt.NDArray[np.float64]  # (N,) 1 right, 0 wrong
    cut: int  # examples longer than the context, cut from the left

    @property
    def accuracy(self) -> float:
        """The share of the examples that are right."""
        return float(self.correct.mean())

    @property
    def standard_error(self) -> float | None:
        """Of `accuracy`, over examples, as lm-eval has it: sd / sqrt(n) with n - 1; None with fewer than two."""
        count = len(self.correct)
        return float(self.correct.std(ddof=1)) / math.sqrt(count) if count > 1 else None


def task_of_examples(task: TaskExamples) -> Any:
    """A task of the user's own as a task of lm-eval. Its columns are named, so that no text is taken for a template."""
    from lm_eval.api.task import ConfigurableTask

    is_choice = task.kind == "multiple_choice"
    metric: dict[str, Any] = {"metric": task.metric, "aggregation": "mean", "higher_is_better": True}
    config: dict[str, Any] = {
        "task": task.task,
        "custom_dataset": lambda **_: _dataset(task),
        "test_split": "test",
        "fewshot_split": "shots" if task.few_shot else "test",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": task.few_shot,
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "target_delimiter": task.separator,
        "fewshot_delimiter": SHOT_END,
    }
    if is_choice:
        config |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "metric_list": [metric]}
    else:
        config |= {
            "output_type": "generate_until",
            "metric_list": [metric | {"ignore_case": task.ignore_case}],
            "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": task.max_new_tokens},
            "filter_list": [
                {"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
            ],
        }
    return ConfigurableTask(config=config)


def _dataset(task: TaskExamples) -> dict[str, Any]:
    from datasets import Dataset

    is_choice = task.kind == "multiple_choice"
    splits = {"test": task.examples, "shots": task.shots}
    return {
        split: Dataset.from_list(
            [
                {"prompt": one.prompt, "answer": one.answer, "choices": list(one.choices)}
                if is_choice
                else {"prompt": one.prompt, "answer": list(one.accepted)}
                for one in examples
            ]
        )
        for split, examples in splits.items()
        if examples
    }


def own_task(spec: TaskEvaluation) -> Any:
    """One of lm-eval's own tasks, with its data: from the cache of `datasets`, else from the hub.

    Raises:
        UserError: its data cannot be had, it runs code that a model has written, or has no accuracy.
    """
    from lm_eval.tasks import TaskManager

    assert spec.own_name is not None
    where = f"evaluation.tasks.{spec.task}"
    try:
        loaded = TaskManager(include_defaults=False).load([str(own_task_file(spec.own_name))])
        (task,) = loaded["tasks"].values()
    except UserError:
        raise
    except Exception as error:  # of datasets, of the hub, of the task's own code
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{where}: lm-eval's task {spec.own_name!r} cannot be loaded ({reason}). Its data comes from the hub: load "
            "it once where there is a network, and bring the cache of datasets (HF_HOME) here."
        ) from None
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(f"{where}: {spec.own_name!r} runs code that the model has written, which is not done here.")
    if spec.few_shot is not None or task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=spec.few_shot or 0)
    _metric_of(task, spec)
    return task


def _metric_of(task: Any, spec: TaskEvaluation) -> str:
    """The measure whose mean is the accuracy; ``metric`` may name a filter too, as lm-eval prints it."""
    from lm_eval.api.metrics import mean

    means = [name for name, function in task.aggregation().items() if function is mean]
    wanted = (spec.metric or "").partition(",")[0]
    found = next((name for name in ([wanted] if wanted else _RANKED) if name in means), None)
    if found is None:
        named = f"metric = {spec.metric!r}" if spec.metric else f"none of {', '.join(_RANKED)}"
        raise UserError(
            f"evaluation.tasks.{spec.task}: {named} is a measure of lm-eval's task {spec.own_name!r} that is a mean "
            f"over examples; those are {', '.join(means) or 'none'}."
        )
    return found


def answers(
    model: Any,
    tokenizer: Any,
    spec: TaskEvaluation,
    examples: TaskExamples | None,
    context: int,
    batch: int,
    sign: Callable[[], None],
) -> Answers:
    """Evaluates a model on a task.

    Args:
        model: a transformers model on its device, in evaluation mode.
        tokenizer: of transformers.
        spec: the evaluation.
        examples: of a task of the user's own; None = one of lm-eval's.
        context: tokens that the model can read.
        batch: sequences a forward pass; always the same, so that the bits are.
        sign: called before every forward pass; may raise to stop.

    Raises:
        UserError: the task cannot be loaded, or the model cannot read it.
    """
    import torch
    from lm_eval.evaluator import evaluate

    with _as_before(torch), _quiet():
        task = own_task(spec) if examples is None else task_of_examples(examples)
        task.set_fewshot_seed(seed=SEED)
        lm = _model_class()(model, tokenizer, context, batch, sign)
        wanted = {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}}
        try:
            found = evaluate(lm, wanted, limit=spec.limit, bootstrap_iters=0, log_samples=True)
        except AssertionError as error:
            raise UserError(
                f"evaluation.tasks.{spec.task}: lm-eval cannot evaluate a model of {context} tokens on it ({error})."
            ) from None
        cut = len({one.doc_id for one in task.instances if lm.is_cut(one)})
        return _counted(found["samples"][task.task_name], _metric_of(task, spec), spec, cut)


def _counted(samples: list[dict[str, Any]], metric: str, spec: TaskEvaluation, cut: int) -> Answers:
    """What lm-eval has for each example, by the filter that the metric names, or by the first one."""
    filters, wanted = list(dict.fromkeys(one["filter"] for one in samples)), (spec.metric or "").partition(",")[2]
    if wanted and wanted not in filters:
        raise UserError(
            f"evaluation.tasks.{spec.task}: metric = {spec.metric!r}: the filters of {spec.own_name!r} are "
            f"{', '.join(filters)}."
        )
    chosen = [one for one in samples if one["filter"] == (wanted or filters[0]) and metric in one]
    chosen.sort(key=lambda one: one["doc_id"])
    return Answers(
        metric=metric,
        examples=np.array([one["doc_id"] for one in chosen], np.int64),
        correct=np.array([float(one[metric]) for one in chosen], np.float64),
        cut=cut,
    )


def _model_class() -> Any:
    """lm-eval's model over one of transformers, without its bars, and with signs of life."""
    from lm_eval.models.huggingface import HFLM

    class Model(HFLM):
        def __init__(self, model: Any, tokenizer: Any, context: int, batch: int, sign: Callable[[], None]) -> None:
            super().__init__(pretrained=model, tokenizer=tokenizer, max_length=context, batch_size=batch,
                             backend="causal")  # fmt: skip
            self._sign = sign

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

        def _model_call(self, *arguments: Any, **named: Any) -> Any:
            self._sign()
            return super()._model_call(*arguments, **named)

        def _model_generate(self, *arguments: Any, **named: Any) -> Any:
            self._sign()
            return super()._model_generate(*arguments, **named)

        def is_cut(self, instance: Any) -> bool:
            """Whether an example is longer than what the model can read."""
            context, rest = instance.args[0], instance.args[1] if len(instance.args) > 1 else ""
            if isinstance(rest, dict):
                room: int = self.max_length - rest.get("max_gen_toks", self.max_gen_toks)
                return len(self.tok_encode(context)) > room
            return sum(map(len, self._encode_pair(context, rest))) > self.max_length + 1

    return Model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval and transformers warn of what is meant here; errors are raised, not logged."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _as_before(torch: Any) -> Iterator[None]:
    """Random numbers inside are always the same, and those behind are what they would have been."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def check_own_task(spec: TaskEvaluation) -> None:
    """Loads one of lm-eval's own tasks, so that what is wrong with it is said before anything is trained."""
    with _quiet():
        own_task(spec)
