"""Seeds bought in blocks: a study is run until one of its claims is settled, or no more seeds are allowed.

The looks are those of a sequential design (`indelible.statistics.sequential`), so that the risk of all of them together
stays under the study's level. What was seen at each is kept in looks.json, and the same call goes on from there.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from indelible.claims.looks import Look, look, read_looks, seeds_wanted_by, write_looks
from indelible.claims.paper_claims import claim_named
from indelible.errors import UserError
from indelible.statistics.inference import Inference
from indelible.statistics.sequential import LOOKS, sequential_design
from indelible.study.load import Study, resolve_study
from indelible.workflow.reading import StudyRuns

MAX_SEEDS = LOOKS[-1]


def planned_looks(looks: Sequence[int] | None, max_seeds: int) -> tuple[int, ...]:
    """The seeds at which one looks.

    Args:
        looks: as requested, rising; None = 3, 5, 8, 12, 16, 24.
        max_seeds: the most that are bought; looks beyond are left out, and this is the last one.

    Raises:
        UserError: not rising, or fewer than two seeds at the first.
    """
    chosen = tuple(looks) if looks else LOOKS
    if list(chosen) != sorted(set(chosen)) or chosen[0] < 2:
        raise UserError(
            f"--looks {','.join(map(str, chosen))}: expected rising numbers of seeds from 2 on, e.g. 3,5,8."
        )
    if max_seeds < chosen[0]:
        raise UserError(f"--max-seeds {max_seeds}: the first look needs {chosen[0]} seeds; raise it, or give --looks.")
    kept = [count for count in chosen if count <= max_seeds]
    return tuple(kept if kept[-1] == max_seeds or looks else [*kept, max_seeds])


def settle(
    study: Study,
    out: Path,
    claim: str,
    run_once: Callable[[Study], None],
    *,
    looks: tuple[int, ...],
) -> Iterator[list[Look]]:
    """Runs a study with more and more seeds until a claim is supported, contradicted or futile.

    Args:
        study: its seeds come first, then the next whole numbers.
        out: folder of the study run.
        claim: name of a claim, e.g. ``retained-lower``.
        run_once: runs a study to its end in ``out``; raises if it cannot.
        looks: as `planned_looks` gives them.

    Yields:
        After each look, what it said of every scope of the claim that was still open.

    Raises:
        UserError: no such claim, seeds by stage, another plan of looks in the folder, or nothing that the claim could
            be judged on.
    """
    chosen, inference = claim_named(claim), Inference(**study.inference.model_dump())
    if isinstance(study.seeds, dict):
        raise UserError("--until-settled: seeds by stage are bought by hand; give the study a plain list of seeds.")
    past = [one for one in read_looks(out) if one.claim == claim]
    others = [one for one in read_looks(out) if one.claim != claim]
    if past and past[-1].planned != looks:
        planned = ",".join(map(str, past[-1].planned))
        raise UserError(
            f"{out}: {claim} was planned to be looked at with {planned} seeds; go on with --looks {planned}."
        )
    design = sequential_design(looks, inference.level)
    while (count := seeds_wanted_by(design, past)) is not None:
        seeds = _first_seeds(study.seeds, count)
        run_once(resolve_study({**study.raw, "seeds": seeds}, study.name))
        table = StudyRuns(out).results()
        found = look(chosen, table.filter(table["seed"].is_in(seeds)), design, past, inference)
        if not found:
            raise UserError(
                f"{claim}: this study has no chains that the claim could be judged on; see docs/analysis.md."
            )
        past = [*past, *found]
        write_looks(out, [*others, *past])
        yield found


def _first_seeds(given: Sequence[int], count: int) -> list[int]:
    """``count`` seeds: those that are given, then the smallest whole numbers that are not among them."""
    further = (seed for seed in range(count + len(given)) if seed not in given)
    return [*given, *further][:count]
