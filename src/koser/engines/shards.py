"""A folder of results in shards, and the list of those that are done.

Rows are numbered by where they come from. Shard N holds the results of rows
``N * shard_rows`` and following, under a name made of N: whoever makes it, and however often,
it is there once. ``done.jsonl`` says first what the results are of; then, a line for each
shard, which are complete; of several for one shard the last holds. A line follows its shard
onto the disk, so a process killed at any moment leaves shards that are whole, or that no line
names: those are made again. Each line has a CRC-32 of itself; one that is damaged names nothing.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from koser.errors import ResultsError
from koser.files import replacing, take_lock

if TYPE_CHECKING:
    import polars as pl

DONE_NAME = "done.jsonl"
_FORMAT = "koser-shards-2"
# The first had no checksums, and did not say which failures may pass.
_FORMATS = ("koser-shards-1", _FORMAT)
_HEAD = {"format": str, "n_rows": int, "shard_rows": int, "job": dict}
# CRC-32 of a line's JSON without this key.
_SUM = "line_crc"


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
    n_passing : int
        Of `n_failed`, those that may have a result another time: they could not be fetched.
    """

    number: int
    n_rows: int
    n_failed: int
    n_bytes: int
    crc: int
    n_passing: int

    @property
    def name(self) -> str:
        """Of its file; names in order are shards in order."""
        return _name(self.number)


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
        """Whether every row has a result, or the reason why there is none."""
        return len(self.done) == self.n_shards

    @property
    def todo(self) -> list[int]:
        """Shards that are not there, and those with rows that may have a result now."""
        return [
            number
            for number in range(self.n_shards)
            if number not in self.done or self.done[number].n_passing
        ]

    def rows_of(self, number: int) -> int:
        """Rows of a shard."""
        return min(self.shard_rows, self.n_rows - number * self.shard_rows)

    def read(self, number: int) -> pl.DataFrame | None:
        """A shard that is done; None if it is not, or is no longer what was written."""
        import polars as pl
        from polars.exceptions import PolarsError

        shard = self.done.get(number)
        if shard is None:
            return None
        try:
            content = (self.path / shard.name).read_bytes()
            whole = zlib.crc32(content) == shard.crc
            return pl.read_parquet(io.BytesIO(content)) if whole else None
        except (OSError, PolarsError):
            return None

    def write(self, number: int, table: pl.DataFrame, *, n_failed: int, n_passing: int = 0) -> None:
        """Keep a shard: the results of its rows, in order; one of `todo`.

        Raises
        ------
        ResultsError
            If it has not the rows that it must have, is there, or cannot be written.
        """
        wanted = self.rows_of(number)
        is_there = number in self.done and not self.done[number].n_passing
        if is_there or table.height != wanted:
            raise ResultsError(
                f"Shard {number} of '{self.path}' takes {wanted} rows once, not {table.height}"
                f"{' again' if is_there else ''}. This is a bug in koser."
            )
        from polars.exceptions import PolarsError

        path = self.path / _name(number)
        try:
            with replacing(path) as partial:
                table.write_parquet(partial)
                with partial.open("rb") as file:
                    crc = zlib.crc32(file.read())
                n_bytes = partial.stat().st_size
            shard = Shard(number, table.height, n_failed, n_bytes, crc, n_passing)
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
        self._list.write(f"{_json({**values, _SUM: _sum(values)})}\n".encode())
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
        If the folder holds something else, its list is damaged, another process writes to it,
        or it cannot be written to.
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
            is_ours = take_lock(file)
        except OSError as error:
            raise ResultsError(f"Cannot write to '{path}': {error.strerror}.") from error
        if not is_ours:
            raise ResultsError(
                f"Another process writes to '{path}'. Wait for it, or give another folder."
            )
        for left in path.glob(".*.partial"):  # of a killed process; this one has the lock
            left.unlink(missing_ok=True)
        file.seek(0)
        lines = _whole_lines(file)
        folder = ShardFolder(path, n_rows, shard_rows, {})
        folder._list = file
        if lines:
            theirs = _read_head(path, lines[0])
            if theirs["format"] not in _FORMATS or {**theirs, "format": _FORMAT} != head:
                raise ResultsError(_difference(path, theirs, head))
        file.truncate(sum(map(len, lines)))  # a line that a killed process left half-written
        if not lines:
            folder._append(head)
        for shard in _listed(lines[1:], folder):
            if _size(path / shard.name) == shard.n_bytes:
                folder.done[shard.number] = shard
        yield folder


