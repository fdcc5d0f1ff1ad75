"""The model card of an exported checkpoint: what it was trained on, from which model, and its losses. Imports no torch.

The head is YAML metadata in the hub's form (`huggingface_hub.ModelCardData`); the rest is for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible import __version__
from indelible.errors import UserError
from indelible.models.catalogue import CATALOGUE, CatalogueModel
from indelible.records import Evaluation, Plan, PlannedRun, StageResult, evaluation_path, run_dir
from indelible.study.identity import given_id, part_of


@dataclass(frozen=True)
class Step:
    """One stage run of a lineage."""

    run: PlannedRun
    result: StageResult
    evaluations: tuple[Evaluation, ...]  # by corpus


@dataclass(frozen=True)
class Lineage:
    """Where a checkpoint comes from, oldest stage first."""

    plan: Plan
    steps: tuple[Step, ...]
    start: str | None  # checkpoint id of the given checkpoint that the chain starts from
    start_dir: Path | None  # its folder

    @property
    def last(self) -> Step:
        """The stage that made the checkpoint."""
        return self.steps[-1]

    @property
    def catalogue(self) -> CatalogueModel | None:
        """The entry of the model catalogue that the chain starts from."""
        return next((model for model in CATALOGUE.values() if given_id(model.sha256) == self.start), None)

    @property
    def base_id(self) -> str | None:
        """Hub id of the published model that the chain starts from, as far as that is known."""
        if self.catalogue is not None:
            return self.catalogue.hub_id
        parts = self.start_dir.parts if self.start_dir is not None else ()
        held = next((part for part in parts if part.startswith("models--") and part.count("--") == 2), None)
        return held.removeprefix("models--").replace("--", "/") if held else None  # the hub client's cache


def read_lineage(folder: Path) -> Lineage:
    """The lineage of a finished stage run.

    Args:
        folder: of the stage run, ``<study folder>/runs/<run id>``.

    Raises:
        UserError: the run is not in its study's plan, is not finished, or has diverged.
    """
    out = folder.parents[1]
    plan = Plan.read(out / "plan.json")
    if plan is None:
        raise UserError(f"{out}: no plan.json; {folder} is not a stage run of a study folder.")
    runs = {run.id: run for run in plan.stage_runs}
    if folder.name not in runs:
        raise UserError(f"{folder.name} is not in the plan of {out}; give a run that the study's present plan has.")
    steps: list[Step] = []
    at: str | None = folder.name
    while at is not None:
        result = StageResult.read(run_dir(out, at) / "result.json")
        if result is None or result.status != "done":
            state = "is not finished" if result is None else "has diverged, so there is no checkpoint"
            raise UserError(f"{at} {state}; give a stage run that `indelible status {out}` counts as done.")
        paths = (evaluation_path(out, at, name) for name in plan.evaluations.get(at, {}))
        found = sorted((one for path in paths if (one := Evaluation.read(path))), key=lambda one: one.corpus)
        steps.insert(0, Step(runs[at], result, tuple(found)))
        at = runs[at].parent
    spec, place = steps[0].run.spec, out / "plan.json"
    has_start = part_of(spec, place, "init", of=(dict, type(None))) is not None
    start = given_id(part_of(spec, place, "init", "sha256", of=str)) if has_start else None
    return Lineage(plan, tuple(steps), start, Path(plan.given[start]) if start else None)


def model_card(lineage: Lineage, *, dtype: str, is_adapter: bool = False) -> str:
    """The text of README.md.

    Args:
        lineage: of the checkpoint.
        dtype: of the exported weights, fp32 or bf16.
        is_adapter: the folder holds adapters, not whole weights.
    """
    from huggingface_hub import ModelCardData

    last = lineage.last
    data = ModelCardData(**_metadata(lineage, is_adapter=is_adapter))
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {last.run.id}",
        f"{_what(lineage, is_adapter=is_adapter)} It was trained by indelible {__version__} in the study "
        f"`{lineage.plan.name}`{f' ({lineage.plan.description})' if lineage.plan.description else ''}.",
        "## Lineage",
        _lineage_table(lineage),
        "## Held-out losses",
        _loss_table(lineage.steps),
        "Nats per token on whole held-out documents that no stage trained on, evaluated in fp32; the standard error is "
        "clustered by document. One seed: it says nothing of how much another seed would differ.",
        "## Weights",
        _weights_text(lineage, dtype),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(lineage: Lineage, *, is_adapter: bool) -> dict[str, Any]:
    from huggingface_hub import EvalResult

    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Language modelling",
            dataset_type=one.corpus,
            dataset_name=f"{one.corpus}, held-out",
            metric_type="cross_entropy",
            metric_name="nats per token",
            metric_value=round(one.nats_per_token, 6),
        )
        for one in lineage.last.evaluations
        if one.nats_per_token is not None
    ]
    data: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["indelible", *(["lora"] if is_adapter else [])],
    }
    if results:
        data |= {"model_name": lineage.last.run.id, "eval_results": results}
    if lineage.catalogue is not None:
        data["license"] = lineage.catalogue.licence.lower()
    if lineage.base_id is not None:
        data |= {"base_model": lineage.base_id, "base_model_relation": "adapter" if is_adapter else "finetune"}
    return data


def _what(lineage: Lineage, *, is_adapter: bool) -> str:
    made = "LoRA adapters" if is_adapter else "A causal language model"
    stages = ", then ".join(step.run.stage for step in lineage.steps)
    if lineage.start is None:
        return f"{made}, trained from random weights through {stages}."
    return f"{made}, trained from {lineage.base_id or lineage.start} through {stages}."


def _lineage_table(lineage: Lineage) -> str:
    lines = ["| stage | run | seed | tokens by corpus | steps | peak lr | adapt | weights |", "|" + "---|" * 8]
    if lineage.start is not None:
        name = lineage.catalogue.name if lineage.catalogue else lineage.base_id or "a given checkpoint"
        lines.append(f"| start | {lineage.start} |  | {name} |  |  |  |  |")
    for step in lineage.steps:
        spec, result = step.run.spec, step.result
        tokens = ", ".join(f"{name} {count:,}" for name, count in result.tokens_seen.items())
        steps = f"{result.steps:,}" if result.best_step is None else f"{result.steps:,} (kept {result.best_step:,})"
        weights = (result.weights_sha256 or "")[:12]
        settings = f"{spec['training']['lr']:g} | {spec['adapt']['kind']} | {weights}"
        lines.append(f"| {step.run.stage} | {step.run.id} | {spec['seed']} | {tokens} | {steps} | {settings} |")
    return "\n".join(lines)


def _loss_table(steps: Sequence[Step]) -> str:
    lines = ["| after | corpus | nats per token | standard error | tokens (n) | documents |", "|" + "---|" * 6]
    for step in steps:
        for one in step.evaluations:
            loss = "not finite" if one.nats_per_token is None else f"{one.nats_per_token:.4f}"
            error = "" if one.standard_error is None else f"{one.standard_error:.4f}"
            lines.append(f"| {step.run.stage} | {one.corpus} | {loss} | {error} | {one.tokens:,} | {one.documents:,} |")
    return "\n".join(lines)


def _weights_text(lineage: Lineage, dtype: str) -> str:
    text = "As they were trained, fp32." if dtype == "fp32" else "Rounded to bf16; the losses above are those of fp32."
    if lineage.catalogue is not None:
        text += f" The chain started from `{lineage.catalogue.name}`. {lineage.catalogue.note}"
    return text
