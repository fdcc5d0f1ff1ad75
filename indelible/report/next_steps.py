"""What to run next and what it costs: from the study's own verdicts, spread and times, never from a fixed list."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from indelible.claims.evidence import INCONCLUSIVE, NOT_TESTED
from indelible.claims.looks import Look
from indelible.claims.seed_plan import SeedPlan, advice, seed_plans
from indelible.claims.verdicts import Finding, Verdict
from indelible.errors import UserError
from indelible.report.headline import (
    AFTER_FINE_TUNE,
    AT_EQUAL_FT,
    AT_EQUAL_RET,
    AT_HAND_OVER,
    ERASED,
)
from indelible.report.seed_cost import hours_per_seed
from indelible.report.stage_cap import Capped, capped_runs
from indelible.results.columns import setting_columns
from indelible.results.core_hours import CORE_HOURS, core_seconds, hours_unit
from indelible.results.labels import plural, value_text
from indelible.results.run_folder import StudyRun
from indelible.statistics.by_exposure import ExposureBlock
from indelible.statistics.inference import Inference
from indelible.statistics.sequential import FUTILE, LOOKS

FEWEST_SEEDS = 3  # from here on an interval says something: with two, t(0.975; 1) = 12.7
RATE_STEP = 3  # a further stage-3 rate is so many times the highest
_QUESTIONS = {  # in the order in which they are asked
    AFTER_FINE_TUNE: "whether exposure lowers L_ret",
    AT_HAND_OVER: "whether L_im stays as it is",
    ERASED: "whether the fine-tune erases less with exposure",
    AT_EQUAL_FT: "whether exposure lowers L_ret at equal L_ft",
    AT_EQUAL_RET: "whether exposure lowers L_pre at equal L_ret",
}


@dataclass(frozen=True)
class NextStep:
    """One thing to do."""

    text: str
    command: str = ""  # to be copied; empty where there is nothing to type


@dataclass(frozen=True)
class Source:
    """Where a study's results come from, and how its runs are priced."""

    places: tuple[Path, ...]  # a folder, or tables and folders joined; none where nothing can be typed
    is_folder: bool  # one folder: a study that can be gone on with
    unit: str  # of prices
    priced: pl.DataFrame  # the results table with ``<stage>_seconds`` in seconds of that unit
    looks: tuple[Look, ...] = ()
    capped: Capped | None = None  # stage-2 runs that patience did not end

    def run(self, *overrides: str) -> str:
        """The command that goes on with the study under some other settings; empty of a table."""
        if not self.is_folder:
            return ""
        folder, sets = self.places[0], [part for one in overrides for part in ("--set", one)]
        return shlex.join(["indelible", "run", str(folder / "study.yaml"), "--out", str(folder), *sets])

    def seeds(self, half_width: float) -> str:
        """The command that plans the next seeds."""
        if not self.places:
            return ""
        return shlex.join(["indelible", "seeds", *map(str, self.places), "--half-width", f"{half_width:.2g}"])


def source_of(table: pl.DataFrame, run: StudyRun | None, places: Sequence[Path], looks: Sequence[Look]) -> Source:
    """Where a results table comes from.

    Args:
        table: the results table.
        run: the study run that it was made of; None of tables and of several places.
        places: as they were named.
        looks: of the study run.
    """
    if run is None:
        return Source(tuple(places), False, CORE_HOURS, table, tuple(looks), capped_runs(table, None))
    is_bundle = (run.root / "bundle.json").is_file()  # without weights and text, in a folder that goes with the process
    priced = hours_unit(run), core_seconds(table, run), tuple(looks), capped_runs(table, run)
    return Source(() if is_bundle else (run.root,), not is_bundle, *priced)


def next_steps(
    table: pl.DataFrame,
    verdicts: Sequence[Verdict],
    inference: Inference,
    source: Source,
    blocks: Sequence[ExposureBlock],
) -> list[NextStep]:
    """What is worth running next, the first thing first; never empty.

    Args:
        table: results table.
        verdicts: of its claims.
        inference: how it is judged.
        source: where it comes from.
        blocks: the study by exposure (`indelible.claims.by_exposure.exposure_blocks`).
    """
    steps = [*_undertrained(source), *_unfinished(table, source), *_nothing_forgotten(table, blocks, source)]
    steps += _open_claims(verdicts, inference, source)
    return steps or [_nothing_open(verdicts, source)]


def _undertrained(source: Source) -> Iterator[NextStep]:
    """A longer stage 2, where most of its runs were still getting better when their budget ended."""
    found = source.capped
    if found is not None and found.is_most:
        yield NextStep(
            f"Stage 2 ended at posttrain.max_tokens in {found.count} of {plural(found.num_runs, 'run')} before early "
            "stopping: raise it. Until then a gain may be no more than a head start on D_post.",
            source.run(f"posttrain.max_tokens={found.doubled}") if found.budget else "",
        )


def _unfinished(table: pl.DataFrame, source: Source) -> Iterator[NextStep]:
    count = table.filter(~pl.col("status").is_in(["done", "diverged"])).height
    if count:
        yield NextStep(f"{plural(count, 'chain')} not finished: the same command goes on where it stopped.",
                       source.run())  # fmt: skip


