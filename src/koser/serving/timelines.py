"""Timelines on request: computed in a thread, window by window, within a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import numpy as np
from starlette.requests import Request

from koser.inference.recognizer import Recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.timeline import Timeline, make_timeline
from koser.serving.spool import Spool
from koser.serving.waiting import computed

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


async def compute_timeline(
    request: Request,
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
    request : Request
        That it came with.
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
    ProblemError, ClientDisconnect
        As `computed`.
    """

    def compute(check: Callable[[], None]) -> Timeline:
        def blocks() -> Iterator[np.ndarray]:
            for block in spool.iter_blocks():
                check()
                yield block

        return make_timeline(recognizer, blocks(), options)

    return await computed(request, compute, pool=pool, timeout=timeout, name="timeline")


def measure_peaks(
    spool: Spool, n_peaks: int, *, first: int = 0, n_samples: int | None = None
) -> list[float]:
    """The outline of a waveform, or a part: the largest magnitude in `n_peaks` equal stretches."""
    end = spool.n_samples if n_samples is None else first + n_samples
    edges = np.linspace(first, end, n_peaks + 1).round().astype(np.int64)
    peaks = []
    for left, right in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        stretch = spool.read_waveform(left, right - left)
        peaks.append(float(np.abs(stretch).max()) if len(stretch) else 0.0)
    return [round(peak, 4) for peak in peaks]
