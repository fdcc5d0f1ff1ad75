"""Evaluations of a checkpoint on tasks: its weights as for held-out losses, in fp32, and what lm-eval finds."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indelible.errors import UserError
from indelible.files import atomic_write
from indelible.records import Evaluation, TaskExamples, task_path
from indelible.study.stage_spec import TaskEvaluation
from indelible.tasks.own_tasks import lm_eval_version
from indelible.train.device import environment
from indelible.train.evaluate import EVAL_TOKENS
from indelible.train.job import EvaluationJob, Progress
from indelible.train.program import Program

MAX_BATCH = 64  # sequences a forward pass


def evaluate_on_tasks(
    program: Program,
    job: EvaluationJob,
    wanted: Mapping[str, TaskEvaluation],
    progress: Callable[[Progress], None],
    guard: Callable[[], None],
) -> None:
    """Makes evaluations on tasks, and writes each as soon as it is made: a task may take longer than a stage.

    Args:
        program: the checkpoint's model.
        job: whose evaluations they are.
        wanted: by evaluation id.
        progress: called before every forward pass; may raise to stop.
        guard: called before every write.

    Raises:
        UserError: lm-eval is not here, is of another version than planned, or the examples have gone.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer_dir, local_files_only=True, trust_remote_code=False)
    context = _context(program, tokenizer)
    for number, (name, spec) in enumerate(wanted.items()):
        begun = time.perf_counter()
        now = Progress(number, len(wanted), None, 0, 0.0, "evaluating")
        progress(now)
        _check_version(spec)
        answers = _answers(program, tokenizer, spec, job, context, lambda now=now: progress(now))  # type: ignore[misc]
        record = Evaluation(
            id=name,
            checkpoint=job.checkpoint,
            corpus=spec.task,
            status="done",
            nats_per_token=None,
            bits_per_byte=None,
            standard_error=None,
            tokens=0,
            documents=len(answers.correct),
            windows=0,
            accuracy=answers.accuracy,
            accuracy_se=answers.standard_error,
            metric=answers.metric,
            cut=answers.cut,
            seconds=round(time.perf_counter() - begun, 6),
            environment={**environment(program.device), "lm_eval": spec.lm_eval},
        )
        guard()
        with atomic_write(job.evaluations_dir / f"{name}.documents.parquet") as temporary:
            pq.write_table(pa.table({"document": answers.examples, "correct": answers.correct}), temporary,
                           compression="zstd")  # fmt: skip
        record.write(job.evaluations_dir / f"{name}.json")


def _answers(
    program: Program, tokenizer: Any, spec: TaskEvaluation, job: EvaluationJob, context: int, sign: Callable[[], None]
) -> Any:
    from indelible.tasks import harness

    examples = None if spec.own_name is not None else _examples(spec, job)
    was_training = program.model.training
    batch = max(1, min(MAX_BATCH, EVAL_TOKENS // context))
    try:
        with program.device.whole_fp32():
            return harness.answers(program.model.eval(), tokenizer, spec, examples, context, batch, sign)
    finally:
        program.model.train(was_training)


def _examples(spec: TaskEvaluation, job: EvaluationJob) -> TaskExamples:
    path: Path = task_path(job.tokens_dir.parent, spec.stored_name)
    found = TaskExamples.read(path)
    if found is None or found.content != spec.content:
        state = "has gone" if found is None else "holds another task"
        raise UserError(f"{path} {state}; `indelible run STUDY --out DIR` writes it again.")
    return found


def _check_version(spec: TaskEvaluation) -> None:
    found = lm_eval_version(f"evaluation.tasks.{spec.task}")
    if found != spec.lm_eval:
        raise UserError(
            f"evaluation.tasks.{spec.task}: planned with lm-eval {spec.lm_eval}, and {found} is here; two versions may "
            f"ask and count differently. Install lm-eval=={spec.lm_eval}, or run the study again with this one: only "
            "its tasks are evaluated anew."
        )


def _context(program: Program, tokenizer: Any) -> int:
    """Tokens that the model can read."""
    text = program.config.get_text_config(decoder=True)
    found = getattr(text, "max_position_embeddings", None)
    return int(found or min(tokenizer.model_max_length, EVAL_TOKENS))
