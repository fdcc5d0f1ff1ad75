"""The block "by exposure": how much of D_post to show early, and whether it is worth it, in numbers and in words."""

import math
from collections.abc import Iterator, Sequence

import polars as pl

from indelible.claims.scopes import scopes
from indelible.claims.wording import confidence_text, effect_text
from indelible.errors import UserError
from indelible.results.columns import varying
from indelible.results.labels import differing_columns, plural, treatments, value_text
from indelible.statistics.by_exposure import LOSSES, ExposureBlock, ExposureRow, exposure_block
from indelible.statistics.inference import Inference
from indelible.statistics.planning import new_seeds

_ALWAYS = ("scale", "pipeline", "post_tokens", "allocation")
MIN_SEEDS = 2  # an interval takes two


def exposure_blocks(
    table: pl.DataFrame, inference: Inference | None = None, rate: float | None = None
) -> list[ExposureBlock]:
    """A block for every treatment and every stage-3 rate that a table sweeps lambda at, in the table's order.

    Other swept settings (batch, the learning rates of other stages) are averaged over within each seed.

    Args:
        table: results table; finished chains count, and diverged ones as the worst loss.
        inference: level, margin and worst loss.
        rate: only this stage-3 rate.

    Raises:
        UserError: no chain has this rate.
    """
    inference = inference or Inference()
    rates = table["finetune_lr"].drop_nulls().unique().sort().to_list()
    if rate is not None and rate not in rates:
        raise UserError(
            f"--finetune-lr {rate:g}: no chain has this stage-3 rate; there are "
            f"{', '.join(value_text('finetune_lr', one) for one in rates) or 'none'}."
        )
    return list(_blocks(table, inference, rate))


def _blocks(table: pl.DataFrame, inference: Inference, rate: float | None) -> Iterator[ExposureBlock]:
    differing = differing_columns(table)
    columns = [name for name in varying(table, treatments(table)) if name not in differing]
    columns = list(dict.fromkeys([name for name in _ALWAYS if name in varying(table, _ALWAYS)] + columns))
    for scope, rows, _ in scopes(table, columns, [], 2, worst_loss=inference.worst_loss, most=math.inf):
        filled = _filled(rows, inference.worst_loss)
        for own in filled["finetune_lr"].unique().sort().to_list():
            if rate is None or own == rate:
                found = exposure_block(filled.filter(pl.col("finetune_lr").eq_missing(own)), scope, own, inference)
                if found is not None:
                    yield found


def _filled(rows: pl.DataFrame, worst_loss: float) -> pl.DataFrame:
    """L_ret of diverged chains is the worst; L_im and what was forgotten are what is known of them."""
    is_diverged = pl.col("status") == "diverged"
    worst = pl.when(is_diverged).then(pl.lit(worst_loss)).otherwise(pl.min_horizontal("L_ret", pl.lit(worst_loss)))
    return rows.with_columns(pl.when(is_diverged | pl.col("L_ret").is_not_null()).then(worst).alias("L_ret"))


def default_rate(blocks: Sequence[ExposureBlock]) -> float | None:
    """The stage-3 rate to show first: the lowest at which something is forgotten, else the highest."""
    rates = sorted({block.rate for block in blocks if block.rate is not None})
    forgetting = {block.rate for block in blocks if not block.is_nothing_forgotten}
    return next((rate for rate in rates if rate in forgetting), rates[-1] if rates else None)


def answer(block: ExposureBlock) -> str:
    """How much to show, and whether it is worth it, in two or three sentences."""
    return " ".join(part for part in (forgetting_text(block), _choice(block), _others(block)) if part)


def forgetting_text(block: ExposureBlock) -> str:
    """That no gain can show, and what to do; empty where something is forgotten, or a gain shows all the same."""
    if not block.is_nothing_forgotten or block.pays:
        return ""
    return (
        f"Without exposure nothing is forgotten at this rate ({block.rows[0].losses['forgotten']:+.3f} nats; up to "
        f"{block.margin:g} counts as nothing), so no gain can show: take a higher stage-3 rate, or more D_ft."
    )


