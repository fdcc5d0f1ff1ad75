"""The model that a stage starts from: drawn anew, a parent's checkpoint, or a given one."""

from pathlib import Path

from indelible.data.tokenizer import read_made
from indelible.errors import UserError
from indelible.models.build import initialise, load_config, model_config
from indelible.models.given import check_tokenizer
from indelible.models.load_given import load_given
from indelible.models.lora import load_adapters
from indelible.models.weights import read_state
from indelible.study.adapt import LoraSpec
from indelible.study.stage_spec import StageSpec
from indelible.train.checkpoint import Adapters, read_adapters
from indelible.train.device import Device
from indelible.train.job import StageJob
from indelible.train.program import Program, get_program


def starting_program(job: StageJob, spec: StageSpec, tokenizer_dir: Path, device: Device) -> Program:
    """The program of a stage with the weights that it starts from.

    Raises:
        UserError: the checkpoint is missing, or does not fit the tokenizer, the window length or the method.
    """
    dropout, lora = spec.training.dropout, spec.adapt if isinstance(spec.adapt, LoraSpec) else None
    if spec.model is not None:
        info = read_made(tokenizer_dir)
        config = model_config(spec.model, info.vocab_size, spec.seq_len, info.eos_id)
        program = get_program(config, dropout, lora, device)
        initialise(program.model, spec.model, spec.seed)
        return program
    folder = existing_checkpoint(job.start_dir, f"{job.run_id} starts from")
    if spec.init is not None:
        return given_program(folder, tokenizer_dir, spec.seq_len, device, dropout, lora, spec.seed)
    kept = read_adapters(folder)
    if kept is not None:
        _check_adapters(kept, lora, job)
    program = get_program(load_config(folder), dropout, lora, device)
    program.load_base(read_state(folder), spec.seed)
    if kept is not None:
        load_adapters(program.model, kept.tensors)
    return program


def given_program(
    folder: Path,
    tokenizer_dir: Path,
    seq_len: int,
    device: Device,
    dropout: float = 0.0,
    lora: LoraSpec | None = None,
    lora_seed: int = 0,
) -> Program:
    """The program of a checkpoint that somebody else may have made, checked against the study.

    Raises:
        UserError: it cannot be loaded as it is, has other tokens, or a context shorter than ``seq_len``.
    """
    config, state = load_given(folder)
    text_config = config.get_text_config(decoder=True)
    check_tokenizer(folder, tokenizer_dir, text_config.vocab_size)
    context = getattr(text_config, "max_position_embeddings", None)
    if context is not None and seq_len > context:
        raise UserError(f"seq_len = {seq_len}: {folder} has a context of {context} tokens; lower seq_len to that.")
    program = get_program(config, dropout, lora, device)
    program.load_base(state, lora_seed)
    return program


def existing_checkpoint(folder: Path | None, whose: str) -> Path:
    """The folder, if it is there.

    Raises:
        UserError: it is not.
    """
    if folder is None or not folder.is_dir():
        raise UserError(f"{folder}: the checkpoint that {whose} is not there; run its parent again.")
    return folder


def _check_adapters(kept: Adapters, lora: LoraSpec | None, job: StageJob) -> None:
    def shape(spec: LoraSpec) -> tuple:
        return spec.r, spec.alpha, sorted(spec.targets)

    if lora is None or shape(lora) != shape(kept.spec):
        raise UserError(
            f"{job.run_id}: the stage before it kept its adapters (merge: false, r {kept.spec.r}, alpha "
            f"{kept.spec.alpha:g}, {', '.join(kept.spec.targets)}), so this one must train on with them: set "
            f"stages.{job.stage}.adapt to kind: lora (in the short form {job.stage}.method: lora) with the same r, "
            "alpha and targets, or merge: true in the stage before."
        )
