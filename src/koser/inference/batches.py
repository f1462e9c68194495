"""Sound as it comes: read ahead in threads, and given to a model in batches of bounded length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from koser.audio.reading import SAMPLING_RATE, Clip
from koser.engines.local import iter_ahead
from koser.errors import AudioError
from koser.features.arrivals import Arrival, iter_arrivals
from koser.features.batching import batches_by_length
from koser.inference.prediction import Failure

# Files read before they are recognised together: enough to fill the network, few enough
# to hold. A batch is bounded in seconds too, so that one long file does not pad fifteen.
MICRO_BATCH = 16
_BATCH_SECONDS = 120

ResultT = TypeVar("ResultT")


def iter_results(
    clips: Iterable[Clip],
    predict: Callable[[Sequence[np.ndarray], Sequence[Clip]], Sequence[ResultT]],
) -> Iterator[ResultT | Failure]:
    """Yield a result for each clip, in order; one that cannot be read is a `Failure`.

    `MICRO_BATCH` of them are read while as many are predicted, and objects of a store are
    fetched ahead: a few are in memory, never all.

    Parameters
    ----------
    clips : Iterable[Clip]
        Taken as needed.
    predict : Callable
        Results of waveforms [each shape=(n_samples,)], float32, 16 kHz mono, and the clips that
        they are.

    Raises
    ------
    StorageError
        If object storage cannot be used at all; one object that cannot be had is a `Failure`.
    """
    for batch in iter_ahead(_read_batch, _gathered(iter_arrivals(clips))):
        read = [(sound, clip) for clip, sound in batch if isinstance(sound, np.ndarray)]
        results = iter(predict([sound for sound, _ in read], [clip for _, clip in read]))
        for _, sound in batch:
            yield sound if isinstance(sound, Failure) else next(results)


def compute_rows(
    waveforms: Sequence[np.ndarray],
    compute: Callable[[Sequence[np.ndarray]], np.ndarray],
    n_columns: int,
) -> np.ndarray:
    """What a model computes of waveforms, those of similar length together.

    Parameters
    ----------
    waveforms : Sequence[np.ndarray] [each shape=(n_samples,)]
        float32, 16 kHz mono, each of at least one sample.
    compute : Callable
        Maps a batch of them to rows [shape=(batch, n_columns)].
    n_columns : int
        Numbers for each waveform.

    Returns
    -------
    np.ndarray [shape=(n_waveforms, n_columns)]
        float64.
    """
    computed = np.zeros((len(waveforms), n_columns))
    lengths = [len(waveform) for waveform in waveforms]
    for rows in batches_by_length(lengths, _BATCH_SECONDS * SAMPLING_RATE):
        computed[rows] = compute([waveforms[row] for row in rows.tolist()])
    return computed


def read_arrival(arrival: Arrival) -> np.ndarray | Failure:
    """The waveform of a clip [shape=(n_samples,)], or why there is none."""
    try:
        return arrival.load()
    except AudioError as error:
        # The machine or the store refused; what is wrong with sound has other causes.
        may_pass = isinstance(error.__cause__, OSError)
        return Failure.of_clip(arrival.clip, str(error), may_pass=may_pass)


def _gathered(arrivals: Iterable[Arrival]) -> Iterator[list[Arrival]]:
    iterator = iter(arrivals)
    while batch := list(islice(iterator, MICRO_BATCH)):
        yield batch


def _read_batch(arrivals: Sequence[Arrival]) -> list[tuple[Clip, np.ndarray | Failure]]:
    return [(arrival.clip, read_arrival(arrival)) for arrival in arrivals]
