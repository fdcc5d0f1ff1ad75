"""The page's words in one line, for those who meet them first there."""

_LOSSES = (
    "L_im: loss on what shall be kept (D_post) as soon as it is learned, at hand-over. L_ret: the same after the later "
    "fine-tune. Forgotten: L_ret - L_im. L_ft: loss on the fine-tune’s own text (D_ft). L_pre: loss on the general "
    "text of pretraining (D_pre). All in nats per token, on text that was held out; lower is better."
)
_EXPOSURE = "λ: the part of D_post that is shown in pretraining already; 0 is none. "


def legend_text(*, has_exposure: bool) -> str:
    """What the losses are, and lambda where some chain has it."""
    return (_EXPOSURE if has_exposure else "") + _LOSSES
