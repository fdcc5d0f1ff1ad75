"""Simulates the rules that decide: how often they err, how often they find an effect of the printed size.

`python benchmarks/power.py` prints the tables of docs/analysis.md (three minutes on one core): size and power of
every kind of claim with a fixed number of seeds, and arms of the reference tables judged against themselves. 10,000
studies a cell, so that a risk of 5 % is known to 0.4 points and a power of 80 % to 0.8. Every cell judges its first
studies with the rules themselves, too, and stops where they and the fast copies here differ. Seeds bought in blocks:
`power_sequential.py`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from scipy import special

from indelible.claims.rules import ends, flat, interior, monotone
from indelible.results.columns import SCHEMA
from indelible.statistics.compare import compare_at_equal_settings
from indelible.statistics.frontier_score import score
from indelible.statistics.inference import FLAT_MARGIN, WORST_LOSS, Inference, holm_levels
from indelible.statistics.planning import detectable_effect, detectable_margin, part_power

STUDIES, LEVEL, POWER = 10_000, 0.05, 0.8
COUNTS = (2, 3, 5, 8, 16)
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS, INNER = 4, 3
CHECKED = 10  # studies a cell that the rules themselves judge
REFERENCE = Path(__file__).parents[1] / "reference"
Array = np.ndarray
Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]

NOISES: dict[str, Noise] = {  # mean 0, standard deviation 1
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "skewed (exponential)": lambda generator, shape: generator.exponential(1.0, shape) - 1.0,
    "heavy tails (t, 3 df)": lambda generator, shape: generator.standard_t(3, shape) / np.sqrt(3),
}
SKEWED: dict[str, Noise] = {  # of the differences themselves: an arm that changes the law of the noise
    "differences with skewness 0.7": lambda generator, shape: (generator.gamma(8, 1, shape) - 8) / np.sqrt(8),
    "differences with skewness 2": lambda generator, shape: generator.exponential(1.0, shape) - 1.0,
}


# ---- the rules on arrays of losses (studies, seeds, lambdas): p of support and p against, each of the comparison
# that decides by itself; NUM_LOOKS: of how many, one of which is enough


def t_p(differences: Array) -> tuple[Array, Array]:
    """Effect and two-sided p of the paired t test; differences (studies, seeds, ...)."""
    n = differences.shape[1]
    mean, sd = differences.mean(axis=1), differences.std(axis=1, ddof=1)
    return mean, 2 * special.stdtr(n - 1, -np.abs(mean) * np.sqrt(n) / sd)


def one_way(mean: Array, p: Array, sign: int) -> Array:
    return np.where(mean * sign > 0, p, 1.0)


def judge_ends(losses: Array) -> tuple[Array, Array]:
    mean, p = t_p(losses[:, :, -1] - losses[:, :, 0])
    return one_way(mean, p, -1), one_way(mean, p, 1)


def judge_flat(losses: Array) -> tuple[Array, Array]:
    differences = losses[:, :, 1:] - losses[:, :, :1]
    n = differences.shape[1]
    room = FLAT_MARGIN - np.abs(differences.mean(axis=1))
    inside = 2 * special.stdtr(n - 1, -room * np.sqrt(n) / differences.std(axis=1, ddof=1))
    return np.minimum(1.0, inside).max(axis=1), np.minimum(1.0, 2 - inside).min(axis=1)


def judge_monotone(losses: Array) -> tuple[Array, Array]:
    mean, p = t_p(np.diff(losses, axis=2))
    return one_way(mean, p, -1).max(axis=1), one_way(mean, p, 1).min(axis=1)


def judge_interior(losses: Array) -> tuple[Array, Array]:
    inner = losses[:, :, 1:-1]
    pairs = [t_p(inner - losses[:, :, [end]]) for end in (0, -1)]
    below = np.stack([one_way(*pair, -1) for pair in pairs]).max(axis=0)
    above = np.stack([one_way(*pair, 1) for pair in pairs]).min(axis=0)
    return below.min(axis=1), above.max(axis=1)


JUDGES = {"ends": judge_ends, "flat": judge_flat, "monotone": judge_monotone, "interior": judge_interior}
NUM_LOOKS = {"ends": (1, 1), "flat": (1, STEPS), "monotone": (1, STEPS), "interior": (INNER, 2)}
RULES = {"ends": ends("L_ret", "full", "lower"), "flat": flat("L_ret", "full"),
         "monotone": monotone("L_ret", "full"), "interior": interior("L_ret", "full")}  # fmt: skip


def judged(kind: str, losses: Array) -> tuple[Array, Array]:
    """p of support and p against, corrected within the finding."""
    sides = zip(JUDGES[kind](losses), NUM_LOOKS[kind], strict=True)
    support, against = (np.minimum(1.0, p * num_looks) for p, num_looks in sides)
    return support, against


def as_table(losses: Array) -> pl.DataFrame:
    """One study's losses (seeds, lambdas) as a results table."""
    fixed = {"study": "s", "scale": "pico", "pipeline": "a>b>c", "arm": "", "exposure_mode": "add", "status": "done",
             "placement": "uniform", "allocation": "full", "post_tokens": 1, "L_im": 2.0}  # fmt: skip
    rows = [{**fixed, "seed": seed, "exposure_fraction": LAMBDAS[place], "L_ret": 6.0 + float(loss),
             "finetune_id": f"f-{seed}-{place}", "posttrain_id": f"p-{seed}-{place}"}
            for seed, line in enumerate(losses) for place, loss in enumerate(line)]  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA)


