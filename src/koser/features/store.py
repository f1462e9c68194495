"""The feature store: one array per utterance and front-end, kept across runs.

A folder per front-end holds three files:

``extractor.json``
    What the arrays are: the front-end's name, every setting, the array type.
``data.bin``
    The arrays one after another, row-major.
``index.bin``
    One fixed-size record per array: its key, where it lies, its shape, its checksum
    and the record's own checksum.

``format.json``
    The version of this layout. Stores without it are of the first one.

An array counts from the moment its record is on disk, which is after its data are. A
process killed at any moment therefore leaves whole arrays, and perhaps a tail that no
record names; the next writer cuts that off. Readers map the data into memory, so they
need the memory of what they look at, not of the corpus.

Every array is held against its checksum when a store reads it for the first time, and not
again: disks and copies damage files, later epochs of a training do not, and would pay for
it each time. `koser.features.store_check` looks at all of a store, and repairs it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import BinaryIO

import numpy as np

from koser.errors import StoreError
from koser.features.records import KEY_SIZE, RECORD, end_of, make_record, read_index
from koser.files import locked, write_atomically, write_json

logger = logging.getLogger(__name__)

__all__ = ["KEY_SIZE", "FeatureStore", "StoreWriter", "cache_folder", "default_store_root"]

FORMAT = 1
# What a killed writer may lose: at most so much of either, and the batch that it is at.
_FLUSH_BYTES = 32 * 2**20
_FLUSH_SECONDS = 10.0


def cache_folder() -> Path:
    """Where koser keeps what it can make again: ``$KOSER_CACHE``, or ``~/.cache/koser``."""
    cache = os.environ.get("KOSER_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "koser"


def default_store_root() -> Path:
    """Where features are kept unless told otherwise: below `cache_folder`."""
    return cache_folder() / "features"


class FeatureStore:
    """Arrays of one front-end, by key.

    Parameters
    ----------
    root : Path
        Folder of all stores; this front-end's own folder is made in it.
    description : Mapping[str, object]
        All that an array depends on beside the audio. It addresses the folder.
    dtype : str
        NumPy type of the arrays.

    Raises
    ------
    StoreError
        If the folder cannot be made, or is not this front-end's.
    """

    def __init__(
        self, root: Path, description: Mapping[str, object], *, dtype: str = "float32"
    ) -> None:
        self.dtype = np.dtype(dtype)
        text = json.dumps({**description, "dtype": dtype}, sort_keys=True, ensure_ascii=False)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder = root / f"{description.get('extractor', 'features')}-{digest}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            described = self.folder / "extractor.json"
            if not described.exists():
                write_atomically(described, text.encode())
            elif described.read_text(encoding="utf-8") != text:
                raise StoreError(
                    f"'{described}' describes another front-end, or is damaged. Remove the folder "
                    f"and run again: its features are extracted anew."
                )
            check_format(self.folder)
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"Cannot open a feature store in '{root}': {error}.") from error
        self._data: np.ndarray | None = None
        self.refresh()

    def refresh(self) -> None:
        """See what other processes have added since the store was opened.

        Raises
        ------
        StoreError
            If the index cannot be read.
        """
        try:
            index = read_index(self.folder, self.dtype)
        except OSError as error:
            raise StoreError(f"Cannot read the index in '{self.folder}': {error}.") from error
        records = index.records
        self._is_clean = index.is_clean
        self._is_checked = np.zeros(len(records), bool)
        self._records = records[np.argsort(records["key"], kind="stable")]
        # Searched for every array that is read: side by side, not 44 bytes apart.
        self._keys = np.ascontiguousarray(self._records["key"])
        self._data = None

    def __len__(self) -> int:
        return len(self._records)

    def all_keys(self) -> list[bytes]:
        """All keys, ordered."""
        found: list[bytes] = self._keys.tolist()
        return found

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def read(self, key: bytes) -> np.ndarray:
        """The array kept under `key`, as a read-only view of the file.

        Raises
        ------
        StoreError
            If there is none, or its bytes are not those that were written.
        """
        place = self._find(key)
        if place is None:
            raise StoreError(f"No features for key {key.hex()} in '{self.folder}'. Extract again.")
        if self._data is None:
            self._data = self._map()
        record = self._records[place]
        shape = tuple(n for n in record["shape"].tolist() if n)
        start = int(record["offset"])
        raw = self._data[start : start + math.prod(shape) * self.dtype.itemsize]
        if not self._is_checked[place]:
            if zlib.crc32(raw.data) != record["data_crc"]:
                raise StoreError(
                    f"Features in '{self.folder}' are damaged (key {key.hex()}). Run: koser doctor "
                    f"{quote(str(self.folder))} --repair, then this command again: they are "
                    f"extracted anew."
                )
            self._is_checked[place] = True
        array: np.ndarray = raw.view(self.dtype).reshape(shape)
        return array

    def shapes(self, keys: np.ndarray) -> np.ndarray:
        """Shapes of the arrays under `keys`, read from the index alone.

        Parameters
        ----------
        keys : np.ndarray [shape=(n_keys,), dtype=S16]
            Which arrays.

        Returns
        -------
        np.ndarray [shape=(n_keys, 3)]
            int64; zero in the trailing dimensions that an array does not have.

        Raises
        ------
        StoreError
            If there is no array under one of `keys`.
        """
        places = np.searchsorted(self._keys, keys)
        is_known = places < len(self._keys)
        is_known[is_known] = self._keys[places[is_known]] == keys[is_known]
        if not is_known.all():
            raise StoreError(
                f"No features for {np.count_nonzero(~is_known)} of {len(keys)} keys in "
                f"'{self.folder}'. Extract again."
            )
        return np.asarray(self._records["shape"][places], dtype=np.int64)

    @contextmanager
    def writer(self) -> Iterator[StoreWriter]:
        """Append arrays; one writer at a time, others wait.

        Whatever was appended before an exception is kept.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / "lock", on_wait=self._tell_of_waiting))
                self.refresh()
                held.callback(self.refresh)
                writer = held.enter_context(self._open_writer())
            except OSError as error:
                if isinstance(error, StoreError):
                    raise
                raise StoreError(f"Cannot write to '{self.folder}': {error}.") from error
            yield writer

    def _tell_of_waiting(self) -> None:
        logger.warning("Another process writes to '%s'; waiting for it.", self.folder)

    def _open_writer(self) -> StoreWriter:
        # In the order in which they lie, as the index has them.
        records = self._records[np.argsort(self._records["offset"], kind="stable")]
        if not self._is_clean:
            # Appending behind records that do not count could make them count again.
            write_atomically(self.folder / "index.bin", records.tobytes())
        return StoreWriter(self.folder, self.dtype, records)

    def _map(self) -> np.ndarray:
        path = self.folder / "data.bin"
        try:
            return np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise StoreError(f"Cannot read the features in '{path}': {error}.") from error

    def _find(self, key: bytes) -> int | None:
        """Place of the array's record."""
        keys = self._keys
        position = int(keys.searchsorted(np.array(key, dtype=keys.dtype)))
        # NumPy hands fixed-width bytes out without their trailing zeros.
        if position < len(keys) and keys[position] == key.rstrip(b"\0"):
            return position
        return None