def read_shards(path: Path) -> ShardFolder:
    """What a folder of shards holds, without writing to it.

    Raises
    ------
    ResultsError
        If it is no such folder, its list is damaged, or a shard that is listed is missing or
        of another size.
    """
    try:
        with (path / DONE_NAME).open("rb") as file:
            lines = _whole_lines(file)
    except OSError as error:
        raise ResultsError(f"No shards in '{path}': {error.strerror}.") from error
    head = _read_head(path, lines[0]) if lines else None
    if head is None or head["format"] not in _FORMATS:
        raise ResultsError(f"'{path / DONE_NAME}' is no list of shards that this koser knows.")
    folder = ShardFolder(path, head["n_rows"], head["shard_rows"], {})
    for shard in _listed(lines[1:], folder):
        if _size(path / shard.name) != shard.n_bytes:
            raise ResultsError(
                f"'{path / shard.name}' is missing or damaged. Run the command that made it again."
            )
        folder.done[shard.number] = shard
    return folder


def _whole_lines(file: BinaryIO) -> list[bytes]:
    """All lines, but for a last one that a killed process left half-written."""
    return [line for line in file if line.endswith(b"\n")]


def _read_head(path: Path, line: bytes) -> dict[str, Any]:
    """What a list says first; of one of another version only its ``format`` is sure."""
    head = _values(line)
    if head is not None and str(head.get("format")).startswith("koser-shards-"):
        if head["format"] not in _FORMATS:
            return head
        if _has_types(head, _HEAD) and head["n_rows"] >= 0 and head["shard_rows"] > 0:
            return head
    raise ResultsError(
        f"'{path / DONE_NAME}' is damaged. Remove '{path}', or give another folder: nothing says "
        f"any more what its results are of."
    )


def _listed(lines: Iterable[bytes], folder: ShardFolder) -> Iterable[Shard]:
    """Shards that are listed, each by its last line; a damaged line is passed over."""
    shards = filter(None, (_read_shard(line, folder) for line in lines))
    return {shard.number: shard for shard in shards}.values()


def _read_shard(line: bytes, folder: ShardFolder) -> Shard | None:
    values = _values(line)
    if values is None:
        return None
    values.setdefault("n_passing", values.get("n_failed"))
    if not _has_types(values, {field.name: int for field in fields(Shard)}):
        return None
    shard = Shard(**values)
    is_sound = (
        0 <= shard.number < folder.n_shards
        and shard.n_rows == folder.rows_of(shard.number)
        and 0 <= shard.n_passing <= shard.n_failed <= shard.n_rows
    )
    return shard if is_sound else None


def _values(line: bytes) -> dict[str, Any] | None:
    """What a line says, without its checksum; None if it is damaged."""
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            return None
        stated = values.pop(_SUM, None)
        return values if stated in (None, _sum(values)) else None
    except (ValueError, RecursionError):
        return None


def _has_types(values: Mapping[str, Any], types: Mapping[str, type]) -> bool:
    # `type` and not `isinstance`: True is no number here
    return {name: type(value) for name, value in values.items()} == types


def _sum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(_json(values).encode())


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _name(number: int) -> str:
    return f"part-{number:09d}.parquet"


def _difference(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if theirs["format"] not in _FORMATS:
        return f"'{path}' was made by another version of koser. Give another folder."
    first, second = ({**each, **each["job"]} for each in (theirs, ours))
    names = [
        name for name in second if name not in ("format", "job") and first.get(name) != second[name]
    ]
    what = "; ".join(f"{name} was {first.get(name)}, is {second[name]}" for name in names)
    return (
        f"'{path}' holds results of another job ({what}). Give another folder, or remove this one."
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
