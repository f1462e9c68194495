"""A folder of results in shards, and the list of those that are done.

Rows are numbered by where they come from. Shard N holds the results of rows
``N * shard_rows`` and following, under a name made of N: whoever makes it, and however often,
it is there once. ``done.jsonl`` says first what the results are of; then, a line for each
shard, which are complete. A line follows its shard onto the disk, so a process killed at any
moment leaves shards that are whole, or that no line names: those are made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from koser.errors import ResultsError
from koser.files import replacing

if TYPE_CHECKING:
    import polars as pl

DONE_NAME = "done.jsonl"
_FORMAT = "koser-shards-1"


@dataclass(frozen=True)
class Shard:
    """A shard that is complete.

    Attributes
    ----------
    number : int
        Its place among all, from 0.
    n_rows, n_failed : int
        Its rows, and how many of them say only why there is no result.
    n_bytes, crc : int
        Size and CRC-32 of its file.
    """

    number: int
    n_rows: int
    n_failed: int
    n_bytes: int
    crc: int

    @property
    def name(self) -> str:
        """Of its file; names in order are shards in order."""
        return f"part-{self.number:09d}.parquet"


class ShardFolder:
    """Shards of one job; made by `open_shards`."""

    def __init__(self, path: Path, n_rows: int, shard_rows: int, done: dict[int, Shard]) -> None:
        self.path = path
        self.n_rows = n_rows
        self.shard_rows = shard_rows
        self.done = done
        self._list: BinaryIO | None = None

    @property
    def n_shards(self) -> int:
        """Shards when all are done."""
        return -(-self.n_rows // self.shard_rows)

    @property
    def n_failed(self) -> int:
        """Rows of complete shards without a result."""
        return sum(shard.n_failed for shard in self.done.values())

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.done) == self.n_shards

    def write(self, number: int, table: pl.DataFrame, *, n_failed: int) -> None:
        """Keep a shard: the results of its rows, in order.

        Raises
        ------
        ResultsError
            If it has not the rows that it must have, is there, or cannot be written.
        """
        wanted = min(self.shard_rows, self.n_rows - number * self.shard_rows)
        if number in self.done or table.height != wanted:
            raise ResultsError(
                f"Shard {number} of '{self.path}' takes {wanted} rows once, not {table.height}"
                f"{' again' if number in self.done else ''}. This is a bug in koser."
            )
        from polars.exceptions import PolarsError

        path = self.path / Shard(number, 0, 0, 0, 0).name
        try:
            with replacing(path) as partial:
                table.write_parquet(partial)
                with partial.open("rb") as file:
                    crc = zlib.crc32(file.read())
                n_bytes = partial.stat().st_size
            shard = Shard(number, table.height, n_failed, n_bytes, crc)
            self._append(asdict(shard))
        except (OSError, PolarsError) as error:
            raise ResultsError(
                f"Cannot write to '{self.path}' ({error}). What is done is kept: "
                f"make room, and run the same command again."
            ) from error
        self.done[number] = shard

    def _append(self, values: Mapping[str, Any]) -> None:
        if self._list is None:
            raise ResultsError(f"'{self.path}' is not open for writing. This is a bug in koser.")
        self._list.write(f"{json.dumps(values, ensure_ascii=False)}\n".encode())
        self._list.flush()
        os.fsync(self._list.fileno())


@contextmanager
def open_shards(
    path: Path, job: Mapping[str, object], *, n_rows: int, shard_rows: int
) -> Iterator[ShardFolder]:
    """A new folder of shards, or one that was begun, to go on with.

    Parameters
    ----------
    path : Path
        The folder.
    job : Mapping[str, object]
        All that the results depend on, as JSON values.
    n_rows, shard_rows : int
        Rows of the whole, and of a shard.

    Raises
    ------
    ResultsError
        If the folder holds something else, another process writes to it, or it cannot be
        written to.
    """
    head = {"format": _FORMAT, "n_rows": n_rows, "shard_rows": shard_rows, "job": dict(job)}
    listed = path / DONE_NAME
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not listed.exists() and any(path.iterdir()):
            raise ResultsError(f"'{path}' is a folder of something else. Give a new or empty one.")
        file = listed.open("a+b")
    except OSError as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"Cannot write to '{path}': {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsError(
                f"Another process writes to '{path}'. Wait for it, or give another folder."
            ) from error
        for left in path.glob(".*.partial"):  # of a killed process; this one has the lock
            left.unlink(missing_ok=True)
        file.seek(0)
        lines = _whole_lines(file)
        folder = ShardFolder(path, n_rows, shard_rows, {})
        folder._list = file
        if not lines:
            folder._append(head)
        elif lines[0] != head:
            raise ResultsError(_difference(path, lines[0], head))
        for line in lines[1:]:
            shard = Shard(**line)
            if _size(path / shard.name) == shard.n_bytes:
                folder.done[shard.number] = shard
        yield folder


def read_shards(path: Path) -> ShardFolder:
    """What a folder of shards holds, without writing to it.

    Raises
    ------
    ResultsError
        If it is no such folder, or a shard that is listed is missing or of another size.
    """
    try:
        with (path / DONE_NAME).open("rb") as file:
            lines = _whole_lines(file, cut=False)
    except OSError as error:
        raise ResultsError(f"No shards in '{path}': {error.strerror}.") from error
    if not lines or lines[0].get("format") != _FORMAT:
        raise ResultsError(f"'{path / DONE_NAME}' is no list of shards that this koser knows.")
    done = {}
    for line in lines[1:]:
        shard = Shard(**line)
        if _size(path / shard.name) != shard.n_bytes:
            raise ResultsError(
                f"'{path / shard.name}' is missing or damaged. Run the command that made it again."
            )
        done[shard.number] = shard
    return ShardFolder(path, lines[0]["n_rows"], lines[0]["shard_rows"], done)


def _whole_lines(file: BinaryIO, *, cut: bool = True) -> list[dict[str, Any]]:
    """Lines of JSON up to one that a killed process left half-written, which is cut off."""
    lines, end = [], 0
    for raw in file:
        try:
            lines.append(json.loads(raw))
        except ValueError:
            break
        if not raw.endswith(b"\n"):
            lines.pop()
            break
        end += len(raw)
    if cut:
        file.truncate(end)
    return lines


def _difference(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if theirs.get("format") != _FORMAT:
        return f"'{path}' was made by another version of koser. Give another folder."
    first, second = ({**each, **each["job"]} for each in (theirs, ours))
    names = [name for name in second if name != "job" and first.get(name) != second[name]]
    what = "; ".join(f"{name} was {first.get(name)}, is {second[name]}" for name in names)
    return (
        f"'{path}' holds results of another job ({what}). Give another folder, or remove this one."
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
