"""Every claim of the paper that its figures can be asked about, each a rule over a results table."""

from collections.abc import Mapping

import polars as pl

from indelible.claims import paper_figures as paper
from indelible.claims.frontier_rules import (
    DROPOUT,
    LORA_MIXED,
    LORA_UNMIXED,
    MIXED,
    MIXED_DROPOUT,
    MIXED_REPLAY,
    REPLAY,
    UNMIXED,
    frontier_below,
)
from indelible.claims.rules import at_equal_loss, ends, flat, forgetting, interior, monotone
from indelible.claims.verdicts import Claim, LevelOf, Verdict, at_face_value, judge
from indelible.errors import UserError
from indelible.statistics.inference import Inference

CLAIMS: tuple[Claim, ...] = (
    Claim("hand-over-flat", "Figure 3a left", "Exposure leaves L_im as it is: the gain is invisible at hand-over.",
          flat("L_im", "full")),
    Claim("retained-lower", "Figure 3a right", "Exposure lowers L_ret.", ends("L_ret", "full", "lower")),
    Claim("less-erased", "Abstract, Figure 3a", "Exposure lowers what the later fine-tune erases, L_ret - L_im.",
          forgetting("full")),
    Claim("retained-falls-steadily", "Figure 3a right", "L_ret falls at every step of λ.", monotone("L_ret", "full")),
    Claim("matched-hand-over-higher", "Figure 3b left", "Compute-matched, exposure raises L_im.",
          ends("L_im", "matched", "higher")),
    Claim("matched-hand-over-rises-steadily", "Figure 3b left", "Compute-matched, L_im rises at every step of λ.",
          monotone("L_im", "matched", "higher")),
    Claim("matched-retained-lower", "Figure 3b right",
          "Compute-matched, all of D_post early (λ 1) gives a lower L_ret than all of it late (λ 0).",
          ends("L_ret", "matched", "lower")),
    Claim("matched-retained-falls-steadily", "Section on Figure 3b",
          "Compute-matched, increasing λ consistently improves L_ret.", monotone("L_ret", "matched")),
    Claim("matched-best-inside", "Figure 3b right", "Compute-matched, L_ret is lowest at a λ strictly between 0 and 1.",
          interior("L_ret", "matched")),
    Claim("frontier-retained", "Figures 2, 8, 9 left", "At equal L_ft, the mixed frontier has the lower L_ret.",
          frontier_below("L_ft", "L_ret", MIXED, UNMIXED), is_paired=False),
    Claim("frontier-general", "Figures 2, 8, 9 right", "At equal L_ret, the mixed frontier has the lower L_pre.",
          frontier_below("L_ret", "L_pre", MIXED, UNMIXED), is_paired=False),
    Claim("equal-ft", "Figure 2 left, arm by arm", "At equal L_ft along the stage-3 LR, exposure lowers L_ret.",
          at_equal_loss("L_ft", "L_ret", ("finetune_lr",))),
    Claim("equal-im", "Section on the latent benefit", "At equal L_im, exposure lowers L_ret.",
          at_equal_loss("L_im", "L_ret", ("posttrain_lr", "posttrain_global_batch_size", "post_tokens"))),
    Claim("dropout-adds-ft", "Figures 4, 10 left", "Dropout on top of mixing improves (L_ret, L_ft) further.",
          frontier_below("L_ret", "L_ft", MIXED_DROPOUT, MIXED), is_paired=False),
    Claim("dropout-adds-general", "Figures 5, 11 left", "Dropout on top of mixing improves (L_ret, L_pre) further.",
          frontier_below("L_ret", "L_pre", MIXED_DROPOUT, MIXED), is_paired=False),
    Claim("replay-adds-ft", "Figures 4, 10 right", "Replay on top of mixing improves (L_ret, L_ft) further.",
          frontier_below("L_ret", "L_ft", MIXED_REPLAY, MIXED), is_paired=False),
    Claim("replay-adds-general", "Figures 5, 11 right", "Replay on top of mixing improves (L_ret, L_pre) further.",
          frontier_below("L_ret", "L_pre", MIXED_REPLAY, MIXED), is_paired=False),
    Claim("mixing-beats-dropout", "Figures 6, 12 left", "Mixing alone beats dropout alone in (L_ret, L_ft).",
          frontier_below("L_ret", "L_ft", MIXED, DROPOUT), is_paired=False),
    Claim("mixing-beats-replay", "Figures 6, 12 right", "Mixing alone beats replay alone in (L_ret, L_ft).",
          frontier_below("L_ret", "L_ft", MIXED, REPLAY), is_paired=False),
    Claim("mixing-helps-lora", "Figure 7", "With LoRA in stage 2, mixing improves (L_ret, L_ft) too.",
          frontier_below("L_ret", "L_ft", LORA_MIXED, LORA_UNMIXED), is_paired=False),
)  # fmt: skip


def study_verdicts(
    table: pl.DataFrame,
    inference: Inference | None = None,
    *,
    is_corrected: bool = True,
    planned: Mapping[str, LevelOf] | None = None,
) -> list[Verdict]:
    """Every claim, judged on a results table with the noise between seeds taken into account (see `judge`)."""
    return judge(CLAIMS, table, inference, is_corrected=is_corrected, planned=planned)


def paper_verdicts() -> list[Verdict]:
    """Every claim, judged at face value on the paper's own values (one seed, no error bars)."""
    paired_values, clouds = paper.figure_3_table(), paper.chains_table()
    verdicts = [one for claim in CLAIMS for one in judge([claim], paired_values if claim.is_paired else clouds)]
    return at_face_value(verdicts)


def claim_named(name: str) -> Claim:
    """The claim of that name.

    Raises:
        UserError: there is none.
    """
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    raise UserError(f"{name} is no claim; choose one of {', '.join(claim.name for claim in CLAIMS)}.")
