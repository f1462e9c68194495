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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig

_logger = logging.getLogger(__name__)
_LENGTH_RATIO = 2.0  # at most, between clips of a batch: half of it is padding at worst

PredictBatch = Callable[[Sequence[np.ndarray]], np.ndarray]
# Another question to the model: lists of equal length in, the first one waveforms, and a result
# for each of their places out.
AskBatch = Callable[..., Iterable[Any]]


@dataclass(eq=False)
class _Clip:
    inputs: tuple[Any, ...]  # a waveform, and whatever else the call takes of each
    # A request waits in the event loop, a timeline in a thread of its own.
    future: asyncio.Future[Any] | Future[Any]
    call: AskBatch | None = None  # None for the probabilities of the waveform
    is_alone: bool = False  # for what should not depend on its company in a batch

    @property
    def n_samples(self) -> int:
        return len(self.inputs[0])


class ModelThread:
    """The thread that computes.

    Parameters
    ----------
    predict : Callable
        Waveforms (16 kHz mono) to a row for each, such as probabilities
        [shape=(n_waveforms, n_columns)].
    config : ServeConfig
        How many clips may wait, and how many are computed together.
    metrics : Metrics
        Where batches are counted.
    """

    def __init__(self, predict: PredictBatch, config: ServeConfig, metrics: Metrics) -> None:
        self._predict = predict
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

    async def predict(self, waveform: np.ndarray, timeout: float) -> np.ndarray:
        """Probabilities of one clip [shape=(n_labels,)].

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)]
            16 kHz mono float32.
        timeout : float
            Seconds to wait.

        Raises
        ------
        ProblemError
            If too many wait already, or it takes too long.
        """
        probabilities: np.ndarray = await self.answer(None, waveform, timeout=timeout)
        return probabilities

    async def answer(
        self, call: AskBatch | None, *inputs: Any, timeout: float, is_alone: bool = False
    ) -> Any:
        """What the model answers to one clip; see `predict` and, for `call`, `ask`.

        Parameters
        ----------
        call : Callable or None
            A method of the model; None for the probabilities.
        inputs : Any
            What it takes of one clip; the first one is a waveform.
        timeout : float
            Seconds to wait.
        is_alone : bool
            Whether the clip has a batch to itself.
        """
        if len(self._clips) >= self._config.max_waiting:
            raise ProblemError(
                "busy",
                f"{self._config.max_waiting} clips wait for the model. Try again later.",
                {"Retry-After": str(self._config.retry_after)},
            )
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add([_Clip(inputs, future, call, is_alone)])
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise ProblemError(
                "model-timeout", f"The model did not answer within {timeout:g} s."
            ) from error

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of several clips [shape=(n_clips, n_labels)], called from other threads.

        Timelines and streams ask this way. They hold few clips at a time and are few
        themselves, so they wait without being refused.
        """
        return np.stack(self.ask(None, waveforms))

    def ask(
        self, call: AskBatch | None, *columns: Sequence[Any], is_alone: bool = False
    ) -> list[Any]:
        """Ask the model something, from other threads.

        Parameters
        ----------
        call : Callable or None
            A method of the model; None for the probabilities. Clips that wait for the same
            one are computed together.
        columns : Sequence
            What it takes, each of one length; the first one are waveforms.
        is_alone : bool
            Whether each clip has a batch to itself.
        """
        rows = list(zip(*columns, strict=True))
        futures: list[Future[Any]] = [Future() for _ in rows]
        self._add(
            [_Clip(row, future, call, is_alone) for row, future in zip(rows, futures, strict=True)]
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
            n_samples = clip.n_samples
            high, low = max(longest, n_samples), min(shortest or n_samples, n_samples)
            is_alike = high <= _LENGTH_RATIO * low and (len(batch) + 1) * high <= limit
            is_alone = clip.is_alone or (bool(batch) and batch[0].is_alone)
            if batch and (is_alone or not is_alike or clip.call != batch[0].call):
                kept.append(clip)
                continue
            batch.append(clip)
            longest, shortest = high, low
        self._clips.extendleft(reversed(kept))
        return batch

    def _compute(self, batch: Sequence[_Clip]) -> None:
        outcome: Sequence[Any] | Exception
        call = batch[0].call or self._predict
        try:
            outcome = list(call(*map(list, zip(*(clip.inputs for clip in batch), strict=True))))
        except Exception as error:
            # Nothing may end this thread: whoever waits gets the error, and it is logged there.
            outcome = error
        here: list[tuple[_Clip, Any]] = []
        there: list[tuple[_Clip, Any]] = []
        for place, clip in enumerate(batch):
            mine = outcome if isinstance(outcome, Exception) else outcome[place]
            (there if isinstance(clip.future, asyncio.Future) else here).append((clip, mine))
        _settle(here)
        if there:
            self._settle_in_loop(there)

    def _settle_in_loop(self, settled: Sequence[tuple[_Clip, Any]]) -> None:
        # All of a batch at once: each call wakes the event loop.
        first = settled[0][0].future
        assert isinstance(first, asyncio.Future)
        try:
            first.get_loop().call_soon_threadsafe(_settle, settled)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            _logger.warning("%d results came after the server's end", len(settled))


def _settle(settled: Sequence[tuple[_Clip, Any]]) -> None:
    for clip, outcome in settled:
        if clip.future.done():  # its client has left
            continue
        if isinstance(outcome, Exception):
            clip.future.set_exception(outcome)
        else:
            clip.future.set_result(outcome)
