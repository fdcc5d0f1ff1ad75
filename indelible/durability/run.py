"""An audit from request to card: price, run portion by portion, read, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, NonNegativeInt, TypeAdapter

from indelible.corpora.sources import default_cache_dir
from indelible.data.fingerprint import study_stores
from indelible.durability.battery import read_battery
from indelible.durability.budget import Price, parse_budget, price
from indelible.durability.card import Audit
from indelible.durability.findings import Asked, make_audit
from indelible.durability.request import AuditRequest, init_of, make_request
from indelible.durability.study import Portion, portions, study_of
from indelible.errors import UserError
from indelible.files import read_as, write_json, write_text
from indelible.models.given import GivenCheckpoint, find_checkpoint
from indelible.scheduling.snapshot import Snapshot
from indelible.study.architecture import architecture_of
from indelible.study.arm import ModelSpec
from indelible.study.cost import num_parameters
from indelible.study.grid import load_scale, scale_names
from indelible.study.identity import given_id
from indelible.study.load import Study, resolve_study
from indelible.study.training import InitSpec
from indelible.workflow.planning import Planned, planned_with
from indelible.workflow.precision import resolved_precision
from indelible.workflow.tokens import check_tokenizer_folder

DEFAULT_BUDGET = "40m"
CHOSEN = "audit-portion.json"  # how much of the battery the folder has been asked for


class _Chosen(BaseModel):
    portion: NonNegativeInt  # its number
    budget: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None  # seconds
    portions: list[Any]  # what each adds


_CHOSEN = TypeAdapter(_Chosen)
Execute = Callable[[Study], object]  # runs a study in the audit's folder; raises where it does not end


@dataclass(frozen=True)
class Step:
    """A portion with its price, for `--plan`."""

    portion: Portion
    price: Price
    is_chosen: bool  # it is within the budget


class Auditor:
    """An audit that was asked for: prices and runs its battery.

    Attributes:
        request: what was asked.
        portions: of the battery, each holding the one before it.
    """

    def __init__(self, request: AuditRequest, out: Path, workers: int | None = None) -> None:
        self.request, self.out, self._workers = request, out, workers
        self.portions = portions(request)
        self._given = _given(request)
        first = self._given[request.models[0]]
        self._config = first.config
        self._scale = _nearest_scale(first)
        self._planned: dict[int, Planned] = {}

    @property
    def ids(self) -> dict[str, str]:
        """Checkpoint ids by the checkpoint's name."""
        return {name: given_id(found.sha256) for name, found in self._given.items()}

    def study(self, number: int) -> Study:
        """The study of a portion."""
        raw = study_of(self.request, self.portions[number], self._config, self._scale)
        return resolve_study(raw, "audit")

    def planned(self, number: int) -> Planned:
        """Its plan: nothing is fetched or tokenised, and no weights are hashed again."""
        if number not in self._planned:
            study = self.study(number)
            stores = study_stores(study, default_cache_dir())
            given = {InitSpec.model_validate(init_of(name)): found for name, found in self._given.items()}
            if not self._planned:  # the same tokenizer in all portions
                check_tokenizer_folder(study, given)
            self._planned[number] = planned_with(study, stores, given, resolved_precision(study.execution))
        return self._planned[number]

    def price(self, number: int) -> Price:
        """What it costs here."""
        return price(self.planned(number), self.out if self.out.is_dir() else None, self._workers)

    def steps(self, budget: float | None) -> list[Step]:
        """Every portion with its price."""
        prices = [self.price(number) for number in range(len(self.portions))]
        chosen = self.choose(budget)
        return [
            Step(portion, one, number <= chosen)
            for number, (portion, one) in enumerate(zip(self.portions, prices, strict=True))
        ]

    def choose(self, budget: float | None) -> int:
        """The largest portion that fits, at least what the folder was asked for with no larger a budget.

        Raises:
            UserError: not even the first one fits.
        """
        if budget is None:
            return len(self.portions) - 1
        low, high = -1, len(self.portions) - 1
        while low < high:  # prices rise with every portion
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.price(middle).seconds <= budget else (low, middle - 1)
        low = max(low, self._asked_before(budget))
        if low < 0:
            least = self.price(0)
            raise UserError(
                f"--budget {budget / 60:.3g}m: the smallest part of the battery, {least.stage_runs} stage runs, "
                "takes about "
                f"{least.seconds / 60:.1f} minutes here ({least.rate_source}). Give more time, a shorter trial "
                "(--set updates=16), fewer data sets, or more workers."
            )
        return low

    def _asked_before(self, budget: float) -> int:
        path = self.out / CHOSEN
        if not path.is_file():
            return -1
        found = read_as(path, _CHOSEN)
        is_ours = found.portions == [portion.adds for portion in self.portions]
        is_kept = is_ours and found.budget is not None and found.budget <= budget
        return min(found.portion, len(self.portions) - 1) if is_kept else -1

    def run(self, execute: Execute, budget: float | None) -> int:
        """Runs what fits: the first portion, which tells how fast this machine is, then as much as the time allows.

        Returns:
            the number of the portion that is done.
        """
        chosen = self.choose(budget)
        if budget is not None and chosen > 0 and self.price(0).done < self.price(0).stage_runs:
            execute(self.study(0))
            chosen = max(0, self._choose_again(budget))
        self.out.mkdir(parents=True, exist_ok=True)
        state = {"portion": chosen, "budget": budget, "portions": [portion.adds for portion in self.portions]}
        write_json(self.out / CHOSEN, state)
        execute(self.study(chosen))
        return chosen

    def _choose_again(self, budget: float) -> int:
        try:
            return self.choose(budget)
        except UserError:  # measured, the machine is slower than was thought; what is done is a portion all the same
            return 0

    def card(self, number: int) -> Audit:
        """The card of a portion that is done."""
        rest = self.portions[number + 1 :]
        return make_audit(self.out, Asked(self.request, self.portions[number], tuple(p.adds for p in rest), self.ids))


