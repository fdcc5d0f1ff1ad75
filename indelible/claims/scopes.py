"""The parts of a results table that are judged, and drawn, one by one."""

from collections.abc import Iterable, Iterator

import polars as pl

from indelible.results.columns import varying
from indelible.results.labels import exposure_columns, own_treatments, settings_text, variant_text
from indelible.statistics.divergence import with_worst
from indelible.statistics.inference import WORST_LOSS


def scopes(
    table: pl.DataFrame,
    columns: Iterable[str],
    losses: list[str],
    num_fractions: int,
    *,
    is_split: bool = True,
    worst_loss: float = WORST_LOSS,
    most: float = 1.0,
) -> Iterator[tuple[str, pl.DataFrame, list[float]]]:
    """The parts of a table that a rule judges one by one: name, rows with an outcome, and the swept lambdas.

    Parts with fewer than ``num_fractions`` values of lambda, or without lambda 0, are left out; so is lambda above
    ``most``: beyond 1 (repeated passes) the paper claims nothing. Values of a treatment that the study has of its own
    (a guard, a mix of a later stage) are never averaged: each is a part.

    Args:
        table: results table.
        columns: the settings that make a part; none: the whole. A named arm that sweeps
            lambda itself makes a part, too.
        losses: only rows that have all of these.
        num_fractions: how many values of lambda a part needs.
        is_split: False keeps arms, and ways of showing D_post (mode, placement), together.
        worst_loss: what a diverged chain's losses count as, nats per token.
        most: the largest lambda.
    """
    fraction = pl.col("exposure_fraction")
    done = with_worst(table, losses, worst_loss).filter(fraction <= most).drop_nulls(losses)
    names = list(columns)
    for arm, part in _by_arm(done, num_fractions) if is_split else [("", done)]:
        said = [name for name in names if not arm or part[name].n_unique() > 1 or name.endswith("_tokens")]
        ordered = part.sort(names, maintain_order=True) if names else part
        for key, rows in ordered.group_by(names, maintain_order=True) if names else [((), part)]:
            for how, chosen in _by_treatment(rows, is_split=is_split):
                fractions = sorted(chosen["exposure_fraction"].unique().to_list())
                if len(fractions) >= num_fractions and fractions[0] == 0:
                    text = settings_text(dict(zip(names, key, strict=True)), said)
                    yield " · ".join(word for word in (arm, text, how) if word), chosen, fractions


def _by_arm(done: pl.DataFrame, num_fractions: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each named arm that sweeps lambda by itself, from 0 on; then all other rows together, without a name."""
    fraction = pl.col("exposure_fraction")
    sweeps = (
        done.filter(pl.col("arm").fill_null("") != "")
        .group_by("arm")
        .agg(fraction.n_unique().alias("n"), fraction.min().alias("low"))
        .filter(pl.col("n") >= max(2, num_fractions), pl.col("low") == 0)["arm"]
        .sort()
        .to_list()
    )
    for arm in sweeps:
        yield arm, done.filter(pl.col("arm") == arm)
    yield "", done.filter(~pl.col("arm").fill_null("").is_in(sweeps))


def _by_treatment(rows: pl.DataFrame, *, is_split: bool) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows by the treatments that only this study has, then by the way D_post is shown; unnamed where all agree."""
    own = varying(rows, own_treatments(rows))
    values = rows.select(own).unique().sort(own, nulls_last=False).to_dicts() if own else [{}]
    for row in sorted(values, key=lambda row: variant_text(rows, row, own) != ""):  # what is plain comes first
        is_one = [pl.col(name).eq_missing(pl.lit(value)) for name, value in row.items()]
        part = rows.filter(*is_one) if is_one else rows
        for way, chosen in _by_way(part) if is_split else [("", part)]:
            yield " · ".join(text for text in (variant_text(rows, row, own), way) if text), chosen


def _by_way(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows by the way D_post is shown in pretraining, lambda 0 with each; unnamed when there is but one way."""
    columns = [name for name in exposure_columns(rows) if name != "exposure_fraction"]
    is_none = pl.col("exposure_fraction") == 0
    ways = rows.filter(~is_none).select(columns).unique().sort(columns)
    if ways.height <= 1:
        yield "", rows
        return
    names = [name for name in columns if ways[name].n_unique() > 1]
    for way in ways.iter_rows(named=True):
        is_way = pl.all_horizontal(pl.col(name).eq_missing(way[name]) for name in columns)
        yield settings_text(way, names), rows.filter(is_none | is_way)
