"""Parquet files with a checksum over all of their bytes, inside them.

Parquet's own checksums are optional and cover pages alone; the reader used here ignores
them, believes a flipped bit in a path or a label, and ends the program on some others. So
the file's metadata get a CRC-32 with eight zeros for digits, which are then overwritten by
those of the whole file as it is. Before a file is parsed, its bytes are read once and
counted with the zeros in place. To any other program it is a Parquet file like others.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import polars as pl

from koser.storage.places import Place
from koser.storage.writing import writing

_KEY = "koser.crc32"
_BLANK = b"0" * 8
# How the Thrift compact protocol writes the pair: the key, the next field's head (a string,
# 0x18), its length (8), and its characters.
_PAIR = re.compile(re.escape(_KEY.encode()) + rb"\x18\x08(.{8})", re.DOTALL)
_END = 8  # bytes: the footer's length, and Parquet's magic number
_BLOCK = 2**22

# What a damaged or foreign file raises; polars' own panics are no children of `Exception`.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def write_sealed(table: pl.DataFrame, path: Place, metadata: Mapping[str, str]) -> None:
    """Write a table with metadata and checksum; a reader sees the old file or the whole new one.

    Raises
    ------
    OSError
        If the file cannot be written; a StorageError, if it is an object.
    """
    with writing(path) as partial:
        write_table(table, partial, {**metadata, _KEY: _BLANK.decode()})
        with partial.open("r+b") as file:
            position = _find_digits(file)
            if position is None:
                raise RuntimeError("polars no longer writes metadata as this module expects")
            digits = f"{_sum(file, position):08x}".encode()
            file.seek(position)
            file.write(digits)


def write_table(table: pl.DataFrame, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a Parquet file in place.

    Raises
    ------
    OSError
        If the file cannot be written; polars itself calls a full disk a failed computation.
    """
    try:
        table.write_parquet(path, metadata=None if metadata is None else dict(metadata))
    except pl.exceptions.ComputeError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is not None:
            number = int(found[1])
        elif "transport error" in str(error):  # of the file's end: the number is lost
            number = errno.EIO if shutil.disk_usage(path.parent).free else errno.ENOSPC
        else:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def is_intact(file: BinaryIO) -> bool | None:
    """Whether a file holds the bytes that were written.

    Parameters
    ----------
    file : BinaryIO
        Opened for reading, seekable; anything.

    Returns
    -------
    bool or None
        None for a file without such a checksum: of another program, of koser 0.1, or cut.
    """
    position = _find_digits(file)
    if position is None:
        return None
    file.seek(position)
    return file.read(len(_BLANK)) == f"{_sum(file, position):08x}".encode()


def _find_digits(file: BinaryIO) -> int | None:
    """Where the checksum's digits are; None if there are none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END))
    end = file.read()
    start = size - _END - int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or start < 0:
        return None
    file.seek(start)
    found = _PAIR.search(file.read())
    return None if found is None else start + found.start(1)


def _sum(file: BinaryIO, position: int) -> int:
    """CRC-32 of the file with zeros for the digits at `position`."""
    file.seek(0)
    crc = 0
    remaining = position
    while remaining:
        block = file.read(min(remaining, _BLOCK))
        crc = zlib.crc32(block, crc)
        remaining -= len(block)
    crc = zlib.crc32(_BLANK, crc)
    file.seek(position + len(_BLANK))
    while block := file.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return crc