def write_card(audit: Audit, out: Path) -> list[Path]:
    """Writes audit.json, audit.html and audit.md, and returns their paths."""
    from indelible.durability.card_html import card_html
    from indelible.durability.card_text import card_markdown

    files = [out / f"audit.{ending}" for ending in ("json", "html", "md")]
    audit.write(files[0])
    write_text(files[1], card_html(audit))
    write_text(files[2], card_markdown(audit))
    return files


def audit(
    model: str | Path | Sequence[str | Path],
    *,
    keep: str | Path,
    later: str | Path | Sequence[str | Path],
    out: str | Path,
    base: str | Path | None = None,
    against: str | Path | Sequence[str | Path] = (),
    tasks: str | Path | Sequence[str | Path] = (),
    budget: str | float | None = DEFAULT_BUDGET,
    battery: str | Path | Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    require: str | float | None = None,
    customer: str = "typical",
    gain: float = 0.8,
    workers: int | None = None,
    executor: str = "local",
    progress: Callable[[Snapshot], None] | None = None,
    force: bool = False,
) -> Audit:
    """Fine-tunes a checkpoint in many ways, and says how much of a capability it keeps; prints nothing.

    Args:
        model: a folder, a hub id (``owner/name@revision``) or a name of the catalogue; several of one recipe.
        keep: text that shows the capability: a name of the catalogue, a file or a folder.
        later: what customers may fine-tune on; one or several, each a name, a file or a folder.
        out: folder of the study and of the card; the same call continues after anything that stopped it.
        base: the checkpoint before it had the capability: then the card tells shares.
        against: another checkpoint, or several of another recipe, to be compared with.
        tasks: task files (docs/tasks.md) whose accuracies the card has, before and after.
        budget: seconds, a time such as ``40m``, or ``all``: the largest part of the battery that fits is run.
        battery: ``quick``, ``standard``, ``thorough``, a YAML file or a dictionary; None = by this machine.
        set: fields laid over the battery, e.g. ``{"lr": [1e-4, 3e-4]}``.
        require: the bar: a share (0.8) where there is a base, else nats per token (``"0.1nats"``).
        customer: careful, typical or careless.
        gain: 0.5 or 0.8: part of the gain on the new task at which it is judged.
        workers: worker processes; None = as many as this machine carries.
        executor: local or slurm.
        progress: called a few times a second with the state of every stage run.
        force: take a folder that holds another study.

    Returns:
        The card; its files lie in ``out``.

    Raises:
        UserError: the request is wrong.
        UnfinishedStudy: a stage run failed, or the run was stopped.
    """
    from indelible.workflow.running import run as run_study

    chosen = read_battery(battery, set)
    request = make_request(
        _names(model), str(keep), _names(later), chosen, base=None if base is None else str(base),
        against=_names(against), require=require, customer=customer, gain=gain, tasks=_names(tasks),
    )  # fmt: skip
    auditor = Auditor(request, Path(out), workers)
    execute = partial(run_study, out=out, workers=workers, progress=progress, executor=executor, force=force)
    found = auditor.card(auditor.run(execute, parse_budget(budget)))
    write_card(found, Path(out))
    return found


def _names(value: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(value)] if isinstance(value, str | Path) else [str(one) for one in value]


def _given(request: AuditRequest) -> dict[str, GivenCheckpoint]:
    """Every checkpoint of the request, found.

    Raises:
        UserError: one is not there, or two are the same weights.
    """
    found: dict[str, GivenCheckpoint] = {}
    for name in [*request.checkpoints, *([request.base] if request.base else [])]:
        init = init_of(name)
        where = "--base" if name == request.base else "audit: the checkpoint"
        given = find_checkpoint(init["from"], init.get("revision"), where)
        twin = next((other for other, one in found.items() if one.sha256 == given.sha256), None)
        if twin is not None:
            raise UserError(
                f"audit: {name} and {twin} are the same weights; a checkpoint stands on one side, once. Give "
                "checkpoints "
                "that differ."
            )
        found[name] = given
    return found


def _nearest_scale(found: GivenCheckpoint) -> str:
    """The scale whose model is nearest in size: its measured speed (`indelible bench`) tells most about this one."""
    own = architecture_of(found.config).num_parameters

    def distance(name: str) -> float:
        raw = load_scale(name)
        size = num_parameters(ModelSpec.model_validate(raw["model"]), found.vocab_size)
        return abs(own / size - 1) if own > size else abs(size / own - 1)

    return min(scale_names(), key=distance)
