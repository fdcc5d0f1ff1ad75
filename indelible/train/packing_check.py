"""Whether a model forgets, where a row's next document begins, all that stood before: tried out, not looked up."""

import torch

from indelible.errors import UserError
from indelible.train import attention
from indelible.train.program import Program

_LENGTHS = (5, 7)  # tokens of the two documents that are tried
_CLOSE = 1e-3  # of the spread of logits: rounding is far below it, a document that is seen far above


@torch.no_grad()
def check_packing(program: Program, what: str) -> None:
    """Compares the logits of two documents in one row with those of each alone.

    Args:
        program: the model, before ranks wrap it; it is left as it was.
        what: what packs documents, for the message.

    Raises:
        UserError: they differ: the model takes no positions, or sees beyond the border.
    """
    model, device = program.model, program.device.torch_device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, sum(_LENGTHS) + 1, device=device)[None] * 7 % vocabulary
    documents = ids.split(_LENGTHS, dim=1)
    places = torch.cat([torch.arange(size, device=device)[None] for size in _LENGTHS], dim=1)
    was_training = model.training
    model.eval()
    try:
        with program.device.whole_fp32():
            with attention.packed(True):
                packed = model(input_ids=ids, position_ids=places, use_cache=False).logits.float()
            alone = torch.cat([model(input_ids=one, use_cache=False).logits.float() for one in documents], dim=1)
    except TypeError:
        raise _refused(program, what, "takes no positions") from None
    finally:
        model.train(was_training)
    if not torch.isfinite(alone).all():
        return  # it diverged: evaluations will say so
    if (packed - alone).abs().max() > _CLOSE * alone.std().clamp(min=1e-6):
        raise _refused(program, what, "sees the documents in front of its own in a row")


def _refused(program: Program, what: str, reason: str) -> UserError:
    return UserError(
        f"{what}: a model of type {program.config.model_type!r} {reason}, so documents that share a row would not be "
        "trained on as if each were alone; say packing: documents (one a row) or stream."
    )
