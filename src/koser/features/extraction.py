"""From a manifest's audio to features in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl

from koser.audio.reading import SAMPLING_RATE, Clip
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import AudioError, UnreadableError
from koser.features.arrivals import iter_arrivals
from koser.features.batching import batches_by_length
from koser.features.store import KEY_SIZE, FeatureStore

# Called with the number of utterances done so far and their total.
Progress = Callable[[int, int], None]

_CHUNK = 32
# Below this many utterances, starting worker processes costs more than it saves.
_WORTH_WORKERS = 256
# The same for an encoder, whose workers load it, in seconds of sound.
_SECONDS_WORTH_WORKERS = 900.0


class Extractor(Protocol):
    """A front-end: what it is, and one clip's features."""

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform."""
        ...

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Features of one waveform."""
        ...


@runtime_checkable
class BatchExtractor(Protocol):
    """A front-end that is faster with several clips at once."""

    @property
    def dtype(self) -> str:
        """NumPy type that the features are kept in."""
        ...

    @property
    def batch_seconds(self) -> float:
        """Sound in one batch, padding included."""
        ...

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on a GPU, which processes do not share."""
        ...

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform."""
        ...

    def extract(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Features of each waveform, the same as if it were alone."""
        ...


@dataclass(frozen=True)
class _Outcome:
    key: bytes = b""
    features: np.ndarray | None = None  # None where the store has them already
    error: str = ""


def clips_of(table: pl.DataFrame) -> list[Clip]:
    """The clips of a manifest's rows, in their order."""
    return [Clip(*row) for row in table.select("path", "start", "end", "channel").iter_rows()]


def extract(
    clips: Sequence[Clip],
    extractor: Extractor,
    store_root: Path,
    *,
    engine: Engine = SERIAL,
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
    engine : Engine
        Where it is done; the result does not depend on it.
    progress : Progress, optional
        Called after each clip.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=S16]
        Each clip's key, in the given order.

    Raises
    ------
    UnreadableError
        If clips cannot be read: all others are extracted first, then one error counts
        them and names the first five.
    """
    batches = [
        range(first, min(first + _CHUNK, len(clips))) for first in range(0, len(clips), _CHUNK)
    ]
    return _extract(
        clips,
        batches,
        _OneByOne(extractor),
        store_root,
        engine=engine,
        here=len(clips) < _WORTH_WORKERS,
        progress=progress,
    )


def extract_in_batches(
    clips: Sequence[Clip],
    durations: np.ndarray,
    extractor: BatchExtractor,
    store_root: Path,
    *,
    engine: Engine = SERIAL,
    progress: Progress | None = None,
) -> np.ndarray:
    """Put the features of every clip into the store, clips of similar length together.

    Parameters
    ----------
    clips : Sequence[Clip]
        What to extract.
    durations : np.ndarray [shape=(n_clips,)]
        Their lengths in seconds; they decide only what is batched with what.
    extractor : BatchExtractor
        The front-end; it must be picklable.
    store_root : Path
        Folder of the stores.
    engine : Engine
        Where it is done, each worker with a front-end of its own; the result does not depend
        on it.
    progress : Progress, optional
        Called after each clip.

    Returns
    -------
    np.ndarray [shape=(n_clips,), dtype=S16]
        Each clip's key, in the given order.

    Raises
    ------
    UnreadableError
        As `extract` does.
    """
    # The longest first: what does not fit into memory shows at once.
    lengths = np.ceil(durations * SAMPLING_RATE).astype(np.int64)
    limit = round(extractor.batch_seconds * SAMPLING_RATE)
    batches = batches_by_length(lengths, limit)[::-1]
    is_small = float(np.sum(durations)) < _SECONDS_WORTH_WORKERS
    return _extract(
        clips,
        [batch.tolist() for batch in batches],
        extractor,
        store_root,
        engine=engine,
        here=is_small or extractor.is_on_gpu,
        progress=progress,
    )


def _extract(
    clips: Sequence[Clip],
    batches: Sequence[Sequence[int]],
    extractor: BatchExtractor,
    store_root: Path,
    *,
    engine: Engine,
    here: bool,
    progress: Progress | None,
) -> np.ndarray:
    store = FeatureStore(store_root, extractor.describe(), dtype=extractor.dtype)
    keys = np.zeros(len(clips), f"S{KEY_SIZE}")
    failures: dict[int, str] = {}
    n_done = 0
    with store.writer() as writer:
        # Within the lock: who had to wait for another process makes nothing that it has made.
        known = np.array(store.all_keys(), f"S{KEY_SIZE}")
        outcomes_of_batches = engine.map_chunks(
            partial(_BatchWork, extractor, known),
            ([clips[row] for row in batch] for batch in batches),
            lost=_lost,
            here=here,
        )
        for batch, outcomes in zip(batches, outcomes_of_batches, strict=True):
            writer.append_together(
                (outcome.key, outcome.features)
                for outcome in outcomes
                if outcome.features is not None
            )
            for row, outcome in zip(batch, outcomes, strict=True):
                if outcome.error:
                    failures[row] = outcome.error
                else:
                    keys[row] = outcome.key
                n_done += 1
                if progress is not None:
                    progress(n_done, len(clips))
    if failures:
        reasons = dict(sorted(failures.items()))
        raise UnreadableError(
            f"{len(failures)} of {len(clips)} audio files cannot be read. Repair them or run "
            f"`koser prepare` again, which leaves them out and says so. "
            f"The first: {' | '.join(list(reasons.values())[:5])}",
            reasons,
        )
    return keys


def _lost(clip: Clip) -> _Outcome:
    return _Outcome(error=describe_lost(clip.path))


def describe_lost(path: str) -> str:
    """The reason given for a file that ended every process that worked on it."""
    return (
        f"'{path}' ends the process that works on it, each time: it crashes a decoder or does not "
        f"fit in memory. Convert it, or leave it out."
    )


class _OneByOne:
    """A front-end that gains nothing from batches, as one that takes them."""

    dtype = "float32"
    batch_seconds = 0.0
    is_on_gpu = False

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    def describe(self) -> dict[str, object]:
        return self._extractor.describe()

    def extract(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._extractor(waveform) for waveform in waveforms]


class _BatchWork:
    """What a worker does to each batch of clips.

    It is given the keys that the store has, ordered, because it may run where the store is
    not; and gives features back, because one process writes.
    """

    def __init__(self, extractor: BatchExtractor, known: np.ndarray) -> None:
        self._extractor = extractor
        self._known = known

    def read(self, clips: Sequence[Clip]) -> tuple[list[_Outcome], dict[int, np.ndarray]]:
        """Look up every clip; and the waveforms of those to be made, by their place."""
        outcomes: list[_Outcome] = []
        waveforms: dict[int, np.ndarray] = {}
        for place, arrival in enumerate(iter_arrivals(clips)):
            try:
                key = arrival.key()
                if not self._is_known(key):
                    waveforms[place] = arrival.load()
                outcomes.append(_Outcome(key))
            except AudioError as error:
                outcomes.append(_Outcome(error=str(error)))
        return outcomes, waveforms

    def _is_known(self, key: bytes) -> bool:
        place = int(self._known.searchsorted(np.array(key, self._known.dtype)))
        # NumPy hands fixed-width bytes out without their trailing zeros.
        return place < len(self._known) and bool(self._known[place] == key.rstrip(b"\0"))

    def finish(self, found: tuple[list[_Outcome], dict[int, np.ndarray]]) -> list[_Outcome]:
        """Make what is missing."""
        outcomes, waveforms = found
        if waveforms:
            # Here and not above: who only hashes and listens, as an audit, needs no torch.
            from koser.features.threads import torch_threads

            with torch_threads(1):
                made = self._extractor.extract(list(waveforms.values()))
            for place, features in zip(waveforms, made, strict=True):
                outcomes[place] = _Outcome(outcomes[place].key, features)
        return outcomes