def check(kind: str, losses: Array) -> None:
    """The rules themselves say the same of the first studies."""
    support, against = judged(kind, losses[:CHECKED])
    for study in range(CHECKED):
        (evidence,) = RULES[kind](as_table(losses[study]), Inference(worst_loss=1e9))  # losses here are in sd
        found = (evidence.support.p, evidence.against.p)
        if not np.allclose(found, (support[study], against[study]), rtol=1e-6, atol=1e-9):
            sys.exit(f"{kind}: the rule says {found}, its copy here {support[study], against[study]}")


# ---- studies with a known truth: losses (studies, seeds, lambdas)


def studies(kind: str, truth: str, n: int, noise: Noise, effect: float, generator: np.random.Generator) -> Array:
    """The noise is that of each lambda's loss, so that two arms without an effect have the same.

    ``truth``: "none" is the boundary at which the claim is hardest not to get wrong; "effect": ``effect`` in sd of
    the differences.
    """
    losses = noise(generator, (STUDIES, n, len(LAMBDAS))) / np.sqrt(2)
    if kind == "ends":
        return losses - np.array([0, 0, 0, 0, effect if truth == "effect" else 0.0])
    if kind == "flat":  # sd such that the margin is what this design shows; none: one lambda lies on the margin
        return losses * FLAT_MARGIN / effect + np.array([0, 0, 0, 0, 0.0 if truth == "effect" else FLAT_MARGIN])
    if kind == "monotone":  # none: one step is none, the others are beyond doubt
        steps = [0.0, *[effect] * STEPS] if truth == "effect" else [0.0, 1e3, 1e3, 0.0, 1e3]
        return losses - np.cumsum(steps)
    return losses - np.array([0, 0, effect if truth == "effect" else 0.0, 0, 0])


def printed_effect(kind: str, n: int) -> float:
    """What the tool prints as detectable, in standard deviations, at the level and power that decide."""
    if kind == "ends":
        return detectable_effect(1.0, n, LEVEL, POWER)
    if kind == "flat":
        return detectable_margin(1.0, n, LEVEL, part_power(POWER, STEPS, 0.25))
    if kind == "monotone":
        return detectable_effect(1.0, n, LEVEL, part_power(POWER, STEPS))
    return detectable_effect(1.0, n, LEVEL / INNER, part_power(POWER, 2, 0.5))


