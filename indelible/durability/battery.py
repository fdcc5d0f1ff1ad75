"""What a battery tries: which fine-tunes, how long, in which order. From a shipped name, a YAML file, or a "
"dictionary."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from indelible.errors import UserError
from indelible.host import visible_gpus
from indelible.strict import Count, Strict
from indelible.study.training import Fraction, as_tuple
from indelible.study.validation import problems_of, unknown_keys
from indelible.study.yaml_reader import read_mapping

SHIPPED = ("quick", "standard", "thorough")


def _tuple_of(value: object) -> object:
    """A single value is a list of one."""
    return as_tuple(value) if isinstance(value, list | tuple) else (value,)


Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Battery(Strict):
    """The fine-tunes of an audit, all of one length. Each is a *trial*."""

    name: str = "own"
    adapt: Annotated[tuple[Literal["full", "lora"], ...], BeforeValidator(_tuple_of)] = ("full", "lora")
    lr: Annotated[tuple[Rate, ...], BeforeValidator(_tuple_of)] = (1e-4, 3e-4, 3e-5)  # of full fine-tuning, as tried
    lora_lr_factor: float = Field(default=10.0, gt=0)  # LoRA's rates are those of full fine-tuning times this
    lora_r: int = Field(default=64, gt=0)
    lora_alpha: float = Field(default=128.0, gt=0)
    lora_targets: Annotated[tuple[str, ...], BeforeValidator(_tuple_of)] | None = None  # null = all of the layers
    replay: Annotated[tuple[Fraction, ...], BeforeValidator(_tuple_of)] = (0.01, 0.05)  # of the kept data, beside none
    padding: bool = True  # control: as many further tokens as the largest replay has, of the new data instead
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_tuple_of)] = (0, 1, 2, 3, 4)  # of fine-tuning, as tried
    updates: Count = Field(default=32, ge=2)  # optimizer steps of a trial
    batch: Count = Field(default=4, gt=0)  # sequences an update
    seq_len: Count = Field(default=128, gt=1)  # tokens a sequence
    warmup: Fraction = 0.1  # of the updates
    data_tokens: Count | None = Field(default=None, gt=0)  # of the new data, passed over again; null = enough for one
    curve_points: int = Field(default=6, ge=3)  # of a trial's curve, the start and the end included
    windows: int = Field(default=16, gt=0)  # held-out windows of a corpus, of seq_len tokens each
    heldout_fraction: float = Field(default=0.2, gt=0, lt=1)  # of every corpus's documents
    relearning: Annotated[tuple[int, ...], BeforeValidator(_tuple_of)] = (5, 20)  # updates on the kept data; [] = none
    relearning_lr: float | None = Field(default=None, gt=0)  # null = the first of `lr`
    loss_on: Literal["auto", "all", "completion"] = "auto"  # of data with prompts, which tokens are trained and judged;
    # auto = completions where the kept data are of one's own and have prompts
    corpora: dict[str, dict[str, Any]] = Field(default_factory=dict)  # recipes by name, as a study file has them
    training: dict[str, Any] = Field(default_factory=dict)  # further fields of the fine-tuning stage
    execution: dict[str, Any] = Field(default_factory=dict)  # as a study file has it

    @model_validator(mode="after")
    def _sound(self) -> "Battery":
        for name in ("adapt", "lr", "replay", "seeds", "relearning"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)}: a value stands twice")
            if not values and name not in ("replay", "relearning"):
                raise ValueError(f"{name} = []: at least one value is needed")
        if 0 in self.replay:
            raise ValueError("replay: trials without replay are always there; name the shares beside 0")
        if any(number < 1 for number in self.relearning):
            raise ValueError(f"relearning = {list(self.relearning)}: expected numbers of updates from 1 on")
        return self

    @property
    def trial_tokens(self) -> int:
        """Tokens that a trial trains on."""
        return self.updates * self.batch * self.seq_len

    @property
    def relearning_tokens(self) -> int:
        """Tokens of the kept data that the longest relearning shows."""
        return max(self.relearning, default=0) * self.batch * self.seq_len

    @property
    def curve_steps(self) -> tuple[int, ...]:
        """The updates after which a trial is evaluated: 0, then by equal factors up to the last."""
        last, inner = self.updates, self.curve_points - 1
        smallest = max(1.0, last / 2 ** (inner - 1))
        factor = (last / smallest) ** (1 / (inner - 1))
        return (0, *sorted({round(smallest * factor**place) for place in range(inner)}))

    def rate(self, adapt: str, lr: float) -> float:
        """The learning rate of a kind of fine-tuning where full fine-tuning has ``lr``."""
        return float(f"{lr * (self.lora_lr_factor if adapt == 'lora' else 1):.12g}")


def default_battery() -> str:
    """`standard` where there is a GPU, else `quick`."""
    return "standard" if visible_gpus() else "quick"


def read_battery(reference: str | Path | Mapping[str, Any] | None, over: Mapping[str, Any] | None = None) -> Battery:
    """A battery by shipped name, path of a YAML file or dictionary.

    Args:
        reference: None = `default_battery`.
        over: fields that are laid over it.

    Raises:
        UserError: no such battery or file, or something is wrong with it: every problem in one message.
    """
    if isinstance(reference, Mapping):
        raw, where = dict(reference), "battery"
    else:
        raw, where = _read(default_battery() if reference is None else str(reference))
    for key, value in (over or {}).items():
        node = raw
        *parents, last = str(key).split(".")
        for part in parents:
            node[part] = dict(node[part]) if isinstance(node.get(part), Mapping) else {}
            node = node[part]
        node[last] = value
    problems = unknown_keys(raw, Battery)
    if not problems:
        try:
            return Battery.model_validate(raw)
        except ValidationError as error:
            problems = problems_of(error)
    listing = "\n".join(f"  {problem}" for problem in problems)
    raise UserError(f"{where}: {len(problems)} problem{'s' * (len(problems) > 1)}\n{listing}")


def _read(reference: str) -> tuple[dict[str, Any], str]:
    if reference in SHIPPED:
        file = resources.files("indelible.durability").joinpath("batteries", f"{reference}.yaml")
        return read_mapping(file.read_bytes(), f"shipped battery {reference}"), f"battery {reference}"
    path = Path(reference)
    if not path.is_file():
        raise UserError(f"--battery {reference}: no such file; the shipped batteries are {', '.join(SHIPPED)}.")
    return read_mapping(path.read_bytes(), str(path)), str(path)
