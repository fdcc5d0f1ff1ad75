"""Zstandard files, by the reader of Python 3.14 (before it, by its backport): it notices a file that was cut short."""

import sys
from pathlib import Path
from typing import BinaryIO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZstdError = zstd.ZstdError
_LONGEST_WINDOW = 31  # log2 bytes: what `zstd --long=31` writes; memory is taken as the file needs it


def open_zst(path: Path) -> BinaryIO:
    """Opens a file of one or more frames for reading of bytes, however long a window it was written with.

    Raises:
        EOFError, ZstdError: while reading, if the file is cut or damaged.
    """
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _LONGEST_WINDOW}
    return cast(BinaryIO, zstd.open(path, "rb", options=options))


def create_zst(path: Path) -> BinaryIO:
    """Opens a file for writing of bytes, with a checksum."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: 3,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return cast(BinaryIO, zstd.open(path, "wb", options=options))
