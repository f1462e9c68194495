"""The index of a feature store: which arrays count.

A record counts if its own checksum holds and its array lies within the data file. Records
have one size, so a damaged one hides nothing but its own array.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KEY_SIZE = 16  # bytes

RECORD = np.dtype(
    [
        ("key", f"S{KEY_SIZE}"),
        ("offset", "<u8"),
        ("shape", "<u4", (3,)),  # trailing zeros are absent dimensions
        ("data_crc", "<u4"),
        ("record_crc", "<u4"),
    ]
)
_CHECKED = RECORD.itemsize - 4  # bytes of a record that its own checksum covers


@dataclass(frozen=True, eq=False)
class Index:
    """What an index file holds.

    Attributes
    ----------
    records : np.ndarray [shape=(n_records,), dtype=RECORD]
        Those that count, in the order in which they were written.
    n_damaged : int
        Records whose own checksum fails, but for the last one.
    n_without_data : int
        Records of arrays that do not lie within the data file.
    tail_bytes : int
        What follows the last whole record: a writer was killed while it wrote, or the file
        was cut.
    """

    records: np.ndarray
    n_damaged: int
    n_without_data: int
    tail_bytes: int

    @property
    def is_clean(self) -> bool:
        """Whether the file holds nothing but records that count."""
        return not (self.n_damaged or self.n_without_data or self.tail_bytes)


def make_record(key: bytes, offset: int, shape: tuple[int, ...], raw: bytes) -> bytes:
    """The record of an array of 1 to 3 dimensions whose bytes `raw` lie at `offset`."""
    record = np.zeros(1, RECORD)
    record["key"] = key
    record["offset"] = offset
    record["shape"][0, : len(shape)] = shape
    record["data_crc"] = zlib.crc32(raw)
    record["record_crc"] = zlib.crc32(record.tobytes()[:_CHECKED])
    return record.tobytes()


def read_index(folder: Path, dtype: np.dtype) -> Index:
    """Read ``index.bin`` beside ``data.bin``; a missing file is an empty one.

    Parameters
    ----------
    folder : Path
        Of the store.
    dtype : np.dtype
        Of its arrays.

    Raises
    ------
    OSError
        If the files are there and cannot be read.
    """
    path, data = folder / "index.bin", folder / "data.bin"
    raw = path.read_bytes() if path.exists() else b""
    # After the index: the data of a record are on disk before it is.
    n_data_bytes = data.stat().st_size if data.exists() else 0
    records, tail_bytes = _whole_records(raw)
    is_sound = _is_sound(records)
    ends = records["offset"] + sizes(records, dtype)
    has_data = ends <= n_data_bytes
    return Index(
        records[is_sound & has_data],
        int(np.count_nonzero(~is_sound)),
        int(np.count_nonzero(is_sound & ~has_data)),
        tail_bytes,
    )


def sizes(records: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Bytes of each record's array [shape=(n_records,), dtype=uint64]."""
    n_values = np.maximum(records["shape"], 1).prod(axis=1, dtype=np.uint64)
    n_bytes: np.ndarray = n_values * np.uint64(dtype.itemsize)
    return n_bytes


def end_of(records: np.ndarray, dtype: np.dtype) -> int:
    """Where the data that `records` name end, in bytes."""
    return int((records["offset"] + sizes(records, dtype)).max(initial=0))


def _whole_records(raw: bytes) -> tuple[np.ndarray, int]:
    """All records but one at the end that a killed writer did not finish, and what that is."""
    n_whole = len(raw) // RECORD.itemsize
    tail_bytes = len(raw) - n_whole * RECORD.itemsize
    records = np.frombuffer(raw, RECORD, count=n_whole)
    while n_whole and not _is_sound(records[n_whole - 1 : n_whole])[0]:
        n_whole -= 1
        tail_bytes += RECORD.itemsize
    return records[:n_whole], tail_bytes


def _is_sound(records: np.ndarray) -> np.ndarray:
    """Whether each record's own checksum holds [shape=(n_records,), dtype=bool]."""
    view, size = memoryview(records.tobytes()), RECORD.itemsize
    found = np.fromiter(
        (zlib.crc32(view[first : first + _CHECKED]) for first in range(0, len(view), size)),
        np.uint32,
        len(records),
    )
    is_sound: np.ndarray = found == records["record_crc"]
    return is_sound
