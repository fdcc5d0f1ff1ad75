"""Where a study run lies: its folder, a bundle of it, a table of it, or several of these."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from indelible.errors import UserError
from indelible.records import Plan
from indelible.workflow.unbundling import is_bundle, unpack

if TYPE_CHECKING:
    from indelible.results.run_folder import StudyRun


class Places:
    """The places of a study run, as they are now: nothing is kept, so that every call sees what has been added.

    Attributes:
        places: folders of study runs, bundles, or tables.
        read_from: the same, a bundle as the folder that it is unpacked to.
    """

    def __init__(self, *places: Path) -> None:
        self.places = places
        self.read_from = tuple(self._unpacked(place) for place in dict.fromkeys(places))

    def _unpacked(self, place: Path) -> Path:
        """A place, or the folder that a bundle is unpacked to, which goes when these runs go."""
        if not is_bundle(place):
            return place
        folder = Path(tempfile.mkdtemp(prefix="indelible-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        unpack(place, folder)
        return folder

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.places))})"

    @property
    def folder(self) -> Path:
        """The folder of the study run; of a bundle, the one that it is unpacked to.

        Raises:
            UserError: these are tables, or several folders.
        """
        if not self.is_folder:
            names = ", ".join(map(str, self.places))
            raise UserError(
                f"{names}: this needs the folder of one study run; tables, and several folders, have it not."
            )
        return self.read_from[0]

    @property
    def is_folder(self) -> bool:
        """One folder or bundle: it has everything, tables and several places have only rows."""
        return len(self.read_from) == 1 and not self.read_from[0].is_file()

    @property
    def plan(self) -> Plan:
        """plan.json."""
        from indelible.results.run_folder import read_plan

        return read_plan(self.folder)

    def read(self) -> "StudyRun":
        """Everything that the folder says, as the tables are made of it."""
        from indelible.results.run_folder import read_study_run

        return read_study_run(self.folder)
