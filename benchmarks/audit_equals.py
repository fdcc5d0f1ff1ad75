"""How often equals are named different: `python benchmarks/audit_equals.py DIR [ROUNDS]`, of a finished audit.

Splits what the audit's study has measured, at random, into sides that are equal, and compares them as `--against` does:

* one checkpoint with itself, by disjoint seeds of fine-tuning (needs six seeds or more);
* a recipe with itself, by halves of its checkpoints (needs four checkpoints or more, on either side of the audit);
* single checkpoints of one recipe, two by two: they are *not* equal, and what is named is the spread of training.

Rounds share their data, so that counts scatter more than those of independent ones would. The documents' part of the
intervals is left out: it would only make findings rarer.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from indelible.durability.card import Audit
from indelible.durability.measures import Measures
from indelible.durability.sides import Side
from indelible.durability.study import Setting
from indelible.durability.trials import Trial, read_trials
from indelible.results.run_folder import read_study_run


def main() -> None:
    """Reads the folder and prints one line for each kind of split."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    audit = Audit.read(folder / "audit.json")
    if audit is None:
        sys.exit(f"{folder}/audit.json: no such file; give the folder of a finished audit.")
    settings = {row.name: Setting(row.later, row.adapt, row.lr, row.replay, row.is_padded) for row in audit.settings}
    run = read_study_run(folder)
    trials = read_trials(run, settings, audit.keep).trials
    rng = np.random.default_rng(0)
    for side, names in (("model", audit.model), ("against", audit.against)):
        own = [audit.checkpoints[name] for name in names]
        mine = [trial for trial in trials if trial.checkpoint in own]
        for what, pairs in (
            ("one checkpoint, other seeds of fine-tuning", seed_splits(mine, rounds, rng)),
            ("one recipe, halves of its checkpoints", half_splits(mine, rounds, rng)),
            ("two single checkpoints of one recipe", file_pairs(mine, rounds, rng)),
        ):
            report(f"{side}: {what}", audit, list(pairs))


def report(what: str, audit: Audit, pairs: list[tuple[Side, Side]]) -> None:
    """How many of the pairs are named different, in the main row and in any."""
    if not pairs:
        return
    main_rows = any_rows = 0
    for one, two in pairs:
        rows = Measures(one, two, tuple(later.name for later in audit.later)).compared((audit.gain, audit.customer))
        main_rows += any(row.is_main and row.verdict != "no difference found" for row in rows)
        any_rows += any(row.verdict != "no difference found" for row in rows)
    print(f"{what}: named different {main_rows} of {len(pairs)} in the main row, {any_rows} in any")


def seed_splits(trials: list[Trial], rounds: int, rng: np.random.Generator) -> Iterator[tuple[Side, Side]]:
    """Two disjoint halves of one checkpoint's seeds; the checkpoints take turns."""
    checkpoints = sorted({trial.checkpoint for trial in trials})
    seeds = sorted({trial.seed for trial in trials})
    for number in range(rounds if len(seeds) >= 6 else 0):
        chosen = checkpoints[number % len(checkpoints)]
        order = rng.permutation(seeds)
        halves = order[: len(seeds) // 2], order[len(seeds) // 2 : 2 * (len(seeds) // 2)]
        yield tuple(  # type: ignore[misc]
            Side("half", tuple(t for seed in half for t in trials if (t.checkpoint, t.seed) == (chosen, seed)), False)
            for half in halves
        )


def half_splits(trials: list[Trial], rounds: int, rng: np.random.Generator) -> Iterator[tuple[Side, Side]]:
    """Two disjoint halves of a recipe's checkpoints."""
    checkpoints = sorted({trial.checkpoint for trial in trials})
    size = len(checkpoints) // 2
    for _ in range(rounds if size >= 2 else 0):
        order = rng.permutation(checkpoints)
        yield tuple(  # type: ignore[misc]
            Side("half", tuple(t for name in half for t in trials if t.checkpoint == name), True)
            for half in (order[:size], order[size : 2 * size])
        )


def file_pairs(trials: list[Trial], rounds: int, rng: np.random.Generator) -> Iterator[tuple[Side, Side]]:
    """Two checkpoints of one recipe, paired by seed of fine-tuning."""
    checkpoints = sorted({trial.checkpoint for trial in trials})
    has_seeds = len({trial.seed for trial in trials}) >= 2
    for _ in range(rounds if len(checkpoints) >= 2 and has_seeds else 0):
        yield tuple(  # type: ignore[misc]
            Side(name, tuple(sorted((t for t in trials if t.checkpoint == name), key=lambda t: t.seed)), False)
            for name in rng.choice(checkpoints, 2, replace=False)
        )


if __name__ == "__main__":
    main()
