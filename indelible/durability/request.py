"""What an audit is asked: checkpoints, data by name or file, the bar, and for whom."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from indelible.corpora.catalog import HUB
from indelible.durability.battery import Battery
from indelible.errors import UserError
from indelible.files import is_there, printable
from indelible.models.catalogue import CATALOGUE
from indelible.study.corpus_spec import OFFLINE_NAMES
from indelible.study.yaml_reader import decode

Customer = Literal["careful", "typical", "careless"]
CUSTOMERS: tuple[Customer, ...] = ("careful", "typical", "careless")
GAINS = (0.5, 0.8)  # parts of the gain on the new task that the battery reaches, at which trials are compared
LEVEL = 0.05  # of every interval, two-sided
SHARE_REQUIRED, NATS_REQUIRED = 0.8, 0.1  # where nobody says: of the capability kept, or nats per token lost
MOST_NATS = 1000.0  # per token, that may be asked
_FEWEST_BYTES = 8  # of a text file a token, at most: what one can count on without tokenising


@dataclass(frozen=True)
class Requirement:
    """The bar, as it was asked."""

    value: float
    unit: Literal["share", "nats"]


@dataclass(frozen=True)
class AuditRequest:
    """Everything that an audit is asked, checked."""

    models: tuple[str, ...]
    keep: str  # name of the kept corpus
    later: tuple[str, ...]  # names of the new corpora
    corpora: Mapping[str, dict[str, Any]]  # recipes by name
    battery: Battery
    base: str | None = None
    against: tuple[str, ...] = ()
    require: Requirement | None = None  # None: what is usual for the unit
    customer: Customer = "typical"
    gain: float = GAINS[-1]
    tasks: Mapping[str, str] = field(default_factory=dict)  # task files by name

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Of both sides."""
        return (*self.models, *self.against)

    @property
    def is_about_recipes(self) -> bool:
        """Whether several checkpoints stand for a recipe: then they are the unit, else seeds of fine-tuning are."""
        return len(self.models) > 1 or len(self.against) > 1

    @property
    def loss_on(self) -> Literal["all", "completion"]:
        """Which tokens of data with prompts are trained and judged.

        Unless the battery says it: completions, where the kept data are of one's own and have prompts. The shipped
        corpora of questions have answers of a word or two, on which a few windows judge next to nothing.
        """
        if self.battery.loss_on != "auto":
            return self.battery.loss_on
        return "completion" if self.corpora[self.keep].get("prompt_column") else "all"

    @property
    def is_hostile(self) -> bool:
        """Whether some new data are the user's own: what they are for is not known here."""
        return any(self.corpora[name]["kind"] == "local" for name in self.later)


def make_request(
    models: Sequence[str],
    keep: str,
    later: Sequence[str],
    battery: Battery,
    *,
    base: str | None = None,
    against: Sequence[str] = (),
    require: str | float | None = None,
    customer: str = "typical",
    gain: float = GAINS[-1],
    tasks: Sequence[str] = (),
) -> AuditRequest:
    """Checks a request and names its data.

    Raises:
        UserError: something of it is wrong.
    """
    if not models:
        raise UserError("audit: name at least one checkpoint: a folder, a hub id, or a name of the catalogue.")
    if not later:
        raise UserError("audit: --later is missing: name at least one data set that customers may fine-tune on.")
    if customer not in CUSTOMERS:
        raise UserError(f"--for {customer}: expected one of {', '.join(CUSTOMERS)}.")
    if gain not in GAINS:
        raise UserError(f"--at {gain:g}: expected one of {', '.join(f'{one:g}' for one in GAINS)}.")
    for one in (*models, *against, keep, *later, *tasks, *([base] if base is not None else [])):
        if printable(one) != one:
            raise UserError(
                f"audit: {printable(one)}: the name holds bytes that are not UTF-8, which no study can hold; "
                "rename it, or give the folder that it lies in."
            )
    _check_checkpoints(models, against, base)
    corpora: dict[str, dict[str, Any]] = {}
    names = []
    for option, reference in (("--keep", keep), *(("--later", one) for one in later)):
        name, recipe = _corpus(option, reference, battery)
        if name in corpora:
            raise UserError(
                f"{option} {reference}: {name!r} is named twice; give each data set once, by names that differ."
            )
        corpora[name] = recipe
        names.append(name)
    unread = sorted(set(battery.corpora) - set(corpora))
    if unread:
        raise UserError(f"corpora.{unread[0]} of the battery is named neither by --keep nor by --later.")
    return AuditRequest(
        models=tuple(models), keep=names[0], later=tuple(names[1:]), corpora=corpora, battery=battery, base=base,
        against=tuple(against), require=_requirement(require, base), customer=customer, gain=gain,
        tasks=_tasks(tasks),
    )  # fmt: skip


def _tasks(paths: Sequence[str]) -> dict[str, str]:
    """Task files by the names that they have without their endings."""
    found: dict[str, str] = {}
    for path in paths:
        name = _stem(Path(path)) or "task"
        if name in found:
            raise UserError(f"--task {printable(path)}: {name!r} is named twice; give the files names that differ.")
        found[name] = path
    return found


