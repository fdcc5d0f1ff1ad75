"""Simulates seeds bought in blocks: `python benchmarks/power_sequential.py` (some minutes on one core).

Prints the tables of docs/analysis.md: how often the looks name something wrongly, how often they find an effect of the
size that `run --until-settled` prints, and how many seeds they buy, for every kind of claim and for four findings that
share the level; and the seeds that the looks would have bought of `central`. 10,000 studies a cell.
"""

import numpy as np
import polars as pl
from power import (
    INNER,
    JUDGES,
    NOISES,
    NUM_LOOKS,
    POWER,
    REFERENCE,
    SKEWED,
    STEPS,
    STUDIES,
    Array,
    Noise,
    check,
    frontier_pool,
    header,
    percent,
    row,
    studies,
    t_p,
)

from indelible.claims.looks import level_of, replay
from indelible.claims.paper_claims import claim_named
from indelible.statistics.inference import holm_levels
from indelible.statistics.sequential import FUTILE, OPEN, Design, decide, is_hopeless, sequential_design
from indelible.statistics.sequential_power import Shape, detectable_in_looks

FAMILY = 4  # findings that share the level
SHAPES = {"ends": Shape(), "flat": Shape(STEPS, correlation=0.5, is_margin=True), "monotone": Shape(STEPS),
          "interior": Shape(2, INNER, 0.5)}  # fmt: skip
SAID = {"supported": 1, "contradicted": -1, FUTILE: 0}


def sequential_table(generator: np.random.Generator) -> None:
    """Size and power of all looks together, by kind of claim."""
    design = sequential_design()
    effects = {kind: detectable_in_looks(design, shape, POWER) for kind, shape in SHAPES.items()}
    header(f"Seeds bought in blocks, looks at {', '.join(map(str, design.looks))}")
    futile = ", ".join("never" if one is None else f"{one:.2f}" for one in design.futile)
    print(f"nominal levels {', '.join(f'{one:.4f}' for one in design.nominal)}; futile from p {futile}")
    print(f"detectable: {', '.join(f'{kind} {effect:.2f} sd' for kind, effect in effects.items())}\n")
    row("claim", "losses", "named wrongly, %", "seeds bought", "supported at the effect, %", "seeds bought")
    most = design.looks[-1]
    for kind, effect in effects.items():
        for name, noise in NOISES.items():
            none = studies(kind, "none", most, noise, effect, generator)
            true = studies(kind, "effect", most, noise, effect, generator)
            check(kind, none)
            check(kind, true)
            cells(kind, name, run_design(design, kind, none), run_design(design, kind, true))
    for name, noise in SKEWED.items():
        drawn = noise(generator, (STUDIES, most))
        # The worse of both directions: a skewed difference is found more easily on one side.
        both = [run_design(design, "ends", as_ends(side * drawn - effects["ends"])) for side in (-1, 1)]
        cells("ends", name, run_design(design, "ends", as_ends(drawn)), min(both, key=lambda one: (one[0] == 1).mean()))
    pool = frontier_pool(generator)
    drawn = generator.choice(pool, (STUDIES, most))
    shifted = as_ends(drawn - effects["ends"] * pool.std())
    none_true = run_design(design, "ends", as_ends(drawn)), run_design(design, "ends", shifted)
    cells("frontier", "normal; 12 chains against 6, one of two a setting", *none_true)
    for name, noise in NOISES.items():
        family_row(design, name, noise, generator)


def cells(kind: str, name: str, none: tuple[Array, Array], true: tuple[Array, Array]) -> None:
    """A row of the table; which names are wrong at the boundary: of steps that are none, only that all fall."""
    wrong = none[0] == 1 if kind == "monotone" else none[0] != 0
    row(kind, name, percent(wrong), f"{none[1].mean():.1f}", percent(true[0] == 1), f"{true[1].mean():.1f}")


def as_ends(differences: Array) -> Array:
    """Differences (studies, seeds) as losses of the two ends."""
    return np.stack([np.zeros_like(differences), differences], axis=2)


