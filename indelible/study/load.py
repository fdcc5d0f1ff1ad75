"""A study by file or by shipped name: read, expanded into arms, validated, all problems in one message."""

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from indelible.errors import UserError
from indelible.files import printable
from indelible.study.arm import ArmSpec
from indelible.study.checks import empty_sections_left_out, same_arm_problems, same_value_problems
from indelible.study.corpus_spec import DataSpec, default_corpora
from indelible.study.execution import ExecutionSpec
from indelible.study.grid import apply_overrides, expand, load_scale, merged, with_scale
from indelible.study.inference import InferenceSpec
from indelible.study.paper_form import ROLES, SHORT_STAGES, general_form
from indelible.study.seeds import Seeds, parse_seeds, seed_problems
from indelible.study.validation import validate_arm, validate_section
from indelible.study.yaml_reader import read_mapping


@dataclass(frozen=True)
class Study:
    """A validated study: its arms, its seeds and how it is to be executed."""

    name: str
    description: str
    scale: str
    seeds: Seeds
    arms: tuple[ArmSpec, ...]
    execution: ExecutionSpec
    inference: InferenceSpec
    raw: dict[str, Any]  # the file with every override applied, as it is written to study.yaml

    @property
    def data(self) -> DataSpec:
        """The corpora that some stage trains on, the tokenizer and the split, which all arms share."""
        used = sorted({corpus for arm in self.arms for corpus in arm.trained_corpora})
        return self._data_of(used)

    @property
    def evaluation_corpora(self) -> tuple[str, ...]:
        """Corpora that are only evaluated on: they change no token of the others, and so train nothing again."""
        trained = set(self.data.corpora)
        watched = {
            corpus
            for arm in self.arms
            for stage in arm.stages.values()
            if stage.watch is not None
            for corpus in stage.watch.corpora or ()
        }
        asked = watched | {corpus for arm in self.arms for corpus in arm.evaluation.corpora}
        return tuple(sorted(asked - trained))

    def evaluation_data(self, corpus: str) -> DataSpec:
        """What decides the tokens of one corpus that is only evaluated on."""
        return self._data_of([corpus])

    def _data_of(self, corpora: list[str]) -> DataSpec:
        first = self.arms[0]
        everywhere = {name: spec for arm in self.arms for name, spec in arm.corpora.items()}  # the same in all arms
        general = {next(iter(arm.stages.values())).corpus for arm in self.arms}
        return DataSpec(
            corpora={name: everywhere[name] for name in corpora},
            tokenizer=first.tokenizer,
            split=first.data.split,
            pre_corpora=tuple(sorted(general & set(corpora))),
            leaks=first.data.leaks,
        )


def shipped_studies() -> dict[str, Traversable]:
    """Shipped study files by name; those in subfolders are named by their file name alone."""
    found: dict[str, Traversable] = {}

    def walk(folder: Traversable) -> None:
        for entry in sorted(folder.iterdir(), key=lambda item: item.name):
            if entry.is_dir():
                walk(entry)
            elif entry.name.endswith(".yaml"):
                found[entry.name.removesuffix(".yaml")] = entry

    walk(resources.files("indelible") / "studies")
    return found


