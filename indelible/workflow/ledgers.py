"""Audits the data orders of a study: which tokens each stage sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indelible.corpora.sources import default_cache_dir
from indelible.data.audit import Audit, audit_study
from indelible.data.prepare import silent
from indelible.data.store_job import Progress as Report
from indelible.study.load import Study
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import make_tokens
from indelible.workflow.proportions import heldout_notes, proportions


@dataclass(frozen=True)
class LedgerAudit:
    """The audit, and where the raw ledgers are."""

    audit: Audit
    folder: Path  # one Parquet file a stage run
    notes: tuple[str, ...] = ()  # proportions that make the study say little, each with what to do


def audit_ledgers(
    study: Study,
    out: Path | None = None,
    arms: Sequence[str] = (),
    parquet: Path | None = None,
    *,
    report: Report = silent,
) -> LedgerAudit:
    """Builds and audits the ledgers of a study; tokens that are missing are made.

    Args:
        study: the study.
        out: folder of the study run; None = one in the cache.
        arms: only chains with these numbers, arm names or ``column=value``.
        parquet: folder for the raw ledgers; None = ``out``/ledgers.
        report: called with what is being prepared and which share of it is done.

    Raises:
        UserError: no chain fulfils ``arms``, text cannot be had, or a corpus is smaller than asked.
    """
    planned = plan_study(study)
    folder = out or default_cache_dir() / "ledger" / study.name
    ledgers = parquet or folder / "ledgers"
    make_tokens(planned, folder, report)
    notes = (*proportions(study), *heldout_notes(planned.graph, folder / "tokens"))
    return LedgerAudit(audit_study(planned.graph, folder / "tokens", list(arms), ledgers), ledgers, notes)
