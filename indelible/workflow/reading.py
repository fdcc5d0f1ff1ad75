"""Reads what a study has left in its folder: tables, verdicts, the report, checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indelible.errors import UserError
from indelible.records import run_dir
from indelible.workflow.choosing import chosen_rows, planned_id
from indelible.workflow.places import Places

if TYPE_CHECKING:
    import polars as pl

    from indelible.claims.looks import Look
    from indelible.claims.seed_plan import SeedPlan
    from indelible.claims.verdicts import Verdict
    from indelible.report.next_steps import NextStep
    from indelible.scheduling.snapshot import Snapshot
    from indelible.statistics.by_exposure import ExposureBlock
    from indelible.statistics.contrasts import Contrast
    from indelible.statistics.inference import Inference
    from indelible.workflow.by_document import CorpusComparison


def open_runs(*places: str | Path) -> "StudyRuns":
    """The runs of a study, to be read while they run or when they are done.

    Args:
        places: the folder of a study run, a bundle that was made of one, or a results table as `indelible results`
            writes it. Several are joined: parts of one study, wherever they were run.

    Raises:
        UserError: there is nothing at one of them, or a bundle is none.
    """
    paths = tuple(Path(place) for place in places)
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such folder or table; give the folder that `indelible run --out` wrote.")
    if not paths:
        raise UserError("open: give the folder of a study run, or a results table.")
    return StudyRuns(*paths)


class StudyRuns(Places):
    """What the runs of a study have left, read anew by every call."""

    def status(self) -> "Snapshot":
        """What every stage run is doing."""
        from indelible.scheduling.snapshot import snapshot_of

        return snapshot_of(self.folder)

    def results(self) -> "pl.DataFrame":
        """One row a chain: settings, seed, losses in nats per token, and what they cost (docs/run-folder.md)."""
        from indelible.results.join import read_tables

        return read_tables(list(self.read_from))

    def rows(self, arms: Sequence[str] = ()) -> "pl.DataFrame":
        """Those of `results` with these numbers, arm names or ``column=value``, the seed included; all must hold."""
        return chosen_rows(self.results(), arms)

    def losses(self) -> "pl.DataFrame":
        """One row for each checkpoint of a chain and each corpus: its loss, how sure it is, and of how much text."""
        from indelible.results.losses import losses

        return losses(self.read())

    def curves(self) -> "pl.DataFrame":
        """One row for each step of a stage run and each corpus that it was asked to watch."""
        from indelible.results.curves import curves

        return curves(self.read())

    @property
    def inference(self) -> "Inference":
        """How the study is judged: level, power and margins, as its file says; of tables the defaults."""
        from indelible.statistics.inference import Inference

        if not self.is_folder:
            return Inference()
        return Inference(**self.plan.inference.model_dump())

    def verdicts(self, *, corrected: bool = True) -> "list[Verdict]":
        """What the runs say of each claim of the paper.

        Args:
            corrected: Holm within each claim; False = every finding at the stated level by itself.
        """
        from indelible.claims.looks import planned_levels
        from indelible.claims.paper_claims import study_verdicts

        planned = planned_levels(self.looks())
        return study_verdicts(self.results(), self.inference, is_corrected=corrected, planned=planned)

    def looks(self) -> "list[Look]":
        """What was seen at each planned look (`run --until-settled`), in order; none of tables and several folders."""
        from indelible.claims.looks import read_looks

        return read_looks(self.folder) if self.is_folder else []

    def compare(
        self,
        by: str,
        against: str | None = None,
        *,
        within: Sequence[str] = (),
        where: Sequence[str] = (),
        arms: Sequence[str] = (),
        gain: bool = False,
    ) -> "list[Contrast]":
        """What a setting does to the losses: its values against each other at equal other settings, paired over seeds.

        Args:
            by: the setting; a column's name.
            against: the value to compare with; None = the first.
            within: settings, for each value of which it is compared apart.
            where: ``setting=value``: only such chains; of one setting several: any of them.
            arms: only chains with these numbers, arm names or ``column=value``, the seed included; all must hold.
            gain: compare what exposure changes, against none, instead of the losses.

        Raises:
            UserError: no such setting or value.
        """
        from indelible.statistics import contrasts

        table = contrasts.where(self.rows(arms), list(where))
        inference = self.inference
        rows = contrasts.gains(table, inference) if gain else table
        return contrasts.contrasts(rows, by, against, list(within), inference)

    def by_exposure(
        self, finetune_lr: float | None = None, *, where: Sequence[str] = (), arms: Sequence[str] = ()
    ) -> "list[ExposureBlock]":
        """How much of D_post to show, and whether it is worth it, for each treatment and stage-3 rate.

        Args:
            finetune_lr: only this peak learning rate of stage 3; None = each by itself.
            where: as in `compare`.
            arms: as in `compare`.

        Raises:
            UserError: no such rate, setting or value, or no chains with and without exposure.
        """
        from indelible.claims.by_exposure import exposure_blocks
        from indelible.statistics import contrasts

        table = contrasts.where(self.rows(arms), list(where))
        found = exposure_blocks(table, self.inference, finetune_lr)
        if not found:
            raise UserError("--by-exposure: no finished chains at λ 0 and a larger λ with equal other settings.")
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What in the study is out of proportion, as its plan notes; of tables nothing is known."""
        return self.plan.notes if self.is_folder else ()

    def next_steps(self) -> "list[NextStep]":
        """What to run next and what it costs, the first thing first; of a settled study, that it is settled."""
        from indelible.claims.by_exposure import exposure_blocks
        from indelible.report.next_steps import next_steps, source_of

        table, run, inference = self.results(), self.read() if self.is_folder else None, self.inference
        source = source_of(table, run, self.places, self.looks())
        return next_steps(table, self.verdicts(), inference, source, exposure_blocks(table, inference))

    def compare_documents(self, run_a: str, run_b: str, corpus: str | None = None) -> "list[CorpusComparison]":
        """Two checkpoints on the same held-out documents, B minus A, corpus by corpus, in nats per token.

        The interval is over documents, at the study's level: it is about these two checkpoints and texts like these,
        and says nothing about other seeds.

        Args:
            run_a: a stage run's id or its beginning; a given checkpoint's id (``given-...``) or its beginning.
            run_b: the other.
            corpus: only this one; None = all that both are evaluated on.

        Raises:
            UserError: no such run, not evaluated, or evaluated on other windows or targets.
        """
        from indelible.workflow.by_document import compare_checkpoints

        return compare_checkpoints(self.folder, self.plan, run_a, run_b, corpus, self.inference.level)

    def next_seeds(
        self, *, half_width: float | None = None, core_hours: float | None = None, loss: str = "L_ret"
    ) -> "list[SeedPlan]":
        """The cheapest new seeds that bring an interval to a wanted width, or the narrowest that some hours buy.

        The interval is that of ``loss`` at the largest lambda minus that at 0, paired over seeds, for each scale and
        pipeline. Prices are what the study's own stage runs took (`hours_unit`).

        Args:
            half_width: of the interval, nats per token; None = as narrow as the hours make it.
            core_hours: the most that may be spent, beside what is there; None = as many as it takes.
            loss: column of the results table.

        Raises:
            UserError: neither of both, one that is not above 0, no such loss, or nothing can be planned.
        """
        from indelible.claims.seed_plan import seed_plans
        from indelible.results.core_hours import core_seconds

        table = self.results()
        if self.is_folder:
            table = core_seconds(table, self.read())
        return seed_plans(table, loss, half_width, core_hours, self.inference)

    @property
    def hours_unit(self) -> tuple[str, str]:
        """The unit of `next_seeds`' hours, and a sentence on how they are counted."""
        from indelible.results import core_hours

        if not self.is_folder:
            return core_hours.CORE_HOURS, core_hours.OF_TABLES
        unit = core_hours.hours_unit(self.read())
        return unit, core_hours.OF_FOLDERS[unit]

    def report(self, path: str | Path | None = None, figures: str | Path | None = None) -> Path:
        """Writes the report, one HTML file that needs no network, and returns its path.

        Args:
            path: of the file; None = report.html in the folder, or beside the table.
            figures: folder for each chart as PDF, SVG, PNG and CSV; None = none.

        Raises:
            UserError: several places and no path.
        """
        from indelible.workflow.reporting import write_report

        return write_report(self, path, figures).path

    def bundle(self, path: str | Path | None = None, *, has_curves: bool = True) -> Path:
        """Packs everything but weights and text into one zip file, which `open` reads; returns its path.

        Args:
            path: of the file; None = bundle.zip in the folder.
            has_curves: False leaves the curves inside stage runs out, most of its size.

        Raises:
            UserError: tables, or several places.
        """
        from indelible.workflow.bundling import write_bundle

        return write_bundle(self, path, has_curves=has_curves).path

    def checkpoint(self, run_id: str | None = None, *, stage: str | None = None, **settings: Any) -> Path:
        """The folder of a checkpoint: `transformers.AutoModelForCausalLM.from_pretrained` loads it.

        Args:
            run_id: a stage run's id, or its beginning; a given checkpoint's id. None = chosen by its settings.
            stage: of the chains chosen; None = the last.
            settings: columns of the results table, e.g. ``exposure_fraction=1, seed=0``.

        Raises:
            UserError: no such run, more than one, or it has no weights (yet).
        """
        from indelible.console.selection import chosen_run

        plan = self.plan
        if run_id is not None and run_id in plan.given:
            return Path(plan.given[run_id])
        if run_id is None:
            found = chosen_run(self.folder, [f"{name}={value}" for name, value in settings.items()], stage)
        else:
            found = run_dir(self.folder, planned_id([run.id for run in plan.stage_runs], run_id, "checkpoint"))
        folder = found / "checkpoint"
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{found.name}: no checkpoint in {found}; it is not done, diverged, or its weights were removed."
            )
        return folder
