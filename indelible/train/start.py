"""The model that a stage starts from: drawn anew, a parent's checkpoint, or a given one."""

from pathlib import Path

from indelible.errors import UserError
from indelible.files import read_json
from indelible.model.build import initialise, load_config, load_given, model_config
from indelible.model.given import check_tokenizer
from indelible.model.lora import load_adapters
from indelible.study.spec import LoraSpec
from indelible.study.stages import StageSpec
from indelible.train.checkpoint import Adapters, read_adapters
from indelible.train.device import Device
from indelible.train.job import StageJob
from indelible.train.program import Program, get_program, read_state


def starting_program(job: StageJob, spec: StageSpec, tokenizer_dir: Path, device: Device) -> Program:
    """The program of a stage with the weights that it starts from.

    Raises:
        UserError: the checkpoint is missing, or does not fit the tokenizer, the window length or the method.
    """
    dropout, lora = spec.training.dropout, spec.training.lora
    if spec.model is not None:
        info = read_json(tokenizer_dir / "indelible.json")
        config = model_config(spec.model, info["vocab_size"], spec.seq_len, info["eos_id"])
        program = get_program(config, dropout, lora, device)
        initialise(program.model, spec.model, spec.seed)
        return program
    if job.parent_dir is None:
        return _given(job, spec, tokenizer_dir, device)
    folder = _existing(job.parent_dir / "checkpoint", job.run_id)
    kept = read_adapters(folder)
    if kept is not None:
        _check_adapters(kept, lora, job)
    program = get_program(load_config(folder), dropout, lora, device)
    program.load_base(read_state(folder), spec.seed)
    if kept is not None:
        load_adapters(program.model, kept.tensors)
    return program


def _given(job: StageJob, spec: StageSpec, tokenizer_dir: Path, device: Device) -> Program:
    folder = _existing(Path(job.execution["init_checkpoint"]), job.run_id)
    config, state = load_given(folder)
    text_config = config.get_text_config(decoder=True)
    check_tokenizer(folder, tokenizer_dir, text_config.vocab_size)
    context = getattr(text_config, "max_position_embeddings", None)
    if context is not None and spec.seq_len > context:
        raise UserError(f"seq_len = {spec.seq_len}: {folder} has a context of {context} tokens; lower seq_len to that.")
    program = get_program(config, spec.training.dropout, spec.training.lora, device)
    program.load_base(state, spec.seed)
    return program


def _existing(folder: Path, run_id: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: the checkpoint that {run_id} starts from is not there; run its parent again.")
    return folder


def _check_adapters(kept: Adapters, lora: LoraSpec | None, job: StageJob) -> None:
    def shape(spec: LoraSpec) -> tuple:
        return spec.r, spec.alpha, sorted(spec.targets)

    if lora is None or shape(lora) != shape(kept.spec):
        raise UserError(
            f"{job.run_id}: the stage before it kept its adapters (lora.merge: false, r {kept.spec.r}, alpha "
            f"{kept.spec.alpha:g}, {', '.join(kept.spec.targets)}), so this one must train on with them: set "
            f"{job.stage}.method: lora with the same r, alpha and targets, or lora.merge: true in the stage before."
        )