def fixed_table(generator: np.random.Generator) -> None:
    """Size (named wrongly) and power (supported) of every kind of claim."""
    header("Named wrongly where there is nothing to find / supported at the printed effect, % of 10,000 studies")
    row("claim", "losses", *(f"n = {n}" for n in COUNTS))
    for kind in JUDGES:
        for name, noise in NOISES.items():
            cells = []
            for n in COUNTS:
                none = studies(kind, "none", n, noise, printed_effect(kind, n), generator)
                true = studies(kind, "effect", n, noise, printed_effect(kind, n), generator)
                check(kind, none)
                check(kind, true)
                support, against = judged(kind, none)
                cells.append(f"{percent(wrong(kind, support, against))} / {percent(judged(kind, true)[0] <= LEVEL)}")
            row(kind, name, *cells)
    for name, noise in SKEWED.items():
        cells = []
        for n in COUNTS:
            drawn = noise(generator, (STUDIES, n))
            # The worse of both directions: a skewed difference is found more easily on one side.
            true = [(one_way(*t_p(drawn + side * detectable_effect(1.0, n)), side) <= LEVEL) for side in (-1, 1)]
            low = min(true, key=np.mean)
            cells.append(f"{percent(t_p(drawn)[1] <= LEVEL)} / {percent(low)}")
        row("ends", name, *cells)
    pool = frontier_pool(generator)
    cells = []
    for n in COUNTS:
        drawn = generator.choice(pool, (STUDIES, n))
        shifted = drawn - detectable_effect(float(pool.std()), n, LEVEL, POWER)
        cells.append(f"{percent(t_p(drawn)[1] <= LEVEL)} / {percent(one_way(*t_p(shifted), -1) <= LEVEL)}")
    row("frontier", "normal; 12 chains against 6, one of two a setting", *cells)
    family_rows(generator)


def reserve_table() -> None:
    """By what the printed effect (of `flat` the margin) must be multiplied to be found with the printed power."""
    header("Times the printed effect that is found with power 0.8, by losses that are not normal")
    row("claim", "losses", *(f"n = {n}" for n in COUNTS))
    for kind in ("flat", "monotone"):
        for name, noise in NOISES.items():
            row(kind, name, *(f"{reserve(kind, n, noise):.2f}" for n in COUNTS))


def reserve(kind: str, n: int, noise: Noise) -> float:
    """The factor, by halving, on the same studies each time."""
    low, high = 0.5, 2.0
    while high - low > 0.005:
        middle = (low + high) / 2
        effect = middle * printed_effect(kind, n)
        found = judged(kind, studies(kind, "effect", n, noise, effect, np.random.default_rng(5)))[0] <= LEVEL
        low, high = (middle, high) if found.mean() < POWER else (low, middle)
    return (low + high) / 2


def wrong(kind: str, support: Array, against: Array) -> Array:
    """Which names are wrong at the boundary: of steps that are none, only that all fall; else either."""
    return support <= LEVEL if kind == "monotone" else (support <= LEVEL) | (against <= LEVEL)


def frontier_pool(generator: np.random.Generator, num_seeds: int = 20_000) -> Array:
    """Differences of the scores of two arms of one law, a seed each: six settings, two variants of each in one arm."""
    differences = np.empty(num_seeds)
    lowest = np.linspace((3.5, 6.5), (7.5, 2.5), 6)  # what a sweep trades
    for seed in range(num_seeds):
        shared = generator.normal(0, 0.1, 2)
        first, *others = shared + lowest + generator.normal(0, 0.4, (3, 6, 2))
        blocks = [[first[n : n + 1] for n in range(6)], [np.stack([one[n] for one in others]) for n in range(6)]]
        scores = [score(side, [1] * 6, WORST_LOSS) for side in blocks]
        differences[seed] = scores[1] - scores[0]
    return differences


def family_rows(generator: np.random.Generator) -> None:
    """Four findings of one claim that share the level (Holm): any named of four nulls; one true among three nulls."""
    for name, noise in NOISES.items():
        cells = []
        for n in COUNTS:
            values = (noise(generator, (STUDIES, n, 4)) - noise(generator, (STUDIES, n, 4))) / np.sqrt(2)
            none = holm_any(t_p(values)[1])
            mean, p = t_p(values - np.array([detectable_effect(1.0, n, LEVEL / 4, POWER), 0, 0, 0]))
            found = (mean[:, 0] < 0) & holm_found(p)[:, 0]
            cells.append(f"{percent(none)} / {percent(found)}")
        row("four of `ends`, Holm", name, *cells)


