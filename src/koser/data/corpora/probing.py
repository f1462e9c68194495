"""What the headers of a corpus's audio say, on this machine's disk or in object storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from koser.audio.reading import AudioInfo, probe
from koser.engines.engine import Engine
from koser.engines.local import iter_ahead
from koser.errors import AudioError
from koser.storage.places import is_url

# Headers that a worker reads at once.
_CHUNK = 64
# Below this many, starting worker processes costs more than it saves.
_WORTH_WORKERS = 20_000
# Requests of one process on their way to a store. They wait, not compute.
_N_AHEAD = 32


def probe_all(paths: Sequence[str], engine: Engine) -> Iterator[AudioInfo | AudioError]:
    """Yield what the header of each file says, or what is wrong with it, in order.

    Raises
    ------
    StorageError
        If object storage cannot be used.
    """
    chunks = (paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK))
    few = len(paths) < _WORTH_WORKERS
    yield from chain.from_iterable(engine.map_chunks(_Probing, chunks, lost=_lost, here=few))


class _Probing:
    """What a worker does to paths."""

    def read(self, paths: Sequence[str]) -> list[AudioInfo | AudioError]:
        if any(map(is_url, paths)):
            return list(iter_ahead(_probe, paths, n_threads=_N_AHEAD))
        return [_probe(path) for path in paths]

    def finish(self, found: list[AudioInfo | AudioError]) -> list[AudioInfo | AudioError]:
        return found


def _probe(path: str) -> AudioInfo | AudioError:
    try:
        return probe(path)
    except AudioError as error:
        return error


def _lost(path: str) -> AudioInfo | AudioError:
    return AudioError(f"'{path}' ends the process that reads it, each time. Convert it.")
