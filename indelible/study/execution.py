"""How runs are executed: processes, threads, devices, Slurm. Recorded, never hashed."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from indelible.errors import UserError
from indelible.strict import Strict

MAX_WORKERS = 10_000
Devices = Annotated[int, Field(gt=0, le=10_000)]
Sequences = Annotated[int, Field(gt=0, le=1_000_000)]


def check_workers(workers: int | None) -> None:
    """Checks a number of workers that was given beside the study; None = that of the study.

    Raises:
        UserError: fewer than one, or more than any study has.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least 1 is needed.")
    if workers is not None and workers > MAX_WORKERS:
        raise UserError(f"--workers {workers}: at most {MAX_WORKERS:,} are started.")


def _switch(value: object) -> object:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value  # YAML reads on and off as booleans


class SlurmSpec(Strict):
    """How worker jobs are asked for; passed to Slurm as they are."""

    partition: str | None = None  # null = Slurm's own
    account: str | None = None  # who pays
    time_minutes: int = Field(default=240, gt=0, le=10_000_000)  # of a worker job; a cut job continues
    nodes: int = Field(default=1, gt=0, le=10_000)  # per worker job; above 1 one stage run spans them by torchrun
    gpus_per_node: int = Field(default=0, ge=0, le=1_000)  # as many workers a job; 0 = on processors
    cpus_per_task: int = Field(default=1, gt=0, le=10_000)  # of a worker
    constraint: str | None = None  # features that a node must have
    extra: dict[str, str | int | bool] = Field(default_factory=dict)  # further sbatch options by name


class ExecutionSpec(Strict):
    """How runs are executed. Recorded, never hashed: it must not change what is computed."""

    workers: int | None = Field(default=None, gt=0, le=MAX_WORKERS)  # processes; null = sized to the machine
    threads: int | None = Field(default=None, gt=0, le=1_000)  # per worker; null = 1
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"  # auto = the accelerator that torch finds, else cpu
    devices_per_run: Devices = 1  # GPUs of one machine, or processes without GPUs, for one stage run
    micro_batch_size: Sequences | None = None  # sequences per forward per rank; null = as large as fits
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"  # auto = where it can and pays
    activation_checkpointing: bool = False  # less memory, one more forward pass
    parallel: Literal["ddp", "fsdp"] = "ddp"  # how one stage run uses several devices
    order: Literal["longest-first", "seed-by-seed"] = "longest-first"  # which of the ready stage runs is taken first
    resume_seconds: float = Field(default=30.0, gt=0, le=1e9)  # least time between two resume states
    slurm: SlurmSpec = SlurmSpec()  # how jobs are asked for

    @model_validator(mode="after")
    def _a_run_fits_a_node(self) -> "ExecutionSpec":
        per_node = self.slurm.gpus_per_node
        if per_node and self.devices_per_run > per_node:
            raise ValueError(
                f"devices_per_run = {self.devices_per_run} is more than slurm.gpus_per_node = {per_node}; ask for more "
                "GPUs a node, or spread a stage run over several nodes by slurm.nodes"
            )
        return self
