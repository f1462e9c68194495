"""What the headers of a corpus's audio say, objects of a store asked ahead of use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from koser.audio.reading import AudioInfo, probe
from koser.engines.local import iter_ahead
from koser.errors import AudioError
from koser.storage.places import is_url

# Requests of one process on their way to a store. They wait, not compute.
_N_AHEAD = 32


def iter_probed(paths: Iterable[str]) -> Iterator[AudioInfo | AudioError]:
    """Yield what each file is, or what is wrong with it, in order.

    Raises
    ------
    StorageError
        If object storage cannot be used.
    """
    iterator = iter(paths)
    for path in iterator:
        if is_url(path):
            yield from iter_ahead(_probe, chain([path], iterator), n_threads=_N_AHEAD)
            return
        yield _probe(path)


def _probe(path: str) -> AudioInfo | AudioError:
    try:
        return probe(path)
    except AudioError as error:
        return error
