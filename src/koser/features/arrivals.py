"""Clips as their files come: local ones at once, those of a store fetched ahead of use.

A store answers after some tens of milliseconds whatever is asked for. Fetched one by one,
clips would be waited for; so objects are fetched by threads ahead of whoever hears them, each
once for the runs of clips that are parts of it, and once for both its hash and its sound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from koser.audio.reading import SAMPLING_RATE, AudioInfo, Clip, load_clip, probe
from koser.audio.remote import fetch_audio
from koser.engines.local import iter_ahead
from koser.errors import AudioError
from koser.features.store import KEY_SIZE
from koser.storage.objects import Spool
from koser.storage.places import is_url

# Objects on their way or on this machine's disk, of one process. They wait, not compute.
N_AHEAD = 32


class Arrival:
    """A clip whose file is here, or is known not to come.

    Parameters
    ----------
    clip : Clip
        The clip.
    spool : Spool or AudioError, optional
        The copy of its object, or why there is none; None for a file of this machine.
    """

    def __init__(self, clip: Clip, spool: Spool | AudioError | None = None) -> None:
        self.clip = clip
        self._spool = spool

    def key(self) -> bytes:
        """See `clip_key`."""
        return clip_key(self.clip, self._here())

    def probe(self) -> AudioInfo:
        """See `koser.audio.reading.probe`."""
        spool = self._here()
        return probe(self.clip.path if spool is None else spool.path, name=self.clip.path)

    def load(self, *, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
        """See `koser.audio.reading.load_clip`."""
        return load_clip(self.clip, sampling_rate=sampling_rate, spool=self._here())

    def _here(self) -> Spool | None:
        if isinstance(self._spool, AudioError):
            raise self._spool
        return self._spool


def iter_arrivals(clips: Iterable[Clip]) -> Iterator[Arrival]:
    """Yield every clip, in order; up to `N_AHEAD` objects are fetched ahead.

    An object that cannot be had is an `AudioError` when its clip is used. Clips of local
    files pass through untouched until the first one of a store.

    Raises
    ------
    StorageError
        If object storage cannot be used.
    """
    iterator = iter(clips)
    for clip in iterator:
        if is_url(clip.path):
            yield from _iter_fetched(chain([clip], iterator))
            return
        yield Arrival(clip)


def clip_key(clip: Clip, spool: Spool | None = None) -> bytes:
    """The store's key of a clip: a hash of the file's bytes and of the part and channel taken.

    The content counts, not the name: a replaced file is extracted anew, a moved or
    copied one, from or to object storage too, is found again.

    Parameters
    ----------
    clip : Clip
        The clip.
    spool : Spool, optional
        The copy of its object, which has been hashed as it came.

    Returns
    -------
    bytes
        `KEY_SIZE` of them.

    Raises
    ------
    AudioError
        If the file cannot be read.
    """
    if spool is None and is_url(clip.path):
        spool = fetch_audio(clip.path)
    if spool is not None:
        digest = spool.digest
    else:
        try:
            with Path(clip.path).open("rb") as file:
                # SHA-256, because processors have instructions for it: half the time of BLAKE2b.
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise AudioError(f"Cannot read '{clip.path}': {error.strerror}.") from error
    if clip.start is not None or clip.end is not None:
        digest.update(f"|{clip.start!r}|{clip.end!r}".encode())
    if clip.channel is not None:
        digest.update(f"|channel {clip.channel}".encode())
    return digest.digest()[:KEY_SIZE]


def _iter_fetched(clips: Iterable[Clip]) -> Iterator[Arrival]:
    runs = ((path, list(run)) for path, run in groupby(clips, key=lambda clip: clip.path))
    for run, spool in iter_ahead(_fetch_run, runs, n_threads=N_AHEAD):
        for clip in run:
            yield Arrival(clip, spool)


def _fetch_run(run: tuple[str, list[Clip]]) -> tuple[list[Clip], Spool | AudioError | None]:
    path, clips = run
    if not is_url(path):
        return clips, None
    try:
        return clips, fetch_audio(path)
    except AudioError as error:
        return clips, error
