"""manifest.json of a token store, as it is read: by training, the report and whoever looks at the tokens.

Only what is computed from is checked; the rest is there for people. The hashes in it guard the tokens, nothing guards
the manifest: it may have been edited, cut or copied.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, TypeAdapter, model_validator

from indelible.errors import UserError
from indelible.files import as_shape, read_json
from indelible.strict import LARGEST

FORMAT = 1
_Count = Annotated[StrictInt, Field(ge=0, le=LARGEST)]


class _File(BaseModel):
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # plain: none leaves the folder
    bytes: _Count
    sha256: str


class _Shard(BaseModel):
    tokens: _Count
    bytes: _Count  # of text
    files: Annotated[list[_File], Field(min_length=1)]


class _Fate(BaseModel):
    tokens: _Count


class _Chat(BaseModel):
    unmarked: _Count
    why_not: str


class _Manifest(BaseModel):
    corpus: str
    fingerprint: Annotated[str, Field(min_length=12)]
    has_mask: StrictBool
    has_pairs: StrictBool = False
    shards: dict[Literal["train", "heldout"], list[_Shard]]
    fates: dict[str, _Fate]
    chat: _Chat | None = None

    @model_validator(mode="after")
    def _masks_are_there(self) -> "_Manifest":
        if len(self.shards) != 2:
            raise ValueError("shards has not both sides, train and heldout")
        shards = (shard for side in self.shards.values() for shard in side)
        if self.has_mask and any(len(shard.files) < 2 for shard in shards):
            raise ValueError("has_mask, and a shard has no file for its mask")
        return self


_MANIFEST = TypeAdapter(_Manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a token store.

    Raises:
        UserError: it is of another format, or something in it is not what a store has there.
    """
    path = folder / "manifest.json"
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: found a {type(found).__name__}, expected the manifest of a token store; delete it.")
    if found.get("format") != FORMAT:
        raise UserError(f"{folder}: token store of format {found.get('format')!r:.40}, this version reads {FORMAT}.")
    as_shape(found, path, _MANIFEST)
    return found