class StoreWriter:
    """Appends to a store's files; made by `FeatureStore.writer`."""

    def __init__(self, folder: Path, dtype: np.dtype, records: np.ndarray) -> None:
        self._dtype = dtype
        self._known = set(records["key"].tolist())
        self._offset = end_of(records, dtype)
        self._flushed_offset = self._offset
        self._pending: list[bytes] = []
        self._flushed_at = time.monotonic()
        self._data = _open_at(folder / "data.bin", self._offset)
        self._index = _open_at(folder / "index.bin", len(records) * RECORD.itemsize)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            _close(self._data)
            _close(self._index)

    def append(self, key: bytes, array: np.ndarray) -> None:
        """Keep `array` (1 to 3 dimensions, none empty) under `key`; a known key is passed over."""
        self.append_together([(key, array)])

    def append_together(self, arrays: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Keep what was computed together: a killed writer leaves all of it or nothing.

        Whoever goes on after it therefore computes the rest in the same batches, and comes to
        the same last digits.
        """
        records: dict[bytes, bytes] = {}
        for key, array in arrays:
            name = key.rstrip(b"\0")
            if name not in self._known and name not in records:
                records[name] = self._write(key, array)
        self._known.update(records)
        self._pending += records.values()
        pending_bytes = self._offset - self._flushed_offset
        waited = time.monotonic() - self._flushed_at
        if pending_bytes >= _FLUSH_BYTES or waited >= _FLUSH_SECONDS:
            self.flush()

    def _write(self, key: bytes, array: np.ndarray) -> bytes:
        """Put an array behind the others, and return the record that makes it count."""
        if not 1 <= array.ndim <= 3 or 0 in array.shape:
            raise StoreError(f"Cannot store an array of shape {array.shape}.")
        raw = np.ascontiguousarray(array, dtype=self._dtype).tobytes()
        record = make_record(key, self._offset, array.shape, raw)
        with self._explained():
            self._data.write(raw)
        self._offset += len(raw)
        return record

    def flush(self) -> None:
        """Put everything appended so far on disk: first the data, then their records."""
        self._flushed_at = time.monotonic()
        if not self._pending:
            return
        with self._explained():
            _sync(self._data)
            self._index.write(b"".join(self._pending))
            _sync(self._index)
        self._pending.clear()
        self._flushed_offset = self._offset

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which store it was; what is on disk by then stays, and a half record is cut off."""
        try:
            yield
        except OSError as error:
            self._pending.clear()  # not to be tried again while this error is on its way
            raise StoreError(
                f"Cannot write features to '{self._data.name}': {error.strerror}. What was written "
                f"is kept. Free some space or see to the rights, and run the command again."
            ) from error


def check_format(folder: Path) -> None:
    """Refuse a store of a later version; name the version of a new one.

    Raises
    ------
    StoreError
        If another version of koser has to read it.
    OSError
        If the folder cannot be written to, and names no version.
    """
    path = folder / "format.json"
    if not path.exists():
        if os.access(folder, os.W_OK):
            write_json({"format": FORMAT}, path)
        return
    try:
        version = int(json.loads(path.read_text(encoding="utf-8"))["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"'{path}' does not say which format the store has ({error!r}). If it is one of this "
            f"version of koser, remove that file."
        ) from error
    if version != FORMAT:
        raise StoreError(
            f"The feature store '{folder}' has format {version}, this version of koser reads "
            f"{FORMAT}. Update koser, or keep features elsewhere with --store."
        )


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open for appending at `size`, cutting off what a killed writer left behind it."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _close(file: BinaryIO) -> None:
    # What could not be written was told already, and closing would try it again.
    with suppress(OSError):
        file.close()
