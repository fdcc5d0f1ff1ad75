"""Trials of made-up checkpoints: curves from a formula with a known answer, and seeded noise."""

from collections.abc import Sequence

import numpy as np

from indelible.durability.study import Setting
from indelible.durability.trials import Curve, Trial

STEPS = np.array([0, 2, 4, 8, 16, 32], dtype=np.float64)
TOKENS_A_STEP = 512
RATES = (3e-5, 1e-4, 3e-4)


def curve(gains: Sequence[float], lost: Sequence[float], start: tuple[float, float] = (2.0, 3.0)) -> Curve:
    """A curve by its gains on the new corpus and losses lost on the kept one, each from 0 on."""
    steps = STEPS[: len(gains)]
    return Curve(steps, steps * TOKENS_A_STEP, start[0] + np.asarray(lost), start[1] - np.asarray(gains))


def trial(
    gains: Sequence[float], lost: Sequence[float], setting: Setting | None = None, checkpoint: str = "given-a",
    seed: int = 0, **more,
) -> Trial:  # fmt: skip
    """One trial."""
    where = setting or Setting("chemistry", "full", 1e-4)
    name = f"finetune-{where.name}-{checkpoint}-s{seed}"
    return Trial(where, checkpoint, seed, curve(gains, lost), run=name, **more)


def battery_trials(
    checkpoint: str, seeds: Sequence[int], *, forgetting: float = 0.5, spread: float = 0.0, noise: float = 0.02,
    corpora: Sequence[str] = ("chemistry",), rng: np.random.Generator | None = None,
) -> tuple[Trial, ...]:  # fmt: skip
    """A battery of three rates: what is lost is ``forgetting`` times the gain, times the rate's own factor.

    Args:
        checkpoint: its id.
        seeds: of fine-tuning.
        forgetting: nats lost for each nat gained, at the middle rate.
        spread: added to it for this checkpoint.
        noise: relative standard deviation of a trial's losses.
        corpora: new data.
        rng: of the noise.
    """
    rng = rng or np.random.default_rng(0)
    found = []
    for corpus in corpora:
        for lr, factor, top in zip(RATES, (0.8, 1.0, 1.5), (0.6, 0.9, 1.0), strict=True):
            for seed in seeds:
                gains = top * STEPS / STEPS[-1] * (1 + noise * rng.standard_normal())
                lost = (forgetting + spread) * factor * gains * (1 + noise * rng.standard_normal())
                found.append(trial(gains, lost, Setting(corpus, "full", lr), checkpoint, seed))
    return tuple(found)
