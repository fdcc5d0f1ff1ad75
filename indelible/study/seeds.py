"""Seeds of a study: one for all stages of a chain, or one for each stage, swept apart."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Seeds = tuple[int, ...] | dict[str, tuple[int, ...]]


def seed_problems(seeds: Any, stages: Iterable[str]) -> list[str]:
    """What is wrong with the ``seeds`` of a study file.

    Args:
        seeds: a list, or a mapping of stages to lists.
        stages: every stage that some arm has.
    """
    if not isinstance(seeds, Mapping):
        return _list_problems("seeds", seeds)
    known = list(dict.fromkeys(stages))
    problems = [
        f"seeds.{name}: no stage of this name; the stages are {', '.join(known)}" for name in seeds if name not in known
    ]
    if not seeds:
        problems.append("seeds = {}: name at least one stage, e.g. seeds: {pretrain: [0, 1], finetune: [0, 1, 2]}")
    return problems + [one for name, values in seeds.items() for one in _list_problems(f"seeds.{name}", values)]


def _list_problems(where: str, values: Any) -> list[str]:
    rule = f"expected a list of distinct non-negative integers below 2^63, e.g. {where}: [0, 1, 2]"
    if not isinstance(values, list | tuple) or not values:
        return [f"{where} = {values!r}: {rule}"]
    are_integers = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**63 for v in values)
    return [] if are_integers and len(set(values)) == len(values) else [f"{where} = {values!r}: {rule}"]


def parse_seeds(seeds: Any) -> Seeds:
    """Checked ``seeds`` of a study file."""
    if isinstance(seeds, Mapping):
        return {str(name): tuple(values) for name, values in seeds.items()}
    return tuple(seeds)


def stage_seeds(seeds: Seeds, chain: Iterable[str]) -> Iterator[dict[str, int]]:
    """The seed of every stage of a chain, combination by combination.

    A plain list gives one seed to all stages. Of a mapping the product is taken; a stage that it does not name has the
    seed of the stage before it, the first one 0.
    """
    names = list(chain)
    if not isinstance(seeds, dict):
        for seed in seeds:
            yield dict.fromkeys(names, seed)
        return
    named = [name for name in names if name in seeds]
    for values in itertools.product(*(seeds[name] for name in named)):
        chosen, last = {}, 0
        for name in names:
            last = chosen[name] = dict(zip(named, values, strict=True)).get(name, last)
        yield chosen


def seed_columns(seeds: Seeds, chosen: Mapping[str, int]) -> dict[str, int]:
    """``seed``, that of the chain's first stage: the unit of all inference; and the seeds that were swept apart."""
    first = next(iter(chosen))
    columns = {"seed": chosen[first]}
    if isinstance(seeds, dict):
        columns |= {f"{name}_seed": chosen[name] for name in seeds if name in chosen and name != first}
    return columns
