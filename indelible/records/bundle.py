"""bundle.json: what one file with a whole study holds."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from indelible.records.base import RUN_ID, Record, Tally

# Every name that may stand in a bundle. None of them can leave the folder that it is unpacked to.
_ID = RUN_ID.pattern
BUNDLED = re.compile(
    r"bundle\.json|plan\.json|study\.yaml|packing\.json|looks\.json|verdicts\.json|report\.html"
    r"|results\.parquet|losses\.parquet"
    rf"|runs/{_ID}/(?:result\.json|failure\.json|ledger\.json|metrics\.jsonl)"
    rf"|evaluations/{_ID}/{_ID}\.(?:json|documents\.parquet)"
)


class Environment(BaseModel):
    """Versions and machine of some stage runs, as their results have them."""

    model_config = ConfigDict(frozen=True)

    runs: Tally
    versions: dict[str, Any]


class Bundle(Record):
    """bundle.json, the first file of a bundle."""

    name: str  # of the study
    indelible: str  # version that wrote it
    has_curves: bool
    environments: tuple[Environment, ...]
    files: dict[str, str]  # name of each other file to the sha256 of its bytes
