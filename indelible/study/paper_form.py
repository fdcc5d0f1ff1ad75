"""The paper's short way of writing a study (`pipeline`, `exposure`, `replay_fraction`, ...), resolved into stages.

The short form names three stages and has words of its own for what the general form says with `mix`, `not_shown_in`,
`adapt` and `init`. What stands under `stages` is laid over it; stages of other names follow in order and take what they
do not say from the scale's `finetune`. docs/studies.md shows both forms side by side.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from indelible.strict import Strict
from indelible.study.grid import load_scale, merged
from indelible.study.training import Fraction, InitSpec, Placement, StageSettings
from indelible.study.validation import problems_of, unknown_keys

SHORT_STAGES = ("pretrain", "posttrain", "finetune")
ROLES = {"pretrain": "pre", "posttrain": "post", "finetune": "ft"}


class PipelineSpec(Strict):
    """Which corpus plays which role (paper, Table 1)."""

    pre: str  # D_pre
    post: str  # D_post
    ft: str  # D_ft


class ExposureSpec(Strict):
    """D_post tokens shown during pretraining."""

    fraction: float = Field(default=0.0, ge=0)  # lambda; above 1 = repeated passes over D_post
    mode: Literal["add", "replace"] = "add"  # on top of the D_pre tokens, or in their place
    placement: Placement = "uniform"  # early = first third, late = last third, [a, b] = parts of pretraining
    repeats: bool = False  # must be true for a fraction above 1

    @model_validator(mode="after")
    def _consistent(self) -> "ExposureSpec":
        if self.fraction > 1 and not self.repeats:
            raise ValueError(
                f"fraction {self.fraction:g} shows D_post more than once; "
                "set exposure.repeats: true to allow that, or a fraction of at most 1"
            )
        if isinstance(self.placement, tuple) and not self.placement[0] < self.placement[1]:
            raise ValueError(f"placement {list(self.placement)} must be [a, b] with 0 <= a < b <= 1")
        return self


class ShortInit(InitSpec):
    """A given checkpoint, and the first stage that is run."""

    at: str | None = None  # null = posttrain, or the first stage of a study without `pipeline`


class StageWords(Strict):
    """What a stage of the short form may say beside the fields of every stage."""

    replay_fraction: Fraction = 0.0  # of D_pre's tokens, mixed into every pass of the stage
    replay_from: Literal["seen", "unseen"] = "seen"  # D_pre windows that pretraining showed, or later ones
    method: Literal["full", "lora"] = "full"  # of `adapt`: all weights, or adapters
    lora: dict[str, Any] = Field(default_factory=dict)  # of `adapt: {kind: lora}`
    allocation: Literal["full", "matched"] = "full"  # posttrain: all of D_post, or once only what was not shown


class PaperForm(Strict):
    """The parts of a study file that only the short form has."""

    pipeline: PipelineSpec | None = None
    exposure: ExposureSpec | None = None
    init: ShortInit | None = None
    pretrain: StageWords = StageWords()
    posttrain: StageWords = StageWords()
    finetune: StageWords = StageWords()


def general_form(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A grid point with everything under `stages`, or what is wrong with its short form.

    Args:
        tree: one grid point laid over its scale's defaults.

    Returns:
        the tree as `ArmSpec` reads it, and the problems, each with its path.
    """
    rest = dict(tree)
    sections = {name: rest.pop(name) for name in SHORT_STAGES if name in rest}
    overlay = rest.pop("stages", None) or {}
    short = {key: rest.pop(key) for key in ("pipeline", "exposure", "init") if rest.get(key) is not None}
    for key in ("pipeline", "exposure", "init"):
        rest.pop(key, None)
    problems = _shape_problems(sections, overlay)
    if problems:
        return rest, problems
    words = {
        name: {k: section[k] for k in StageWords.model_fields if k in section} for name, section in sections.items()
    }
    if isinstance(short.get("init"), str):
        short["init"] = {"from": short["init"]}
    problems = unknown_keys({key: short[key] for key in short}, PaperForm)
    problems += [one for name, section in sections.items() for one in _unknown_in_section(name, section)]
    if problems:
        return rest, problems
    try:
        form = PaperForm.model_validate({**short, **words})
    except ValidationError as error:
        return rest, problems_of(error)
    extra = [name for name in overlay if not form.pipeline or name not in SHORT_STAGES]
    names = [*(SHORT_STAGES if form.pipeline else ()), *extra]
    if not names:
        example = "pipeline: {pre: general, post: music, ft: chemistry}"
        return rest, [f"pipeline: missing; name the corpora, e.g. {example}, or write out stages:"]
    if not form.pipeline and (unread := _words_without_pipeline(form, words)):
        return rest, unread
    defaults = load_scale(str(tree["scale"]))["finetune"]
    stages = {
        str(name): _laid_over(sections.get(name, defaults), _short_stage(name, form, words), overlay.get(name) or {})
        for name in names
    }
    if problems := _mix_problems(stages):
        return rest, problems
    _say_per(stages)
    problems = _place_init(form, stages)
    return {**rest, "stages": stages}, problems or _unread_problems(form, stages)


