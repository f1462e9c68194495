"""Timelines on request: computed in a thread, window by window, within a time limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np

from koser.inference.recognizer import Recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.timeline import Timeline, make_timeline
from koser.serving.problems import ProblemError
from koser.serving.spool import Spool

# Formats of `render_timeline` and what they are called in HTTP.
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "rttm": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "audacity": "text/plain; charset=utf-8",
    "textgrid": "text/plain; charset=utf-8",
}
MAX_PEAKS = 4000


class _StoppedError(Exception):
    """Nobody waits for this timeline any more."""


async def compute_timeline(
    spool: Spool,
    recognizer: Recognizer,
    options: TimelineOptions,
    *,
    pool: Executor,
    timeout: float,
) -> Timeline:
    """The timeline of a decoded upload.

    Parameters
    ----------
    spool : Spool
        The upload.
    recognizer : Recognizer
        The model.
    options : TimelineOptions
        How it is cut up.
    pool : Executor
        Whose thread computes.
    timeout : float
        Seconds.

    Raises
    ------
    ProblemError
        If it takes longer.
    """
    is_stopped = threading.Event()

    def blocks() -> Iterator[np.ndarray]:
        for block in spool.iter_blocks():
            if is_stopped.is_set():
                raise _StoppedError
            yield block

    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(pool, make_timeline, recognizer, blocks(), options)
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(work)
    except TimeoutError as error:
        raise ProblemError(
            "model-timeout", f"The timeline took longer than {timeout:g} s."
        ) from error
    finally:
        # The spool may only be closed when the thread no longer reads it.
        is_stopped.set()
        await asyncio.wait([work])


def measure_peaks(spool: Spool, n_peaks: int) -> list[float]:
    """The waveform's outline: the largest magnitude in each of `n_peaks` equal stretches."""
    edges = np.linspace(0, spool.n_samples, n_peaks + 1).round().astype(np.int64)
    peaks = []
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        stretch = spool.read_waveform(first, last - first)
        peaks.append(float(np.abs(stretch).max()) if len(stretch) else 0.0)
    return [round(peak, 4) for peak in peaks]
