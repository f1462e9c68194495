"""What the headers of a corpus's audio say, objects of a store asked ahead of use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from koser.audio.reading import AudioInfo, probe
from koser.engines.local import iter_ahead
from koser.errors import AudioError
from koser.storage.places import is_url

# Requests of one process on their way to a store. They wait, not compute.
_N_AHEAD = 32

Row = dict[str, Any]


def iter_probed(rows: Iterable[Row]) -> Iterator[tuple[Row, AudioInfo | AudioError]]:
    """Yield every row with what its ``path`` is, or what is wrong with it; each path once.

    Raises
    ------
    StorageError
        If object storage cannot be used.
    """
    # A recording may hold hundreds of rows.
    probed: dict[str, AudioInfo | AudioError] = {}
    iterator = iter(rows)
    for row in iterator:
        path = str(row["path"])
        if is_url(path):
            yield from _iter_ahead(chain([row], iterator))
            return
        if path not in probed:
            probed[path] = _probe(path)
        yield row, probed[path]


def _iter_ahead(rows: Iterable[Row]) -> Iterator[tuple[Row, AudioInfo | AudioError]]:
    # None stands for a path that was asked before, or is being asked now: answers come in order.
    asked: set[str] = set()

    def new_paths() -> Iterator[tuple[Row, str | None]]:
        for row in rows:
            path = str(row["path"])
            yield row, None if path in asked else path
            asked.add(path)

    probed: dict[str, AudioInfo | AudioError] = {}
    for row, info in iter_ahead(_probe_row, new_paths(), n_threads=_N_AHEAD):
        path = str(row["path"])
        if info is not None:
            probed[path] = info
        yield row, probed[path]


def _probe_row(item: tuple[Row, str | None]) -> tuple[Row, AudioInfo | AudioError | None]:
    row, path = item
    return row, None if path is None else _probe(path)


def _probe(path: str) -> AudioInfo | AudioError:
    try:
        return probe(path)
    except AudioError as error:
        return error
