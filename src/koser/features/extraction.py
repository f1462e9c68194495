"""From a manifest's audio to features in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from koser.audio.reading import load
from koser.engines.local import iter_map
from koser.errors import AudioError
from koser.features.store import KEY_SIZE, FeatureStore
from koser.features.threads import torch_threads

# Called with the number of utterances done so far and their total.
Progress = Callable[[int, int], None]

_CHUNK = 32
# Below this many utterances, starting worker processes costs more than it saves.
_WORTH_WORKERS = 256


class Extractor(Protocol):
    """A front-end: what it is, and one clip's features."""

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform."""
        ...

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Features of one waveform."""
        ...


@dataclass(frozen=True)
class Clip:
    """An utterance's place: a file, or a part of one in seconds."""

    path: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class _Outcome:
    key: bytes = b""
    features: np.ndarray | None = None  # None where the store has them already
    error: str = ""


def clips_of(table: pl.DataFrame) -> list[Clip]:
    """The clips of a manifest's rows, in their order."""
    return [Clip(*row) for row in table.select("path", "start", "end").iter_rows()]


def clip_key(clip: Clip) -> bytes:
    """The store's key of a clip: a hash of the file's bytes and of the part taken.

    The content counts, not the name: a replaced file is extracted anew, a moved or
    copied one is found again.

    Returns
    -------
    bytes
        `KEY_SIZE` of them.

    Raises
    ------
    AudioError
        If the file cannot be read.
    """
    try:
        with Path(clip.path).open("rb") as file:
            # SHA-256, because processors have instructions for it: half the time of BLAKE2b.
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise AudioError(f"Cannot read '{clip.path}': {error.strerror}.") from error
    if clip.start is not None or clip.end is not None:
        digest.update(f"|{clip.start!r}|{clip.end!r}".encode())
    return digest.digest()[:KEY_SIZE]


def extract(
    clips: Sequence[Clip],
    extractor: Extractor,
    store_root: Path,
    *,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> np.ndarray:
    """Put the features of every clip into the store.

    What the store has is not made again, so an interrupted extraction goes on where
    it stopped.

    Parameters
    ----------
    clips : Sequence[Clip]
        What to extract.
    extractor : Extractor
        The front-end; it must be picklable.
    store_root : Path
        Folder of the stores.
    n_workers : int
        Processes; the result does not depend on it.
    progress : Progress, optional
        Called after each clip.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=S16]
        Each clip's key, in the given order.

    Raises
    ------
    AudioError
        If clips cannot be read: all others are extracted first, then one error counts
        them and names the first five.
    """
    store = FeatureStore(store_root, extractor.describe())
    keys = np.zeros(len(clips), f"S{KEY_SIZE}")
    failures: list[str] = []
    outcomes = iter_map(
        partial(_ClipWork, extractor, store_root),
        clips,
        n_workers=n_workers if len(clips) >= _WORTH_WORKERS else 1,
        chunk_size=_CHUNK,
    )
    with store.writer() as writer:
        for row, outcome in enumerate(outcomes):
            if outcome.error:
                failures.append(outcome.error)
            else:
                keys[row] = outcome.key
                if outcome.features is not None:
                    writer.append(outcome.key, outcome.features)
            if progress is not None:
                progress(row + 1, len(clips))
    if failures:
        raise AudioError(
            f"{len(failures)} of {len(clips)} audio files cannot be read. Repair them or run "
            f"`koser prepare` again, which leaves them out and says so. "
            f"The first: {' | '.join(failures[:5])}"
        )
    return keys


class _ClipWork:
    """What one process does to each clip; opens the store once."""

    def __init__(self, extractor: Extractor, store_root: Path) -> None:
        self._extractor = extractor
        self._store = FeatureStore(store_root, extractor.describe())

    def __call__(self, clip: Clip) -> _Outcome:
        try:
            key = clip_key(clip)
            if key in self._store:
                return _Outcome(key)
            waveform = load(clip.path, start=clip.start, end=clip.end)
            with torch_threads(1):
                return _Outcome(key, self._extractor(waveform))
        except AudioError as error:
            return _Outcome(error=str(error))
