"""A manifest on disk, read in windows of rows: of any length, in the memory of one window.

It is one Parquet file, or a folder of them, each a manifest: its rows are theirs, in the
order of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from koser.data.manifest import (
    Manifest,
    Provenance,
    read_provenance,
    unreadable,
    with_columns_since,
)
from koser.data.sealing import UNREADABLE
from koser.errors import ManifestError
from koser.storage.objects import local_file
from koser.storage.places import Place

# Rows decoded at once. Parquet is read by column: a few rows cost nearly what many do.
_READ_ROWS = 2**16


@dataclass(frozen=True)
class StoredManifest:
    """A manifest that is not in memory.

    Attributes
    ----------
    path : Path
        The file or folder that was opened.
    files : tuple[Path, ...]
        Its Parquet files, in order.
    n_rows : int
        Rows of all of them.
    provenance : Provenance
        Of the first file; the others have the same labels.
    """

    path: Path
    files: tuple[Path, ...]
    n_rows: int
    provenance: Provenance

    @classmethod
    @contextmanager
    def opened(cls, place: Place) -> Iterator[StoredManifest]:
        """A manifest of this machine, or a copy of an object that lasts for the block.

        Raises
        ------
        ManifestError
            As `open`.
        StorageError
            If the object cannot be had.
        """
        with local_file(place) as path:
            yield cls.open(path, name=str(place))

    @classmethod
    def open(cls, path: Path, *, name: str | None = None) -> StoredManifest:
        """Find a manifest's files, check them and count their rows; no row is read.

        Parameters
        ----------
        path : Path
            The file or folder.
        name : str, optional
            What messages call a file, by default its path.

        Raises
        ------
        ManifestError
            If there is none, a file is damaged or no manifest of koser, or labels differ
            between files.
        """
        files = tuple(sorted(path.glob("*.parquet"))) if path.is_dir() else (path,)
        if not files:
            raise ManifestError(
                f"No Parquet file in '{path}'. Give a manifest, or a folder of manifests."
            )
        own = None if path.is_dir() else name
        provenances = [read_provenance(file, name=own) for file in files]
        for file, provenance in zip(files, provenances, strict=True):
            if provenance.labels != provenances[0].labels:
                raise ManifestError(
                    f"'{file}' has the labels {', '.join(provenance.labels)}, '{files[0]}' has "
                    f"{', '.join(provenances[0].labels)}. One manifest has one list of labels."
                )
        n_rows = sum(_count_rows(file) for file in files)
        return cls(path, files, n_rows, provenances[0])

    def __len__(self) -> int:
        return self.n_rows

    def iter_tables(self, n_rows: int) -> Iterator[pl.DataFrame]:
        """Yield all rows in order, `n_rows` at once; the last table may be shorter.

        Raises
        ------
        ManifestError
            If rows contradict each other. That an id is used twice is seen within a table.
        """
        left = pl.DataFrame()
        for read in self._iter_read():
            left = pl.concat([left, read]) if left.height else read
            while left.height >= n_rows:
                yield self._checked(left[:n_rows]).table
                left = left[n_rows:]
        if left.height:
            yield self._checked(left).table

    def iter_manifests(self, n_rows: int) -> Iterator[Manifest]:
        """Yield what `iter_tables` does, each as a manifest with the labels of the whole."""
        for table in self.iter_tables(n_rows):
            yield self._of_rows(table)

    def digest(self) -> str:
        """A hash of the files' content."""
        total = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()[:16]

    def _iter_read(self) -> Iterator[pl.DataFrame]:
        for file in self.files:
            for first in range(0, _count_rows(file), _READ_ROWS):
                part = _scan(file).slice(first, _READ_ROWS)
                try:
                    yield with_columns_since(part.collect())
                except UNREADABLE as error:
                    raise unreadable(file, error) from error

    def _checked(self, table: pl.DataFrame) -> Manifest:
        return self._of_rows(table).validate()

    def _of_rows(self, table: pl.DataFrame) -> Manifest:
        # What was left out belongs to the whole: these rows account for themselves.
        own = replace(self.provenance, n_rows_in=table.height, left_out=(), unlisted=())
        return Manifest(table, own)


def _scan(file: Path) -> pl.LazyFrame:
    """The rows of one file; brackets in its name are no pattern."""
    return pl.scan_parquet(file, hive_partitioning=False, glob=False)


def _count_rows(file: Path) -> int:
    try:
        count: int = _scan(file).select(pl.len()).collect().item()
    except UNREADABLE as error:
        raise unreadable(file, error) from error
    return count
