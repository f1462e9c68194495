"""Look at every byte of a feature store, and cut away what is damaged.

What is taken out of the index is extracted anew by the next command that needs it. The data
file is never rewritten: the bytes of a dropped array stay where they are, unused.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.errors import StoreError
from koser.features.records import end_of, read_index, sizes
from koser.features.store import FeatureStore, check_format
from koser.files import locked, write_atomically


@dataclass(frozen=True, eq=False)
class StoreState:
    """What was found in one front-end's store.

    Attributes
    ----------
    folder : Path
        Of the store.
    n_arrays : int
        Arrays that can be read.
    n_damaged_arrays : int
        Arrays whose bytes are not those that were written.
    n_damaged_records, n_without_data : int
        Records of the index that are damaged, or whose array lies beyond the data file.
    n_duplicates : int
        Keys that are there more than once, each time too often counted.
    index_tail_bytes, data_tail_bytes : int
        What a killed writer left behind the last whole record and array.
    unused_bytes : int
        Bytes between arrays that no record names.
    """

    folder: Path
    n_arrays: int
    n_damaged_arrays: int
    n_damaged_records: int
    n_without_data: int
    n_duplicates: int
    index_tail_bytes: int
    data_tail_bytes: int
    unused_bytes: int

    @property
    def n_lost(self) -> int:
        """Arrays that have to be extracted anew."""
        return self.n_damaged_arrays + self.n_damaged_records + self.n_without_data

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged; what a killed writer left is no damage."""
        return self.n_lost == 0 and self.n_duplicates == 0


def check_store(folder: Path, *, repair: bool = False) -> StoreState:
    """Hold every array of a store against its checksum.

    Parameters
    ----------
    folder : Path
        Of one front-end.
    repair : bool
        Write the index anew with what can be read, if that is not all. Writers are waited for.

    Returns
    -------
    StoreState
        As it was found, before any repair.

    Raises
    ------
    StoreError
        If the folder is no store, of another format, or cannot be read or written.
    """
    dtype = _dtype_of(folder)
    try:
        check_format(folder)
        if not repair:
            return _look(folder, dtype)[0]
        with locked(folder / "lock", on_wait=lambda: None):
            state, good = _look(folder, dtype)
            if not state.is_sound or state.index_tail_bytes:
                # First the index: whatever it names is there at any moment.
                write_atomically(folder / "index.bin", good.tobytes())
            if state.data_tail_bytes:
                with (folder / "data.bin").open("r+b") as file:
                    file.truncate(end_of(good, dtype))
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"Cannot check the store '{folder}': {error}.") from error
    return state


def is_store(folder: Path) -> bool:
    """Whether a folder is the store of one front-end."""
    return (folder / "extractor.json").is_file()


def stores_below(root: Path) -> list[Path]:
    """The stores of a folder that holds several, or the folder itself if it is one."""
    if is_store(root):
        return [root]
    return sorted(path.parent for path in root.glob("*/extractor.json"))


def _dtype_of(folder: Path) -> np.dtype:
    path = folder / "extractor.json"
    try:
        return np.dtype(str(json.loads(path.read_text(encoding="utf-8"))["dtype"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"'{path}' does not say what is stored ({error!r}). Remove the folder and run again: "
            f"its features are extracted anew."
        ) from error


def _look(folder: Path, dtype: np.dtype) -> tuple[StoreState, np.ndarray]:
    """The state, and the records of all arrays that can be read, each key once."""
    index = read_index(folder, dtype)
    records = index.records[np.argsort(index.records["offset"], kind="stable")]
    is_good = _match_data(folder / "data.bin", records, dtype)
    good = records[is_good]
    # The last one of a key counts: it was written because an earlier one did not.
    _, last = np.unique(good["key"][::-1], return_index=True)
    kept = good[np.sort(len(good) - 1 - last)]
    data = folder / "data.bin"
    n_data_bytes = data.stat().st_size if data.exists() else 0
    end = end_of(kept, dtype)
    state = StoreState(
        folder=folder,
        n_arrays=len(kept),
        n_damaged_arrays=int(np.count_nonzero(~is_good)),
        n_damaged_records=index.n_damaged,
        n_without_data=index.n_without_data,
        n_duplicates=len(good) - len(kept),
        index_tail_bytes=index.tail_bytes,
        data_tail_bytes=n_data_bytes - end,
        unused_bytes=end - int(sizes(kept, dtype).sum()),
    )
    return state, kept


def _match_data(path: Path, records: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Whether each record's array has its checksum [shape=(n_records,), dtype=bool]."""
    is_good = np.zeros(len(records), bool)
    if not len(records):
        return is_good
    n_bytes = sizes(records, dtype)
    with path.open("rb") as file:
        for place, record in enumerate(records):
            file.seek(int(record["offset"]))
            is_good[place] = zlib.crc32(file.read(int(n_bytes[place]))) == record["data_crc"]
    return is_good


def largest_difference(first_root: Path, second_root: Path) -> float | None:
    """How far two extractions of the same files are apart.

    Parameters
    ----------
    first_root, second_root : Path
        Folders of stores, made by the same front-ends.

    Returns
    -------
    float or None
        Over all arrays that both have: the largest difference in an array, relative to its
        largest value; infinite where shapes differ. None where they have none in common.
    """
    found: list[float] = []
    for described in sorted(first_root.glob("*/extractor.json")):
        description = json.loads(described.read_text(encoding="utf-8"))
        dtype = description.pop("dtype")
        first = FeatureStore(first_root, description, dtype=dtype)
        second = FeatureStore(second_root, description, dtype=dtype)
        for key in first.all_keys():
            if key in second:
                a, b = (np.asarray(each.read(key), np.float64) for each in (first, second))
                if a.shape != b.shape:
                    return math.inf
                scale = max(float(np.abs(a).max()), np.finfo(np.float64).tiny)
                found.append(float(np.abs(a - b).max()) / scale)
    return max(found, default=None)
