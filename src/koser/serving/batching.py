"""One thread owns the model; what waits for it is computed together.

Whenever the thread is free it takes the clip that has waited longest and, of the others, those
of similar length: nobody starves, and no short clip is padded to a long one. Nothing is held back
in the hope of company, so an idle server answers at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.features.voices import Voice
from koser.inference.models import EnrollingModel
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig

_logger = logging.getLogger(__name__)
_LENGTH_RATIO = 2.0  # at most, between clips of a batch: half of it is padding at worst

PredictBatch = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(eq=False)
class _Clip:
    waveform: np.ndarray
    # A request waits in the event loop, a timeline in a thread of its own.
    future: asyncio.Future[np.ndarray] | Future[np.ndarray]
    voice: Voice | None = None
    is_enrolment: bool = False  # what is wanted is not its probabilities, but its summary


class ModelThread:
    """The thread that computes.

    Parameters
    ----------
    predict : Callable
        Waveforms (16 kHz mono) to probabilities [shape=(n_waveforms, n_labels)].
    config : ServeConfig
        How many clips may wait, and how many are computed together.
    metrics : Metrics
        Where batches are counted.
    enrolling : EnrollingModel, optional
        The model, if it adapts to voices.
    """

    def __init__(
        self,
        predict: PredictBatch,
        config: ServeConfig,
        metrics: Metrics,
        enrolling: EnrollingModel | None = None,
    ) -> None:
        self._predict = predict
        self._enrolling = enrolling
        self._config = config
        self._metrics = metrics
        self._clips: deque[_Clip] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread once everything that waits is computed."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join()

    async def predict(
        self, waveform: np.ndarray, timeout: float, voice: Voice | None = None
    ) -> np.ndarray:
        """Probabilities of one clip [shape=(n_labels,)].

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)]
            16 kHz mono float32.
        timeout : float
            Seconds to wait.
        voice : Voice, optional
            Of whoever speaks.

        Raises
        ------
        ProblemError
            If too many wait already, or it takes too long.
        """
        return await self._ask(waveform, timeout, voice=voice)

    async def summarise(self, waveform: np.ndarray, timeout: float) -> np.ndarray:
        """What a voice is enrolled by, of one clip; as `predict`."""
        return await self._ask(waveform, timeout, is_enrolment=True)

    async def _ask(
        self,
        waveform: np.ndarray,
        timeout: float,
        *,
        voice: Voice | None = None,
        is_enrolment: bool = False,
    ) -> np.ndarray:
        if len(self._clips) >= self._config.max_waiting:
            raise ProblemError(
                "busy",
                f"{self._config.max_waiting} clips wait for the model. Try again later.",
                {"Retry-After": str(self._config.retry_after)},
            )
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._add([_Clip(waveform, future, voice, is_enrolment)])
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise ProblemError(
                "model-timeout", f"The model did not answer within {timeout:g} s."
            ) from error

    def predict_waveforms(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None] | None = None
    ) -> np.ndarray:
        """Probabilities of several clips [shape=(n_clips, n_labels)], called from other threads.

        Timelines and streams ask this way. They hold few clips at a time and are few
        themselves, so they wait without being refused.
        """
        voices = [None] * len(waveforms) if voices is None else voices
        futures: list[Future[np.ndarray]] = [Future() for _ in waveforms]
        self._add([_Clip(*each) for each in zip(waveforms, futures, voices, strict=True)])
        return np.stack([future.result() for future in futures])

    def summarise_waveforms(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What a voice is enrolled by, of several clips; as `predict_waveforms`."""
        futures: list[Future[np.ndarray]] = [Future() for _ in waveforms]
        self._add(
            [_Clip(*each, is_enrolment=True) for each in zip(waveforms, futures, strict=True)]
        )
        return [future.result() for future in futures]

    def _add(self, clips: Sequence[_Clip]) -> None:
        with self._changed:
            self._clips.extend(clips)
            self._metrics.waiting.set(len(self._clips))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._clips or self._is_ending):
                    self._changed.wait()
                if not self._clips:
                    return
                batch = self._take_batch()
                self._metrics.waiting.set(len(self._clips))
            if batch:
                self._metrics.batch_clips.observe(len(batch))
                self._compute(batch)

    def _take_batch(self) -> list[_Clip]:
        """Take the clip that waited longest, and others like it, off the queue."""
        batch: list[_Clip] = []
        kept: list[_Clip] = []
        limit = self._config.max_batch_seconds * SAMPLING_RATE
        longest = shortest = 0
        while self._clips and len(batch) < self._config.max_batch:
            clip = self._clips.popleft()
            if clip.future.done():  # its client has left
                continue
            n_samples = len(clip.waveform)
            high, low = max(longest, n_samples), min(shortest or n_samples, n_samples)
            is_alike = high <= _LENGTH_RATIO * low and (len(batch) + 1) * high <= limit
            # What enrols is computed by itself: a voice should not depend on its company.
            is_alone = batch and (clip.is_enrolment or batch[0].is_enrolment)
            if is_alone or (batch and not is_alike):
                kept.append(clip)
                continue
            batch.append(clip)
            longest, shortest = high, low
        self._clips.extendleft(reversed(kept))
        return batch

    def _compute(self, batch: Sequence[_Clip]) -> None:
        outcome: Sequence[np.ndarray] | Exception
        try:
            outcome = self._outcomes(batch)
        except Exception as error:
            # Nothing may end this thread: whoever waits gets the error, and it is logged there.
            outcome = error
        here: list[tuple[_Clip, np.ndarray | Exception]] = []
        there: list[tuple[_Clip, np.ndarray | Exception]] = []
        for place, clip in enumerate(batch):
            mine = outcome if isinstance(outcome, Exception) else outcome[place]
            (there if isinstance(clip.future, asyncio.Future) else here).append((clip, mine))
        _settle(here)
        if there:
            self._settle_in_loop(there)

    def _outcomes(self, batch: Sequence[_Clip]) -> Sequence[np.ndarray]:
        waveforms = [clip.waveform for clip in batch]
        voices = [clip.voice for clip in batch]
        if self._enrolling is not None and batch[0].is_enrolment:
            return self._enrolling.summarise(waveforms)
        if self._enrolling is not None and any(voice is not None for voice in voices):
            return list(self._enrolling.predict_enrolled(waveforms, voices))
        return list(self._predict(waveforms))

    def _settle_in_loop(self, settled: Sequence[tuple[_Clip, np.ndarray | Exception]]) -> None:
        # All of a batch at once: each call wakes the event loop.
        first = settled[0][0].future
        assert isinstance(first, asyncio.Future)
        try:
            first.get_loop().call_soon_threadsafe(_settle, settled)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            _logger.warning("%d results came after the server's end", len(settled))


def _settle(settled: Sequence[tuple[_Clip, np.ndarray | Exception]]) -> None:
    for clip, outcome in settled:
        if clip.future.done():  # its client has left
            continue
        if isinstance(outcome, Exception):
            clip.future.set_exception(outcome)
        else:
            clip.future.set_result(outcome)
