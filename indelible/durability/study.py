"""A battery as a study of stages: every trial is an arm, and the portions of the battery are one order of arms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indelible.durability.battery import Battery
from indelible.durability.request import AuditRequest, data_tokens, init_of

FINETUNE, RELEARNING = "finetune", "relearning"  # names of the stages
MODEL_CONTROL, BASE_CONTROL = "control-model", "control-base"  # arms that are relearned without a trial before
CORE_SEEDS = 3  # that one checkpoint gets before the battery grows wider
_LAYERS = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
}
_LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, order=True)
class Setting:
    """One kind of trial: everything but its checkpoint and its seed."""

    corpus: str  # the new data
    adapt: str  # full or lora
    lr: float  # as the stage has it
    replay: float = 0.0  # of the kept data
    is_padded: bool = False  # as many further tokens of the new data instead of a replay

    @property
    def name(self) -> str:
        """The name of its arm."""
        extra = f"-replay{self.replay:g}" if self.replay else "-padded" if self.is_padded else ""
        return f"{self.corpus}-{self.adapt}-lr{self.lr:g}{extra}"

    @property
    def is_plain(self) -> bool:
        """Whether it is what a customer without the kept data does: the others are controls and remedies."""
        return not self.replay and not self.is_padded


@dataclass(frozen=True)
class Portion:
    """A prefix of the battery: every setting with every seed."""

    adds: str  # what it has that the portion before it has not
    settings: tuple[Setting, ...]
    relearned: frozenset[Setting]  # that are relearned afterwards
    seeds: tuple[int, ...]


def portions(request: AuditRequest) -> list[Portion]:
    """The battery, portion by portion; each holds all of the one before it.

    Most telling first: one rate, a second one, seeds for an interval, relearning, then width (rates, LoRA, replay),
    then further seeds. Where the checkpoint is the unit, one seed of fine-tuning is enough until the end.
    """
    battery = request.battery
    first, *others = battery.adapt
    core = 1 if request.is_about_recipes else min(CORE_SEEDS, len(battery.seeds))
    builder = _Portions(request)
    builder.widen(first, battery.lr[0])
    for lr in battery.lr[1:2]:
        builder.widen(first, lr)
    for count in range(2, core + 1):
        builder.reseed(count)
    builder.add_relearning()
    for lr in battery.lr[2:3]:
        builder.widen(first, lr)
    for adapt in others:
        for lr in battery.lr[:3]:
            builder.widen(adapt, lr)
    for replay in sorted(battery.replay):
        builder.remedy(first, battery.lr[0], replay)
    if battery.padding and battery.replay:
        builder.remedy(first, battery.lr[0], 0.0)
    for lr in battery.lr[3:]:
        for adapt in battery.adapt:
            builder.widen(adapt, lr)
    for count in range(core + 1, len(battery.seeds) + 1):
        builder.reseed(count)
    return builder.found


class _Portions:
    """Grows a battery."""

    def __init__(self, request: AuditRequest) -> None:
        self._request, self._battery = request, request.battery
        self._settings: tuple[Setting, ...] = ()
        self._relearned: frozenset[Setting] = frozenset()
        self._is_relearning = False
        self._seeds = request.battery.seeds[:1]
        self.found: list[Portion] = []

    def _add(self, adds: str) -> None:
        self.found.append(Portion(adds, self._settings, self._relearned, self._seeds))

    def widen(self, adapt: str, lr: float) -> None:
        """One more rate of one kind of fine-tuning, on all new data."""
        rate = self._battery.rate(adapt, lr)
        new = tuple(Setting(corpus, adapt, rate) for corpus in self._request.later)
        self._settings += new
        if self._is_relearning:
            self._relearned |= set(new)
        self._add(f"{'LoRA' if adapt == 'lora' else 'full'}, rate {rate:g}")

    def remedy(self, adapt: str, lr: float, replay: float) -> None:
        """A replay, or the padding control."""
        rate = self._battery.rate(adapt, lr)
        self._settings += tuple(Setting(corpus, adapt, rate, replay, not replay) for corpus in self._request.later)
        self._add(f"replay of {100 * replay:g} %" if replay else "padding control")

    def add_relearning(self) -> None:
        """Relearning after every trial so far and every plain one to come."""
        if self._battery.relearning:
            self._is_relearning = True
            self._relearned = frozenset(self._settings)
            self._add("relearning")

    def reseed(self, count: int) -> None:
        """One more seed of everything."""
        self._seeds = self._battery.seeds[:count]
        self._add(f"seed {count}")


def study_of(request: AuditRequest, portion: Portion, config: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """The study file of a portion.

    The same stage runs have the same ids in every portion: the corpora, and with them the tokens, never change.

    Args:
        request: the audit.
        portion: of its battery.
        config: config.json of the (first) model.
        scale: whose measured speed is nearest; its settings are all overridden.
    """
    battery = request.battery
    inits = [init_of(one) for one in request.checkpoints]
    arms: dict[str, Any] = {}
    control = _relearning(request)
    if battery.relearning or battery.replay:  # in every portion, for a corpus that is only judged is another store
        arms[MODEL_CONTROL] = {"stages": {RELEARNING: {**control, "init": inits}}}
    if request.base is not None:
        arms[BASE_CONTROL] = {"stages": {RELEARNING: {**control, "init": init_of(request.base)}}}
    for setting in portion.settings:
        stages = {FINETUNE: {**_finetune(request, setting, config), "init": inits}}
        if setting in portion.relearned:
            stages[RELEARNING] = control
        arms[setting.name] = {"stages": stages}
    return {
        "name": "audit",
        "description": f"How much of {request.keep} survives fine-tuning on {', '.join(request.later)}.",
        "scale": scale,
        "precision": "auto",
        "seq_len": battery.seq_len,
        "corpora": dict(request.corpora),
        "data": {"split": {"heldout_fraction": battery.heldout_fraction}, "loss_on": request.loss_on},
        "evaluation": {
            "windows": battery.windows, "stop_windows": 1,
            **({"tasks": {name: {"file": path} for name, path in request.tasks.items()}} if request.tasks else {}),
        },
        "execution": dict(battery.execution),
        "seeds": list(portion.seeds),
        "arms": arms,
    }  # fmt: skip


def _finetune(request: AuditRequest, setting: Setting, config: Mapping[str, Any]) -> dict[str, Any]:
    battery = request.battery
    factor = 1 + (max(battery.replay) if setting.is_padded else setting.replay)  # replay comes on top, as padding does
    budget = round(factor * battery.trial_tokens)
    own = budget if setting.is_padded else battery.trial_tokens
    wanted = min(own, battery.data_tokens or own)
    stage: dict[str, Any] = {
        "corpus": setting.corpus,
        "tokens": data_tokens(request.corpora[setting.corpus], wanted, battery.heldout_fraction),
        "max_tokens": budget,
        "lr": setting.lr,
        "warmup_steps": round(battery.warmup * battery.updates),
        "global_batch_size": battery.batch,
        "adapt": _lora(battery, config) if setting.adapt == "lora" else {"kind": "full"},
        "watch": {"corpora": [request.keep, setting.corpus], "steps": list(battery.curve_steps)},
        **battery.training,
    }
    if setting.replay:
        stage["mix"] = [{"corpus": request.keep, "fraction": setting.replay}]
    return stage


def _relearning(request: AuditRequest) -> dict[str, Any]:
    """A few updates on the kept data, at a constant rate, so that the curve at 5 is what 5 updates give."""
    battery = request.battery
    budget = battery.relearning_tokens or battery.batch * battery.seq_len  # of a base that is only to be evaluated
    steps = sorted(battery.relearning) or [1]
    return {
        "corpus": request.keep,
        "tokens": data_tokens(request.corpora[request.keep], budget, battery.heldout_fraction),
        "max_tokens": budget,
        "lr": battery.relearning_lr or battery.lr[0],
        "warmup_steps": 0,
        "schedule": "constant",
        "global_batch_size": battery.batch,
        "watch": {"corpora": [request.keep], "steps": [0, *steps]},
    }


def _lora(battery: Battery, config: Mapping[str, Any]) -> dict[str, Any]:
    targets = battery.lora_targets or _LAYERS.get(str(config.get("model_type")), _LLAMA_LAYERS)
    return {"kind": "lora", "r": battery.lora_r, "alpha": battery.lora_alpha, "targets": list(targets)}