def run_design(design: Design, kind: str, losses: Array) -> tuple[Array, Array]:
    """By study: 1 supported, -1 contradicted, 0 neither; and the seeds bought."""
    found, bought = np.zeros(len(losses)), np.full(len(losses), design.looks[-1])
    running = np.arange(len(losses))
    for number, count in enumerate(design.looks):
        support, against = JUDGES[kind](losses[running, :count])
        decisions = [decide(design, number, *pair, *NUM_LOOKS[kind]) for pair in zip(support, against, strict=True)]
        closed = np.array([decision != OPEN for decision in decisions])
        found[running[closed]] = [SAID[decision] for decision in decisions if decision != OPEN]
        bought[running[closed]] = count
        running = running[~closed]
    return found, bought


def family_row(design: Design, name: str, noise: Noise, generator: np.random.Generator) -> None:
    """Four findings of one claim that share the level: any named of four nulls; one true among three nulls."""
    shape = STUDIES, design.looks[-1], FAMILY
    effect = detectable_in_looks(design, Shape(), POWER, FAMILY)
    none, true = ((noise(generator, shape) - noise(generator, shape)) / np.sqrt(2) for _ in range(2))
    true[:, :, 0] -= effect
    drawn = [run_family(design, values) for values in (none, true)]
    sizes = percent((drawn[0][0] != 0).any(axis=1)), f"{drawn[0][1].mean():.1f}"
    row(f"{FAMILY} of `ends`, Holm", name, *sizes, percent(drawn[1][0][:, 0] == 1), f"{drawn[1][1].mean():.1f}")


def run_family(design: Design, values: Array) -> tuple[Array, Array]:
    """As `looks.look` judges scopes that share the level: by study and finding what was found, and the seeds bought."""
    p_values = [[t_p(values[:, :count, one]) for one in range(values.shape[2])] for count in design.looks]
    found, bought = np.zeros((len(values), values.shape[2])), np.zeros(len(values))
    for study in range(len(values)):
        closed: dict[int, int] = {}
        for number, count in enumerate(design.looks):
            still = [one for one in range(values.shape[2]) if one not in closed]
            if not still:
                break
            bought[study] = count
            sides = {one: (p_values[number][one][0][study], float(p_values[number][one][1][study])) for one in still}
            family = {one: 1.0 for one, said in closed.items() if said == 0} | {one: p for one, (_, p) in sides.items()}
            levels = holm_levels(family, level_of(design, number))
            for one, (mean, p) in sides.items():
                if p <= levels[one]:
                    closed[one] = 1 if mean < 0 else -1
                elif is_hopeless(design, number, p):
                    closed[one] = 0
        found[study, list(closed)] = list(closed.values())
    return found, bought


def replays(generator: np.random.Generator, num_orders: int = 200) -> None:
    """`central` bought seed by seed in random orders, until `retained-lower` is closed."""
    header(f"Seeds that `retained-lower` would have bought of `central`'s sixteen, mean over {num_orders} orders")
    row("pipeline", "alone", "supported, %", "futile, %", "with the other three", "supported, %", "futile, %")
    table, claim, design = (
        pl.read_parquet(REFERENCE / "central.parquet"),
        claim_named("retained-lower"),
        sequential_design(),
    )
    table = table.filter(pl.col("exposure_fraction").is_in([0.0, 1.0]))
    orders = [generator.permutation(16).tolist() for _ in range(num_orders)]
    together = [{one.scope: one for one in replay(claim, table, design, order)} for order in orders]
    for pipeline in sorted(table["pipeline"].unique()):
        own = table.filter(pl.col("pipeline") == pipeline)
        alone = [replay(claim, own, design, order)[-1] for order in orders]
        shared = [last for scopes in together for scope, last in scopes.items() if pipeline in scope]
        found = []
        for looks in (alone, shared):
            found.append(f"{np.mean([one.num_seeds for one in looks]):.1f}")
            found += [percent(np.array([one.decision == word for one in looks])) for word in ("supported", "futile")]
        row(pipeline, *found)


def main() -> None:
    """Prints every table; the same numbers each time."""
    generator = np.random.default_rng(2027)
    sequential_table(generator)
    replays(generator)


if __name__ == "__main__":
    main()