def read_study_file(reference: str) -> dict[str, Any]:
    """The raw mapping of a study file or of a shipped study.

    Raises:
        UserError: no such file or name, or it is not a YAML mapping.
    """
    path = Path(reference)
    shipped = shipped_studies()
    # A folder of a shipped study's name, such as what `--out paper` made, does not hide the study.
    try:
        if path.is_file():
            return read_mapping(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:  # not to be read, or no name of a file at all
        if isinstance(error, UserError):
            raise
        raise UserError(f"{printable(reference)}: the study file cannot be read ({error}).") from None
    if reference in shipped:
        return read_mapping(shipped[reference].read_bytes(), f"shipped study {reference}")
    known = f"the shipped studies are {', '.join(shipped)}"
    if path.suffix in (".yaml", ".yml"):
        what = "no regular file (a folder, pipe or device)" if path.exists() else "no such study file"
        raise UserError(f"{printable(reference)}: {what}; give a YAML file, or the name of a shipped study; {known}.")
    raise UserError(f"{printable(repr(reference))} is neither a study file nor a shipped study; {known}.")


def load_study(reference: str, overrides: list[str] | None = None) -> Study:
    """Reads, expands and validates a study.

    Args:
        reference: path of a YAML file or name of a shipped study.
        overrides: ``path.to.field=value`` strings, applied in order.

    Raises:
        UserError: with every problem found, each with its path.
    """
    raw = apply_overrides(read_study_file(reference), overrides or [])
    return resolve_study(raw, where=reference)


def resolve_study(raw: dict[str, Any], where: str = "study") -> Study:
    """Expands and validates a raw study; see `load_study`."""
    raw = empty_sections_left_out(raw)
    problems: dict[str, None] = dict.fromkeys(same_value_problems(raw))  # a set that keeps its order
    arms: list[ArmSpec] = []
    written_out = set(raw.get("stages") or {}) if isinstance(raw.get("stages"), dict) else set()
    points = list(expand(raw))
    trees, found = _general_trees(points)
    problems.update(dict.fromkeys(found))
    for tree in trees:
        arm, found = validate_arm(tree)
        problems.update(dict.fromkeys(_as_written(one, written_out) for one in found))
        if arm is not None:
            arms.append(arm)
    execution, found = validate_section(raw, "execution", ExecutionSpec)
    problems.update(dict.fromkeys(found))
    inference, found = validate_section(raw, "inference", InferenceSpec)
    problems.update(dict.fromkeys(found))
    stages = [name for tree in trees for name in tree["stages"]]
    if stages or not isinstance(raw.get("seeds"), dict):  # whose stages are not known while the rest is wrong
        problems.update(dict.fromkeys(seed_problems(raw.get("seeds"), stages)))
    if not problems:
        problems.update(dict.fromkeys(_common_problems(arms) + same_arm_problems(points, arms)))
    if problems or execution is None or inference is None:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{where}: {len(problems)} problem{'s' * (len(problems) > 1)}\n{listing}")
    return Study(
        name=arms[0].name,
        description=str(raw.get("description", "")),
        scale=arms[0].scale,
        seeds=parse_seeds(raw["seeds"]),
        arms=tuple(arms),
        execution=execution,
        inference=inference,
        raw=raw,
    )


def _general_trees(points: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every grid point as `ArmSpec` reads it, and what is wrong with the others."""
    trees, problems = [], []
    for point in points:
        tree, found = general_form(with_scale(point))
        found = found or _unread_sections(point, tree["stages"])
        problems += found
        if not found:
            trees.append(tree)
    given = next((tokenizer for tree in trees if (tokenizer := _given_tokenizer(tree))), None)
    return [_with_default_corpora(_with_tokenizer(tree, given)) for tree in trees], problems


def _unread_sections(point: dict[str, Any], stages: dict[str, Any]) -> list[str]:
    """Sections of stages that the chain has not: nobody would read them."""
    return [
        f"{name}: this study has no stage of that name; its stages are {', '.join(stages)}"
        for name in SHORT_STAGES
        if name in point and name not in stages
    ]


def _as_written(problem: str, written_out: set[str]) -> str:
    """A problem of the general form under the path that the short form has for it."""
    head, _, rest = problem.partition(".")
    name, _, field = rest.partition(".")
    if head != "stages" or name not in SHORT_STAGES or name in written_out:
        return problem
    if field.startswith("corpus"):
        return f"pipeline.{ROLES[name]}{field.removeprefix('corpus')}"
    if field.startswith("adapt."):
        return f"{name}.lora.{field.removeprefix('adapt.')}"
    return rest


def _given_tokenizer(tree: dict[str, Any]) -> dict[str, Any] | None:
    """The tokenizer that comes with the given checkpoint of a grid point."""
    given = [stage["init"] for stage in tree["stages"].values() if stage.get("init")]
    if not given or not isinstance(given[-1], dict) or not isinstance(given[-1].get("from"), str):
        return None
    revision = {"revision": given[-1]["revision"]} if given[-1].get("revision") else {}
    return {"kind": "hf", "path": given[-1]["from"], **revision}


def _with_tokenizer(tree: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Gives a grid point the tokenizer of the study's first given checkpoint, unless the study names one.

    The scale's own tokenizer does not count: it would cut the text into other tokens than the checkpoint knows. All
    arms read the same tokens; that every given checkpoint knows them is checked before the first step.
    """
    if given is None or tree.get("tokenizer") != load_scale(str(tree["scale"])).get("tokenizer"):
        return tree
    return {**tree, "tokenizer": given}


def _with_default_corpora(tree: dict[str, Any]) -> dict[str, Any]:
    """Adds the offline corpora that stages, mixes and evaluations name and the study does not declare."""
    named: list[Any] = []
    for stage in tree["stages"].values():
        named.append(stage.get("corpus"))
        mix = stage.get("mix")
        named += [entry.get("corpus") for entry in mix if isinstance(entry, dict)] if isinstance(mix, list) else []
        watch = stage.get("watch")
        named += (watch.get("corpora") or []) if isinstance(watch, dict) else []
    evaluation = tree.get("evaluation")
    named += (evaluation.get("corpora") or []) if isinstance(evaluation, dict) else []
    offline = {
        name: spec.model_dump() for name, spec in default_corpora([n for n in named if isinstance(n, str)]).items()
    }
    declared = tree.get("corpora")
    if declared is not None and not isinstance(declared, dict):
        return tree  # validation says what is wrong with it
    return {**tree, "corpora": merged(offline, declared or {})}


def _common_problems(arms: list[ArmSpec]) -> list[str]:
    """What the arms of one study must share, so that one token store serves them all."""
    problems = []
    first = arms[0]
    corpora: dict[str, Any] = {}
    for arm in arms:
        for name, spec in arm.corpora.items():
            if corpora.setdefault(name, spec) != spec:
                problems.append(f"corpora.{name}: differs between arms; give the variants names of their own")
        if arm.tokenizer != first.tokenizer or arm.data != first.data:
            problems.append("tokenizer and data must be the same in all arms of a study")
        if (
            arm.evaluation.windows != first.evaluation.windows
            or arm.evaluation.stop_windows != first.evaluation.stop_windows
        ):
            problems.append("evaluation.windows and stop_windows must be the same in all arms of a study")
        if arm.evaluation.tasks != first.evaluation.tasks:
            problems.append(
                "evaluation.tasks must be the same in all arms of a study; give variants names of their own"
            )
    evaluated = {
        name for arm in arms for name in (*arm.trained_corpora, *arm.evaluation.corpora, *arm.evaluation.tasks)
    }
    for arm in arms:
        for name, view in arm.views.items():
            if view.corpus not in arm.stages and view.corpus not in evaluated:
                problems.append(
                    f"views.{name}.corpus = {view.corpus!r}: no stage trains on it and it is not evaluated, so the "
                    f"loss would stay empty; add it to evaluation.corpora, or use {', '.join(sorted(evaluated))}"
                )
    return list(dict.fromkeys(problems))


def resolved_arms(study: Study) -> str:
    """Every setting of every arm, defaults and scale filled in, as YAML: one document an arm."""
    documents = [arm.model_dump(mode="json", by_alias=True) for arm in study.arms]
    text = []
    for number, document in enumerate(documents, 1):
        head = f"# arm {number} of {len(documents)} of {study.name}; seeds {study.seeds}\n"
        text.append(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
    return "---\n".join(text)
