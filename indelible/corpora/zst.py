"""Reading of zstandard files that notices when one was cut: the library's own reader takes the cut for the end."""

import io
from pathlib import Path
from typing import Any

import zstandard

_BLOCK = 1 << 17  # compressed bytes read at once


class _ZstReader(io.RawIOBase):
    """The decompressed bytes of a file of one or more frames."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed with the reader
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._is_inside = False  # of a frame
        self._compressed = b""
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """True: it is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer``; 0 at the end.

        Raises:
            EOFError: the file ends inside a frame.
        """
        while not self._held:
            data = self._compressed or self._file.read(_BLOCK)
            if not data:
                if self._is_inside:
                    raise EOFError("compressed file ended before the end of its frame")
                return 0
            self._held, self._is_inside, self._compressed = memoryview(self._frame.decompress(data)), True, b""
            if self._frame.eof:
                self._compressed, self._is_inside = self._frame.unused_data, False
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


def open_zst(path: Path) -> io.BufferedReader:
    """Opens a zstandard file for reading of bytes.

    Raises:
        EOFError, zstandard.ZstdError: while reading, if the file is cut or damaged.
    """
    return io.BufferedReader(_ZstReader(path), 1 << 20)
