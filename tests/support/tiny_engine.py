"""Stage runs of a planned study, run in this process one after the other."""

import json
from pathlib import Path
from typing import Any

from indelible import records
from indelible.records import Evaluation, Plan, PlannedRun, StageResult
from indelible.study.identity import given_id
from indelible.study.stage_spec import EvaluationSpec
from indelible.train.job import EvaluationJob, Progress, StageJob

TINY: dict[str, Any] = {
    "name": "tiny",
    "scale": "pico",
    "precision": "fp32",
    "seq_len": 32,
    "tokenizer": {"kind": "bpe", "vocab_size": 512},
    "corpora": {
        "pre": {"kind": "synthetic", "language": 1, "num_documents": 120, "document_words": 120, "num_words": 64},
        "post": {"kind": "synthetic", "language": 2, "num_documents": 120, "document_words": 120, "num_words": 64},
        "ft": {"kind": "synthetic", "language": 3, "num_documents": 120, "document_words": 120, "num_words": 64},
    },
    "data": {"leaks": {"near": False}, "split": {"heldout_fraction": 0.1}},
    "pipeline": {"pre": "pre", "post": "post", "ft": "ft"},
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
    "pretrain": {"tokens": 640, "global_batch_size": 4, "warmup_steps": 2},
    "posttrain": {"tokens": 320, "max_tokens": 1600, "global_batch_size": 4, "eval_interval": 2, "warmup_steps": 2},
    "finetune": {"tokens": 330, "global_batch_size": 4, "warmup_steps": 2},
    "evaluation": {"windows": 8, "stop_windows": 8},
    "execution": {"compile": "off", "threads": 1, "device": "cpu"},
    "seeds": [0],
}


def layered(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of ``base`` with ``over`` on top."""
    result = json.loads(json.dumps(base))
    for key, value in over.items():
        below = result.get(key) or {}
        same_kind = isinstance(value, dict) and value.get("kind", below.get("kind")) == below.get("kind")
        result[key] = layered(below, value) if same_kind else value
    return result


def plan_of(out: Path) -> Plan:
    """The plan of a study folder."""
    plan = Plan.read(out / "plan.json")
    assert plan is not None, f"{out} has no plan"
    return plan


def job_of(out: Path, run: PlannedRun, execution: dict[str, Any] | None = None) -> StageJob:
    """The job of one stage run of the plan, its evaluations included."""
    plan = plan_of(out)
    run_dir = records.run_dir(out, run.id)
    run_dir.mkdir(parents=True, exist_ok=True)
    if run.parent is not None:
        start = records.run_dir(out, run.parent) / "checkpoint"
    else:
        given = (run.spec["init"] or {}).get("sha256")
        start = Path(plan.given[given_id(given)]) if given else None
    return StageJob(
        run_dir=run_dir,
        run_id=run.id,
        stage=run.stage,
        spec=run.spec,
        start_dir=start,
        tokens_dir=out / "tokens",
        execution=plan.execution.model_copy(update=execution or {}),
        watch=run.watch,
        watch_stores=plan.stores,
        heldout=plan.heldout,
        evaluations_dir=out / "evaluations" / run.id,
        evaluations=evaluations_of(plan, run.id),
    )


def evaluation_job_of(out: Path, checkpoint: str, evaluations_dir: Path) -> EvaluationJob:
    """The job of all evaluations of a checkpoint, a run's or a given one, into a folder of one's own."""
    plan = plan_of(out)
    given = plan.given.get(checkpoint)
    return EvaluationJob(
        checkpoint=checkpoint,
        checkpoint_dir=Path(given) if given else records.run_dir(out, checkpoint) / "checkpoint",
        tokenizer_dir=out / "tokens" / plan.tokenizer,
        tokens_dir=out / "tokens",
        evaluations_dir=evaluations_dir,
        evaluations=evaluations_of(plan, checkpoint),
        execution=plan.execution,
    )


def evaluations_of(plan: Plan, checkpoint: str) -> dict[str, EvaluationSpec]:
    """The evaluations of a checkpoint by id."""
    wanted = plan.evaluations.get(checkpoint, {})
    return {name: plan.heldout[kind].model_copy(update={"checkpoint": checkpoint}) for name, kind in wanted.items()}


def runs_of(out: Path, stage: str | None = None) -> list[PlannedRun]:
    """Stage runs of the plan, parents first."""
    return [run for run in plan_of(out).stage_runs if stage in (None, run.stage)]


def result_of(out: Path, run_id: str) -> StageResult | None:
    """The result of a stage run, None if it has none yet."""
    return StageResult.read(records.run_dir(out, run_id) / "result.json")


def evaluated(out: Path, checkpoint: str) -> dict[str, Evaluation]:
    """The finished evaluations of a checkpoint by corpus; those of other windows than the plan's are left out."""
    found = {}
    for name in plan_of(out).evaluations.get(checkpoint, {}):
        one = Evaluation.read(records.evaluation_path(out, checkpoint, name))
        if one is not None:
            found[one.corpus] = one
    return found


def quiet(now: Progress) -> None:
    """Takes signs of life and does nothing."""


def run_all(out: Path, execution: dict[str, Any] | None = None, until: str = "") -> dict[str, StageResult]:
    """Runs what has no result yet; returns the results by stage (the last run of each stage).

    Args:
        out: the study folder.
        execution: fields of the execution settings, over those of the plan.
        until: stop when a run of this stage is done; empty = run everything.
    """
    from indelible.train.stage import run_stage

    results = {}
    for entry in runs_of(out):
        if result_of(out, entry.id) is None:
            run_stage(job_of(out, entry, execution), progress=quiet, guard=lambda: None)
        found = result_of(out, entry.id)
        assert found is not None
        results[entry.stage] = found
        if entry.stage == until:
            break
    return results


def losses_of(run_dir: Path, key: str = "train/loss") -> dict[int, float]:
    """The values of one key of metrics.jsonl by step."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def loop_of(out: Path, stage: str = "pretrain", execution: dict[str, Any] | None = None) -> Any:
    """The loop of a stage run, ready for its first step; nothing is trained yet."""
    from indelible.study.identity import without_tags
    from indelible.study.stage_spec import StageSpec
    from indelible.train import stage as engine
    from indelible.train.device import choose_device
    from indelible.train.distributed import World
    from indelible.train.loop import Loop
    from indelible.train.start import starting_program

    job = job_of(out, runs_of(out, stage)[0], execution)
    spec = StageSpec.model_validate(without_tags(job.spec))
    inputs = engine.open_inputs(spec, job)
    program = starting_program(job, spec, inputs.tokenizer_dir, choose_device(spec.precision, job.execution))
    return Loop(engine._context(job, inputs, program, quiet, lambda: None, World()))