def _laid_over(section: Mapping[str, Any], short: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """One stage: its section, the short form's words and what stands under `stages`, each over the one before.

    Only `mix` is not replaced: what is mixed in by several of them comes together.
    """
    plain = {key: value for key, value in section.items() if key not in StageWords.model_fields}
    stage = merged(merged(plain, short), layer)
    found = [mix for part in (plain, short, layer) if (mix := part.get("mix")) is not None]
    if all(isinstance(mix, list) for mix in found):
        return stage | ({"mix": [entry for mix in found for entry in mix]} if found else {})
    return stage


def _mix_problems(stages: Mapping[str, Any]) -> list[str]:
    example = "mix: [{corpus: music, fraction: 0.01}]"
    return [
        f"stages.{name}.mix = {mix!r}: expected a list of mappings, e.g. {example}"
        for name, stage in stages.items()
        if (mix := stage.get("mix")) is not None
        and not (isinstance(mix, list) and all(isinstance(entry, Mapping) for entry in mix))
    ]


def _say_per(stages: dict[str, Any]) -> None:
    """A mix that does not say `per` is shown once over the stage if it is a share of a later stage, else in every pass.

    So that exposure and replay are what the paper means by them.
    """
    names = list(stages)
    for position, name in enumerate(names):
        later = names[position + 1 :]
        mix = [
            {"per": "stage", **entry} if str(entry.get("share_of")) in later else entry
            for entry in stages[name].get("mix") or []
        ]
        if mix:
            stages[name] = {**stages[name], "mix": mix}


def _words_without_pipeline(form: PaperForm, words: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The short form's words that mean nothing where no pipeline says which corpus is D_pre or D_post."""
    problems = ["exposure: needs pipeline; without it say stages.<name>.mix"] if form.exposure is not None else []
    for name, given in words.items():
        if "replay_fraction" in given:
            problems.append(f"{name}.replay_fraction: needs pipeline; without it say stages.{name}.mix")
    return problems


def _shape_problems(sections: Mapping[str, Any], overlay: Any) -> list[str]:
    problems = [
        f"{name} = {section!r}: expected a mapping of settings"
        for name, section in sections.items()
        if not isinstance(section, Mapping)
    ]
    if not isinstance(overlay, Mapping):
        return [*problems, f"stages = {overlay!r}: expected a mapping of stage names to settings"]
    for name, layer in overlay.items():
        if layer is not None and not isinstance(layer, Mapping):
            problems.append(f"stages.{name} = {layer!r}: expected a mapping of settings")
    return problems


def _unknown_in_section(name: str, section: Mapping[str, Any]) -> list[str]:
    known = (
        (*StageWords.model_fields,)
        if name == "posttrain"
        else tuple(k for k in StageWords.model_fields if k != "allocation")
    )
    return unknown_keys(section, StageSettings, (name,), also=known)


def _short_stage(name: str, form: PaperForm, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the short form's words say of a stage, in the words of the general form.

    Args:
        name: of the stage.
        form: the short form.
        given: the words that the study gives, by stage.
    """
    if name not in SHORT_STAGES:
        return {}
    stage: dict[str, Any] = {"corpus": getattr(form.pipeline, ROLES[name])} if form.pipeline else {}
    words: StageWords = getattr(form, name)
    mix: list[dict[str, Any]] = []
    if name == "pretrain":
        stage["order"] = "permutation"
        if form.exposure is not None and form.pipeline is not None:
            exposure = form.exposure.model_dump()
            mix.append({"corpus": form.pipeline.post, "share_of": "posttrain", "per": "stage", **exposure})
    if "replay_fraction" in given.get(name, {}) and form.pipeline is not None:
        unseen = ["pretrain"] if words.replay_from == "unseen" else []
        entry = {"corpus": form.pipeline.pre, "share_of": "pretrain", "fraction": words.replay_fraction}
        mix.append(entry | ({"not_shown_in": unseen} if unseen else {}))
    if mix:
        stage["mix"] = mix
    if words.method == "lora":
        stage["adapt"] = {"kind": "lora", **words.lora}
    if words.allocation == "matched":
        stage["not_shown_in"] = ["pretrain"]
    return stage


def _place_init(form: PaperForm, stages: dict[str, Any]) -> list[str]:
    """Puts `init` at its stage; a name alone under a stage is short for ``{from: name}``."""
    for stage in stages.values():
        if isinstance(stage.get("init"), str):
            stage["init"] = {"from": stage["init"]}
    if form.init is None:
        return []
    at = form.init.at or ("posttrain" if form.pipeline else next(iter(stages)))
    if at not in stages:
        return [f"init.at = {at!r}: the stages are {', '.join(stages)}"]
    stages[at] = {**stages[at], "init": {"from": form.init.checkpoint, "revision": form.init.revision}}
    return []


def _unread_problems(form: PaperForm, stages: Mapping[str, Any]) -> list[str]:
    """A mix in a stage that a given checkpoint replaces would be read by nobody."""
    names = list(stages)
    given = [position for position, name in enumerate(names) if stages[name].get("init")]
    for name in names[: given[-1]] if given else []:
        for entry in stages[name].get("mix") or []:
            if isinstance(entry, Mapping) and entry.get("fraction", 1):
                what = "exposure.fraction" if form.exposure and name == "pretrain" else f"stages.{name}.mix"
                return [
                    f"{what} must be 0 with init at {names[given[-1]]}: the checkpoint's {name} stage is over; "
                    f"for continued training with it set init.at: {name}"
                ]
    return []
