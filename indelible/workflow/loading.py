"""A study for the library: by name, path or dictionary, with anything overridden."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.study.grid import apply_overrides, apply_values, merged
from indelible.study.load import Study, read_study_file, resolve_study, shipped_studies
from indelible.workflow.estimate import Estimate, estimate
from indelible.workflow.planning import plan_study


@dataclass(frozen=True)
class LoadedStudy(Study):
    """A validated study that can be planned; `indelible.run` runs it."""

    def plan(
        self, out: str | Path | None = None, *, workers: int | None = None, flops_per_second: float | None = None
    ) -> Estimate:
        """What the study would run and what it costs; nothing is fetched, tokenised or trained.

        Args:
            out: a study folder: what is done there is counted, and its speed taken.
            workers: worker processes; None = those of the study, or as many as this machine carries.
            flops_per_second: speed of a worker; None = measured (`indelible bench`), else 5e10.

        Raises:
            UserError: a file of a corpus or a given checkpoint cannot be found, or the plan is not sound.
        """
        folder = None if out is None else Path(out)
        return estimate(plan_study(self), folder, workers=workers, flops_per_second=flops_per_second)


def load_study(
    reference: str | Path | Mapping[str, Any], *, set: Mapping[str, Any] | None = None, **overrides: Any
) -> LoadedStudy:
    """Reads, expands and validates a study.

    Args:
        reference: name of a shipped study, path of a study file, or its settings as a dictionary.
        set: values by dotted path, e.g. ``{"finetune.lr": ["0.3x", "1x"]}``; a list is a sweep axis.
        overrides: settings at the top of a study file, e.g. ``seeds=[0, 1]`` or ``finetune={"lr": 1e-4}``; mappings
            are laid over those of the file.

    Raises:
        UserError: no such study, or something is wrong with it: every problem in one message.
    """
    if isinstance(reference, Mapping):
        raw, where = merged({}, reference), "study"
    else:
        raw, where = read_study_file(str(reference)), str(reference)
    study = resolve_study(apply_values(merged(raw, overrides), set or {}), where)
    return LoadedStudy(**vars(study))


def load_figure(figure: str, scale: str, num_seeds: int, overrides: Sequence[str] = ()) -> LoadedStudy:
    """A shipped study at a scale with the first ``num_seeds`` seeds.

    Args:
        figure: name of a shipped study, e.g. fig3a.
        scale: pico, nano, 135m or 1b.
        num_seeds: 0, 1, ...
        overrides: ``path.to.field=value`` strings, over all that.

    Raises:
        UserError: no such study or scale, or a wrong setting.
    """
    if figure not in shipped_studies():
        raise UserError(f"{figure!r} is not a shipped study; they are {', '.join(shipped_studies())}.")
    settings = {"scale": scale, "seeds": list(range(num_seeds))}
    raw = apply_overrides(apply_values(read_study_file(figure), settings), list(overrides))
    return LoadedStudy(**vars(resolve_study(raw, figure)))


def plan(
    study: Study | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    flops_per_second: float | None = None,
) -> Estimate:
    """What a study would run and what it costs; see `LoadedStudy.plan`.

    Args:
        study: what `load_study` gave or takes.
        out: a study folder: what is done there is counted, and its speed taken.
        workers: worker processes; None = those of the study, or as many as this machine carries.
        flops_per_second: speed of a worker; None = measured, else assumed.
    """
    loaded = LoadedStudy(**vars(study)) if isinstance(study, Study) else load_study(study)
    return loaded.plan(out, workers=workers, flops_per_second=flops_per_second)