def holm_found(p_values: Array) -> Array:
    found = np.empty(p_values.shape, dtype=bool)
    for study, line in enumerate(p_values):
        levels = holm_levels(dict(enumerate(line)), lambda members: LEVEL / members)
        found[study] = [p <= levels[place] for place, p in enumerate(line)]
    return found


def holm_any(p_values: Array) -> Array:
    return holm_found(p_values).any(axis=1)


# ---- the reference tables


def same_against_same(generator: np.random.Generator, num_splits: int = 200) -> None:
    """Each arm's sixteen seeds split in halves that are judged against each other, by L_ret, L_im and the frontier.

    As the tool judges: the pipelines of one arm are findings of one claim and share the level; and each by itself.
    """
    header(f"Arms judged against themselves: {num_splits} splits of sixteen seeds into eight pairs, named different, %")
    row("table", "arms", "loss", "of the findings (Holm)", "any of a claim (Holm)", "of the findings, --uncorrected")
    for name in ("central", "mitigations"):
        table = pl.read_parquet(REFERENCE / f"{name}.parquet")
        families = [family.partition_by("pipeline", maintain_order=True)
                    for family in table.partition_by("arm", "exposure_fraction", maintain_order=True)]  # fmt: skip
        check_split(families[0][0], generator.permutation(16))
        for loss in ("L_ret", "L_im", "L_ret within L_ft"):
            values = [np.array([by_seed(arm, loss) for arm in family]) for family in families]
            p_values = [
                np.stack([split_p(one, generator.permutation(16)) for _ in range(num_splits)]) for one in values
            ]
            named = [holm_found(one) for one in p_values]
            each = np.concatenate([one.ravel() for one in named])
            families_named = np.concatenate([one.any(axis=1) for one in named])
            plain = np.concatenate([one.ravel() <= LEVEL for one in p_values])
            row(name, str(sum(map(len, families))), loss, percent(each), percent(families_named), percent(plain))


def by_seed(arm: pl.DataFrame, loss: str) -> list[float]:
    """A number a seed: the mean loss over settings, or the frontier's score."""
    parts = arm.partition_by("seed", maintain_order=True)
    if loss in arm.columns:
        return [float(part[loss].mean()) for part in parts]  # type: ignore[arg-type]
    return [score([part.select("L_ft", "L_ret").to_numpy()], [part.height], WORST_LOSS) for part in parts]


def split_p(values: Array, order: Array) -> Array:
    """p of one half of the seeds against the other, for each row of values (arms, seeds)."""
    return t_p((values[:, order[8:]] - values[:, order[:8]]).T[None])[1][0]


def check_split(arm: pl.DataFrame, order: Array) -> None:
    """The comparison itself says the same of one split."""
    seeds = arm["seed"].unique(maintain_order=True).to_list()
    place = {seeds[position]: number % 8 for number, position in enumerate(order)}
    half = {seeds[position]: "second" if number >= 8 else "first" for number, position in enumerate(order)}
    split = arm.with_columns(arm=pl.col("seed").replace_strict(half), seed=pl.col("seed").replace_strict(place))
    sides = [pl.col("arm") == name for name in ("first", "second")]
    found = compare_at_equal_settings(split, *sides, "L_ret", ["arm"]).result
    copy = float(split_p(np.array([by_seed(arm, "L_ret")]), order)[0])
    if found.p is None or not np.isclose(found.p, copy):
        sys.exit(f"A/A: the comparison says p {found.p}, its copy here {copy}")


# ---- output


def percent(shares: Array) -> str:
    return f"{100 * shares.mean():.1f}"


def header(text: str) -> None:
    print(f"\n{text}\n")


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints every table; the same numbers each time."""
    generator = np.random.default_rng(2026)
    fixed_table(generator)
    reserve_table()
    same_against_same(generator)


if __name__ == "__main__":
    main()
