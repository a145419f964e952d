"""Files as bytes, unpacked where they are compressed, and never more of them than is sane."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignbench import UserError
from alignbench_data.reading.rows import one_line

MOST_OF_A_LINE = 64 * 2**20
"""Bytes of one row as text."""
MOST_EMPTY = 100_000
"""Empty lines one after another: rows may be parted by some, a file of nothing else would take long to be read to its end."""
MOST_UNPACKED = 2**30
MOST_TIMES = 200
"""An unpacked file may have so many bytes, or so many times its own: text seldom packs better than 20 to 1, a bomb does by 1,000."""
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


class Bounded(io.RawIOBase):
    """Reads `inner`, says of what is wrong where, and stops beyond `most` bytes."""

    def __init__(self, inner: Any, path: Path, packing: str, most: int) -> None:
        super().__init__()
        self._inner, self._path, self._packing, self._most, self._read = inner, path, packing, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._inner.read(len(buffer))
        except _DAMAGE as error:
            if not self._packing:
                raise UserError(f"{self._path} cannot be read: {_why(error)}.") from error
            raise UserError(
                f"{self._path}, after {self._read:,} bytes: not a whole {self._packing} file ({one_line(error)}). "
                "Download it again."
            ) from error
        self._read += len(found)
        if self._read > self._most:
            raise UserError(
                f"{self._path} unpacks to more than {self._most:,} bytes: no text packs so well. Unpack it yourself if it is meant."
            )
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._inner.close()
        super().close()


def open_bytes(path: Path) -> io.BufferedReader:
    """The file's bytes. Raises UserError where it cannot be read, also later while it is."""
    try:
        with open(path, "rb") as file:
            head = file.read(6)
        packing = next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
        inner: Any = _unpacked(path, packing)
        most = max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size) if packing else 2**63
    except OSError as error:
        raise UserError(f"{path} cannot be read: {_why(error)}.") from error
    return io.BufferedReader(Bounded(inner, path, packing, most), 2**20)


def _unpacked(path: Path, packing: str) -> Any:
    if packing == "zstd":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    return openers.get(packing, open)(path, "rb")


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or one_line(error)


def lines(file: io.BufferedReader, path: Path) -> Iterator[bytes]:
    """Line by line, none longer than a row can be."""
    number = empty = 0
    while line := file.readline(MOST_OF_A_LINE + 1):
        number += 1
        empty = empty + 1 if line.isspace() else 0
        if empty > MOST_EMPTY:
            raise UserError(
                f"{path}, line {number}: more than {MOST_EMPTY:,} empty lines one after another: take them out."
            )
        if len(line) > MOST_OF_A_LINE:
            raise UserError(f"{path}, line {number}: longer than {MOST_OF_A_LINE:,} bytes: no row is.")
        yield line


def whole(file: io.BufferedReader, path: Path) -> bytes:
    """All of it, for forms that cannot be read in pieces."""
    content = file.read(MOST_UNPACKED + 1)
    if len(content) > MOST_UNPACKED:
        raise UserError(
            f"{path}: more than {MOST_UNPACKED:,} bytes in one JSON value. Save it as JSON lines or Parquet."
        )
    return content