def _choice(block: ExposureBlock) -> str:
    best = block.best
    if best.change is None:
        worse = [row for row in block.rows[1:] if not row.may_be_best]
        told = f"; told to be higher: λ {_listed(worse)}" if worse else ""
        return f"Showing none has the lowest mean L_ret{told}."
    number = change_text(best)
    cost = cost_text(best)
    if best.change.n < MIN_SEEDS:
        return f"λ {best.fraction:g} has the lowest L_ret, {number} nats against λ 0{cost}; one seed has no interval."
    if best.change.low is None:
        return f"λ {best.fraction:g} has the lowest mean L_ret, {number} nats against λ 0{cost}; it has no interval."
    if best.change.conclusion() == "lower":
        return f"It pays: λ {best.fraction:g} has the lowest L_ret, {number} nats against λ 0{cost}.{_source(best)}"
    if block.pays:
        lower = [row for row in block.rows[1:] if row.change is not None and row.change.conclusion() == "lower"]
        listed = "; ".join(f"λ {row.fraction:g}: {change_text(row)}" for row in lower)
        return (
            f"It pays, against λ 0: {listed} nats. The lowest mean is at λ {best.fraction:g}, {number}{cost}."
            f"{_source(best)}"
        )
    needed = new_seeds(abs(best.change.effect or 0.0), best.change.sd or 0.0, best.change.n, best.change.level)
    return (
        f"Cannot be told apart from showing none: λ {best.fraction:g} has the lowest mean L_ret, {number} nats against "
        f"λ 0{cost}; to tell, {needed.text}."
    )


def _source(row: ExposureRow) -> str:
    """Where a gain comes from: it is there at hand-over, or it is what the last stage does not erase."""
    if row.change_im is None or row.change_forgotten is None:
        return ""
    return (
        f" Of this {row.change_im:+.4f} is in L_im at hand-over and {row.change_forgotten:+.4f} in what is forgotten."
    )


def _others(block: ExposureBlock) -> str:
    others = [row for row in block.candidates if row is not block.best and row.fraction > 0]
    if not others or (block.best.change is not None and block.best.change.n < MIN_SEEDS):
        return ""
    told = [row for row in block.candidates if row.change is not None and row.change.conclusion() == "lower"]
    least = min(told, key=lambda row: row.fraction, default=block.best)
    cheapest = "" if least is block.best else f"; the least of them that is told from λ 0 is λ {least.fraction:g}"
    return f"Cannot be told apart from the lowest: λ {_listed(others)}{cheapest}."


def _listed(rows: Sequence[ExposureRow]) -> str:
    return ", ".join(f"{row.fraction:g}" for row in rows)


def change_text(row: ExposureRow) -> str:
    """L_ret against lambda 0 with its interval and what it covers with; empty at lambda 0."""
    one = row.change
    return "" if one is None else effect_text(one.effect, one.low, one.high, 1 - one.level)


def cost_text(row: ExposureRow) -> str:
    """`` for 5.0 % more pretraining``: what the lambda costs."""
    if row.extra_share is None:
        return ""
    if not round(row.extra_tokens or 0):
        return " for no more pretraining tokens"
    return f" for {100 * row.extra_share:.3g} % {'more' if row.extra_share > 0 else 'less'} pretraining"


def place_text(block: ExposureBlock) -> str:
    """Treatment and stage-3 rate."""
    rate = "" if block.rate is None else f"stage-3 rate {value_text('finetune_lr', block.rate)}"
    return ", ".join(part for part in (block.scope, rate) if part) or "by exposure"


def cells(block: ExposureBlock) -> list[dict[str, str]]:
    """The block as rows of text by column."""
    return [
        {
            "λ": f"{row.fraction:g}",
            "seeds": str(row.num_seeds) + (f" ({row.num_diverged} diverged)" if row.num_diverged else ""),
            **{loss: _number(row.losses[loss]) for loss in LOSSES},
            "extra tokens": "–" if row.extra_tokens is None else f"{row.extra_tokens:+,.0f}",
            "extra FLOPs": "–" if row.extra_flops is None else f"{row.extra_flops:+.2e}" if row.extra_flops else "+0",
            "L_ret against λ 0": change_text(row) or "–",
            "may be best": "yes" if row.may_be_best else "no",
        }
        for row in block.rows
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def note(blocks: Sequence[ExposureBlock]) -> str:
    """How to read the blocks, and the risk of what they say."""
    level = blocks[0].level if blocks else 0.05
    most = max((block.num_settings for block in blocks), default=1)
    pooled = f" Means over {plural(most, 'setting')} that vary besides." if most > 1 else ""
    return (
        "Means over seeds in nats per token; forgotten is L_ret - L_im; extra is pretraining beyond λ 0. The intervals "
        f"of one block hold together with {confidence_text(1 - level)} (paired over seeds, t, Bonferroni over its λ). "
        "“May be best”: no other λ is told to be lower in L_ret; the best λ is left out with a risk of "
        f"{confidence_text(level)} at most. Each block by itself, at one look.{pooled}"
    )