def _nothing_forgotten(table: pl.DataFrame, blocks: Sequence[ExposureBlock], source: Source) -> Iterator[NextStep]:
    """A higher stage-3 rate, where at none of those that are there anything is forgotten."""
    if not blocks or any(block.pays or not block.is_nothing_forgotten for block in blocks):
        return
    rates = table["finetune_lr"].drop_nulls().unique().sort().to_list()
    further = [*rates, RATE_STEP * rates[-1]] if rates else []
    listed = ", ".join(value_text("finetune_lr", one) for one in further)
    hours = _stage_hours(source.priced, "finetune")
    price = f" Price: about {hours / len(rates):.2g} {source.unit}." if hours and rates else ""
    yield NextStep(
        "Nothing is forgotten at any stage-3 rate of this study, so no gain can show. Add a higher rate, to "
        f"see what exposure saves.{price}",
        source.run(f"finetune.lr=[{listed}]") if further else "",
    )


def _open_claims(verdicts: Sequence[Verdict], inference: Inference, source: Source) -> Iterator[NextStep]:
    """The first claim that seeds would settle, where they are fewest; before it, one that is out of reach, is told."""
    given_up = {(one.claim, one.scope) for one in source.looks if one.decision == FUTILE}
    for claim, question in _QUESTIONS.items():
        found = [one.finding for one in verdicts if one.claim == claim and (claim, one.finding.scope) not in given_up]
        found = [one for one in found if one.verdict == INCONCLUSIVE and one.effect is not None]
        if found:
            easiest = min(found, key=_seeds_low)
            where = f" in {easiest.scope}" if len(found) > 1 and easiest.scope else ""
            yield _more_seeds(easiest, claim, f"Open: {question}{where}.", inference, source)
            if _is_in_reach(easiest, source):
                return


def _is_in_reach(easiest: Finding, source: Source) -> bool:
    """Whether so many seeds as it may take are ever worth planning; of very few seeds that is not known yet."""
    if easiest.num_seeds < FEWEST_SEEDS or easiest.new_seeds is None:
        return True
    return _num_seeds(source) + _seeds_low(easiest) <= LOOKS[-1]


def _num_seeds(source: Source) -> int:
    return source.priced.filter(pl.col("status") == "done")["seed"].n_unique()


def _more_seeds(easiest: Finding, claim: str, head: str, inference: Inference, source: Source) -> NextStep:
    if any(name.endswith("_seed") for name in setting_columns(source.priced)) and claim == AFTER_FINE_TUNE:
        return _nested_seeds(head, easiest, inference, source)
    if easiest.num_seeds < FEWEST_SEEDS:
        count = FEWEST_SEEDS - _num_seeds(source)
        if count > 0:
            return _block(head, count, f"fewer than {FEWEST_SEEDS} say next to nothing of the noise", claim, source)
    needed = easiest.new_seeds
    if needed is None:
        return NextStep(f"{head} All seeds have the same difference, so nothing says how many would settle it.")
    if needed.low is None or not _is_in_reach(easiest, source):
        return NextStep(
            f"{head} It would take {needed.text}: the effect found is small against the noise. Leave it, or ask it "
            "where more is forgotten (a higher stage-3 rate)."
        )
    return _block(head, needed.low, f"it takes {needed.text}", claim, source)


def _block(head: str, count: int, why: str, claim: str, source: Source) -> NextStep:
    """A block of new seeds of the whole study, with its price."""
    seeds = sorted(source.priced["seed"].unique().to_list())
    new = [one for one in range(count + len(seeds)) if one not in seeds][:count]
    hours = hours_per_seed(source.priced, source.priced["finetune_id"].drop_nulls())
    price = f": {hours * count:.2g} {source.unit} for all chains" if hours else ""
    command = source.run(f"seeds=[{','.join(map(str, [*seeds, *new]))}]")
    planned = f" Instead of --set, --until-settled {claim} adds blocks at looks planned beforehand." if command else ""
    return NextStep(f"{head} Add {plural(count, 'seed')} ({why}){price}.{planned}", command)


def _nested_seeds(head: str, found: Finding, inference: Inference, source: Source) -> NextStep:
    """The cheapest seeds over all stages, where a study has seeds of single stages."""
    wanted, level = abs(found.effect or 0.0), 1 - (found.confidence or 1 - inference.level)
    try:
        plans = seed_plans(source.priced, "L_ret", wanted, None, replace(inference, level=level))
    except UserError as error:
        return NextStep(f"{head} {error}")
    best = min((one for one in plans if one.best is not None), key=_price)
    return NextStep(f"{head} In {best.scope}: {advice(best, source.unit)}.", source.seeds(wanted))


def _price(plan: SeedPlan) -> tuple[bool, float]:
    assert plan.best is not None
    return not plan.best.is_reached, plan.best.hours


def _seeds_low(found: Finding) -> float:
    return math.inf if found.new_seeds is None or found.new_seeds.low is None else found.new_seeds.low


def _nothing_open(verdicts: Sequence[Verdict], source: Source) -> NextStep:
    tested = [one for one in verdicts if one.claim in _QUESTIONS and one.finding.verdict != NOT_TESTED]
    if tested:
        return NextStep("Settled: what this study asks of exposure is answered; nothing needs to be run.")
    num_seeds = _num_seeds(source)
    if 0 < num_seeds < FEWEST_SEEDS:
        head = "No noise to compare with yet."
        count = FEWEST_SEEDS - num_seeds
        step = _block(head, count, f"{plural(FEWEST_SEEDS, 'seed')} have an interval", "", source)
        return replace(step, text=step.text.partition(" Instead of")[0])
    return NextStep("No claim of the paper is open in this study; nothing needs to be run.")


def _stage_hours(table: pl.DataFrame, stage: str) -> float:
    """Of all runs of a stage, each once."""
    runs = table.select(f"{stage}_id", f"{stage}_seconds").drop_nulls().unique(f"{stage}_id")
    return float(runs[f"{stage}_seconds"].sum()) / 3600
