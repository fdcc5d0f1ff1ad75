"""Unpacks a bundle that somebody else has sent: only files that a bundle may have, of sound sizes, to a new folder."""

import errno
import stat
import zipfile
import zlib
from pathlib import Path

from indelible.errors import UserError
from indelible.files import file_sha256
from indelible.records import BUNDLED, Bundle

MAX_FILES = 500_000
MAX_BYTES = 4 << 30  # of all files together, unpacked
MAX_RATIO = 300  # unpacked to packed, of a file beyond the first megabyte: JSON comes to some 20
_FREE_BYTES = 1 << 20
_BLOCK = 1 << 20
_OF_THE_FILE = (errno.EINVAL, errno.EEXIST, errno.ENAMETOOLONG)  # a place before its beginning; names that cannot be
_MAKE_AGAIN = "ask for it again: `indelible bundle DIR` makes it"


def is_bundle(path: Path) -> bool:
    """True for a file whose name says that it is one."""
    return path.suffix == ".zip" and path.is_file()


def unpack(path: Path, folder: Path) -> Bundle:
    """Unpacks a bundle; every file is checked against the list in bundle.json.

    Args:
        path: the bundle.
        folder: an empty one, that nobody else writes to.

    Raises:
        UserError: it is no bundle, is damaged, or has a name, a link or a size that no bundle has. What was written
            until then is whoever's that made the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = checked(path, archive)
            for info in infos:
                _unpack_one(path, archive, info, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_FILE:
            raise  # of the disk: full, say
        raise UserError(f"{path}: not a bundle, or a damaged one ({error}); {_MAKE_AGAIN}.") from None
    bundle = Bundle.read(folder / "bundle.json")
    assert bundle is not None  # `checked` found it
    if sorted(bundle.files) != sorted(info.filename for info in infos if info.filename != "bundle.json"):
        raise UserError(f"{path}: its files are not those that bundle.json lists; it was edited. {_MAKE_AGAIN}.")
    for name, digest in bundle.files.items():
        if file_sha256(folder / name) != digest:
            raise UserError(f"{path}: {name} is not the file that bundle.json lists; it was edited. {_MAKE_AGAIN}.")
    return bundle


def checked(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, if it may be a bundle by its table of contents.

    Raises:
        UserError: it may not.
    """
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise UserError(f"{path}: {len(infos):,} files, and a bundle has at most {MAX_FILES:,}.")
    names = [info.filename for info in infos]
    if "bundle.json" not in names:
        raise UserError(f"{path}: no bundle: it has no bundle.json. `indelible bundle DIR` writes one.")
    if len(set(names)) != len(names):
        raise UserError(f"{path}: a name stands in it twice, as in no bundle; {_MAKE_AGAIN}.")
    for info in infos:
        if not BUNDLED.fullmatch(info.filename):
            raise UserError(f"{path}: holds {info.filename!r:.80}, which is no file of a bundle; {_MAKE_AGAIN}.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{path}: {info.filename} is a link or another special file, as in no bundle; "
                            f"{_MAKE_AGAIN}.")  # fmt: skip
        if info.flag_bits & 1:
            raise UserError(f"{path}: {info.filename} is encrypted, as in no bundle; {_MAKE_AGAIN}.")
        if info.file_size > _FREE_BYTES + MAX_RATIO * info.compress_size:
            raise UserError(f"{path}: {info.filename} would grow from {info.compress_size:,} to {info.file_size:,} "
                            "bytes, more than any bundle's; it is not unpacked.")  # fmt: skip
    total = sum(info.file_size for info in infos)
    if total > MAX_BYTES:
        raise UserError(f"{path}: {total / 2**30:.1f} GiB unpacked, and a bundle has at most {MAX_BYTES >> 30} GiB "
                        "(`indelible bundle --no-curves` makes a smaller one).")  # fmt: skip
    return infos


def _unpack_one(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> None:
    """Writes one file, and no more of it than its entry says."""
    target = folder / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with archive.open(info) as source, open(target, "xb") as file:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise UserError(f"{path}: {info.filename} is longer than it says, as in no bundle; {_MAKE_AGAIN}.")
            file.write(block)
