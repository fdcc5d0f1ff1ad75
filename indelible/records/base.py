"""What all records of a study folder have in common: one format, one reader and one writer each."""

import json
import re
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indelible.errors import UserError
from indelible.files import refuse_constants, write_text
from indelible.strict import LARGEST

RUN_ID = re.compile(r"\w[\w.,+=@-]{0,199}")  # a plain file name: no path can leave the runs folder
Tally = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=1e40)]  # beyond what fp32 holds; sums of them are finite
Signed = Annotated[float, Field(ge=-1e40, le=1e40)]


class Record(BaseModel):
    """A JSON file of a study folder."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), ser_json_inf_nan="null", allow_inf_nan=False
    )

    FORMAT: ClassVar[int] = 1

    format: int = 0  # set when it is written

    @classmethod
    def read(cls, path: Path | str) -> Self | None:
        """The record in a file; None where the file does not exist (any more).

        Raises:
            UserError: it cannot be read, is not JSON, has another format, or is not such a record.
        """
        try:
            with open(path, "rb", buffering=0) as file:  # a large study has tens of thousands of records
                data = file.readall()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); expected a JSON file.") from None
        if b"NaN" in data or b"Infinity" in data:  # pydantic would let them pass where any value may stand
            refuse_constants(path, data)
        try:
            record = cls.model_validate_json(data)  # at once
        except ValidationError as error:
            raise cls._refusal(path, data, error) from None
        if record.format != cls.FORMAT:
            raise cls._refusal(path, data, None)
        return record

    @classmethod
    def _refusal(cls, path: Path | str, data: bytes, error: ValidationError | None) -> UserError:
        """What is wrong with a record that is not right."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as wrong:
            return UserError(f"{path}: not a JSON file ({wrong}); delete it and run the same command again.")
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        if error is None or found != cls.FORMAT:
            return UserError(
                f"{path}: format {found!r} where {cls.FORMAT} is expected; another version of indelible wrote it. "
                "Use that version, or another --out."
            )
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        return UserError(
            f"{path}: {where}: {first['msg']}; the file was edited or cut. Delete it and run the same command again."
        )

    def write(self, path: Path, *, indent: int | None = 1) -> None:
        """Writes the record atomically."""
        write_text(path, self.model_copy(update={"format": self.FORMAT}).model_dump_json(indent=indent) + "\n")
