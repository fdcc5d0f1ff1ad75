"""A study by file or by shipped name: read, expanded into arms, validated, all problems in one message."""

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from indelible.errors import UserError
from indelible.study.corpus_spec import DataSpec, default_corpora
from indelible.study.grid import apply_overrides, expand, merged, validate_arm, validate_execution, with_scale
from indelible.study.spec import ArmSpec, ExecutionSpec


@dataclass(frozen=True)
class Study:
    """A validated study: its arms, its seeds and how it is to be executed."""

    name: str
    description: str
    scale: str
    seeds: tuple[int, ...]
    arms: tuple[ArmSpec, ...]
    execution: ExecutionSpec
    raw: dict[str, Any]  # the file with every override applied, as it is written to study.yaml

    @property
    def data(self) -> DataSpec:
        """The corpora, tokenizer and split that all arms share."""
        first = self.arms[0]
        used = sorted({role for arm in self.arms for role in _roles(arm)})
        return DataSpec(
            corpora={name: first.corpora[name] for name in used},
            tokenizer=first.tokenizer,
            split=first.data.split,
            pre_corpora=tuple(sorted({arm.pipeline.pre for arm in self.arms})),
            leaks=first.data.leaks,
        )


def _roles(arm: ArmSpec) -> tuple[str, str, str]:
    return arm.pipeline.pre, arm.pipeline.post, arm.pipeline.ft


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
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError(f"{reference}: no such study file; the shipped studies are {', '.join(shipped)}.")
        text, where = path.read_text(encoding="utf-8"), str(path)
    elif reference in shipped:
        text, where = shipped[reference].read_text(encoding="utf-8"), f"shipped study {reference}"
    else:
        raise UserError(
            f"{reference!r} is neither a study file nor a shipped study; the shipped studies are {', '.join(shipped)}."
        )
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of settings at the top, found {type(raw).__name__}.")
    return raw


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
    problems: dict[str, None] = {}  # a set that keeps its order
    arms: list[ArmSpec] = []
    for point in expand(raw):
        arm, found = validate_arm(_with_default_corpora(with_scale(_with_given_tokenizer(point))))
        problems.update(dict.fromkeys(found))
        if arm is not None:
            arms.append(arm)
    execution, found = validate_execution(raw)
    problems.update(dict.fromkeys(found))
    problems.update(dict.fromkeys(_seed_problems(raw)))
    if not problems:
        problems.update(dict.fromkeys(_common_problems(arms)))
    if problems or execution is None:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{where}: {len(problems)} problem{'s' * (len(problems) > 1)}\n{listing}")
    return Study(
        name=arms[0].name,
        description=str(raw.get("description", "")),
        scale=arms[0].scale,
        seeds=tuple(raw["seeds"]),
        arms=tuple(arms),
        execution=execution,
        raw=raw,
    )


def _seed_problems(raw: dict[str, Any]) -> list[str]:
    seeds = raw.get("seeds")
    rule = "expected a list of distinct non-negative integers, e.g. seeds: [0, 1, 2]"
    if not isinstance(seeds, list) or not seeds:
        return [f"seeds = {seeds!r}: {rule}"]
    are_integers = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    return [] if are_integers and len(set(seeds)) == len(seeds) else [f"seeds = {seeds!r}: {rule}"]


def _with_given_tokenizer(tree: dict[str, Any]) -> dict[str, Any]:
    """A given checkpoint brings its tokenizer along, unless the study names one."""
    init = tree.get("init")
    if "tokenizer" in tree or not isinstance(init, dict) or not isinstance(init.get("from"), str):
        return tree
    revision = {"revision": init["revision"]} if init.get("revision") else {}
    return {**tree, "tokenizer": {"kind": "hf", "path": init["from"], **revision}}


def _with_default_corpora(tree: dict[str, Any]) -> dict[str, Any]:
    """Adds the offline corpora that the pipeline names and the study does not declare."""
    pipeline = tree.get("pipeline")
    named = [name for name in pipeline.values() if isinstance(name, str)] if isinstance(pipeline, dict) else []
    offline = {name: spec.model_dump() for name, spec in default_corpora(named).items()}
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
        if arm.init != first.init:
            problems.append("init must be the same in all arms of a study; compare checkpoints by one study each")
    return list(dict.fromkeys(problems))
