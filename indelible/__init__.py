"""indelible: measures which upstream decisions make a capability survive later fine-tuning.

The library is `load_study`, `plan`, `run`, `open`, `compare` and `audit`; the command line calls nothing else. Names
are loaded when they are first used, so that importing the package costs nothing. README.md has an example.
"""

import importlib
from typing import TYPE_CHECKING, Any

from indelible.errors import UserError

if TYPE_CHECKING:
    from indelible.durability.card import Audit
    from indelible.durability.run import audit
    from indelible.workflow.comparing import compare
    from indelible.workflow.estimate import Estimate
    from indelible.workflow.loading import LoadedStudy, load_study, plan
    from indelible.workflow.reading import StudyRuns
    from indelible.workflow.reading import open_runs as open
    from indelible.workflow.running import UnfinishedStudy, run

__version__ = "0.2.0"

__all__ = [
    "Audit",
    "Estimate",
    "LoadedStudy",
    "StudyRuns",
    "UnfinishedStudy",
    "UserError",
    "__version__",
    "audit",
    "compare",
    "load_study",
    "open",
    "plan",
    "run",
]

_HOMES = {  # name to the module that has it, and its name there
    "Audit": ("indelible.durability.card", "Audit"),
    "Estimate": ("indelible.workflow.estimate", "Estimate"),
    "LoadedStudy": ("indelible.workflow.loading", "LoadedStudy"),
    "StudyRuns": ("indelible.workflow.reading", "StudyRuns"),
    "UnfinishedStudy": ("indelible.workflow.running", "UnfinishedStudy"),
    "audit": ("indelible.durability.run", "audit"),
    "compare": ("indelible.workflow.comparing", "compare"),
    "load_study": ("indelible.workflow.loading", "load_study"),
    "open": ("indelible.workflow.reading", "open_runs"),
    "plan": ("indelible.workflow.loading", "plan"),
    "run": ("indelible.workflow.running", "run"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'indelible' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