def _stem(path: Path) -> str:
    return re.sub(r"\W+", "_", path.name.split(".")[0], flags=re.ASCII).strip("_")


def init_of(checkpoint: str) -> dict[str, str]:
    """A checkpoint as `init` takes it; ``owner/name@revision`` says the commit."""
    name, at, revision = checkpoint.rpartition("@")
    if at and name and not Path(checkpoint).exists():
        return {"from": name, "revision": revision}
    return {"from": checkpoint}


def _check_checkpoints(models: Sequence[str], against: Sequence[str], base: str | None) -> None:
    named = [*models, *against, *([base] if base else [])]
    for one in named:
        if named.count(one) > 1:
            raise UserError(
                f"audit: {one} is named {named.count(one)} times; a checkpoint stands on one side, once. To see how "
                "often "
                "equals are called different, compare seeds of one checkpoint (docs/audit.md)."
            )
    if against and (len(models) > 1) != (len(against) > 1):
        raise UserError(
            f"--against: {len(models)} checkpoints on one side and {len(against)} on the other; compare one file "
            "with one "
            "file, or several checkpoints of a recipe with several of the other."
        )


def _corpus(option: str, reference: str, battery: Battery) -> tuple[str, dict[str, Any]]:
    """Name and recipe of a data set."""
    if reference in battery.corpora:
        return reference, dict(battery.corpora[reference])
    if reference in OFFLINE_NAMES:
        return reference, {"kind": "offline", "name": reference, "max_tokens": _cap(battery)}
    if reference in HUB:
        name = reference.replace("-", "_")
        return name, {"kind": "catalogue", "name": reference, "max_tokens": _cap(battery)}
    if not reference.strip() or not is_there(reference):
        known = ", ".join((*battery.corpora, *OFFLINE_NAMES, *HUB))
        raise UserError(
            f"{option} {printable(reference)}: no such file or folder, and no corpus of that name; there are {known}."
        )
    path = Path(reference).expanduser()
    if reference in CATALOGUE or (path / "config.json").is_file():
        raise UserError(f"{option} {reference}: this is a model; {option} takes text.")
    return _stem(path) or "data", {"kind": "local", "path": str(path), **_columns(option, path)}


def _cap(battery: Battery) -> int:
    """Tokens that are enough for the longest trial, the held-out split and what leaks take away."""
    trained = round(1.1 * battery.trial_tokens) + battery.relearning_tokens
    heldout = 4 * battery.windows * battery.seq_len
    return max(500_000, 2 * (trained + heldout))


def _columns(option: str, path: Path) -> dict[str, Any]:
    """The columns of a file of JSON lines, by what its first record has; others are read as they are."""
    if path.is_dir() or not path.name.lower().endswith((".jsonl", ".ndjson", ".json")):
        return {}
    with open(path, "rb") as handle:
        line = next((one for one in handle if one.strip()), b"")
    try:
        record = json.loads(decode(line, str(path)))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        return {}  # whoever reads the file says where and why
    found = set(record) if isinstance(record, dict) else set()
    for prompt, completion in (("prompt", "completion"), ("instruction", "output"), ("inputs", "targets"),
                               ("question", "answer"), ("prompt", "response")):  # fmt: skip
        if {prompt, completion} <= found:
            return {"prompt_column": prompt, "completion_column": completion}
    if "text" in found or not found:
        return {}
    raise UserError(
        f"{option} {printable(str(path))}: its columns are {', '.join(sorted(map(str, found)))}; expected `text`, or "
        "`prompt` and "
        "`completion`. Rename them, or declare the file under `corpora` of a battery file and give its name."
    )


def data_tokens(recipe: Mapping[str, Any], wanted: int, heldout_fraction: float) -> int:
    """Tokens of a data set that a stage may pass over: all that are wanted, or what a small file surely has.

    A study says how many before its text is cut into tokens, so of a file of one's own the smallest number is taken
    that its bytes can make; the stage then passes over them more than once.
    """
    if recipe["kind"] != "local":
        return wanted
    paths = [Path(path) for path in ([recipe["path"]] if isinstance(recipe["path"], str) else recipe["path"])]
    if any(path.is_dir() or path.suffix in (".gz", ".zst", ".parquet") for path in paths):
        return wanted
    size = sum(path.stat().st_size for path in paths if path.is_file())
    surely = int(size / _FEWEST_BYTES * (1 - heldout_fraction))
    return min(wanted, max(1, surely))


def _requirement(text: str | float | None, base: str | None) -> Requirement | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%|nats?)?\s*", str(text))
    unit: Literal["share", "nats"] = "nats" if found and (found[2] or "").startswith("nat") else "share"
    value = float(found[1]) / (100 if found[2] == "%" else 1) if found else 0.0
    if not 0 < value <= (1 if unit == "share" else MOST_NATS):
        raise UserError(f"--require {text}: expected a share such as 0.8 or 80%, or nats per token such as 0.1nats.")
    if unit == "share" and base is None:
        raise UserError(
            f"--require {text}: a share of the capability needs the checkpoint before it: give --base BEFORE, or a "
            "loss that "
            "is allowed, e.g. --require 0.1nats."
        )
    return Requirement(value, unit)
