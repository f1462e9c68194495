"""What serves a model of labels: its recognizer, the voices that are held, what may be open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.errors import KoserError
from koser.features.voices import Voice
from koser.inference.enrolment import require_unheard
from koser.inference.explanation import MAX_SECONDS
from koser.inference.models import (
    EnrollingModel,
    ProbabilityModel,
    ReadingModel,
    require_enrolling,
)
from koser.inference.recognizer import Recognizer
from koser.serving.answers import ModelAnswer
from koser.serving.batching import ModelThread
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig
from koser.serving.sound_service import SoundService
from koser.serving.voices import HeldVoices


class SharedModel:
    """A model whose batches are made of what all requests ask for.

    Parameters
    ----------
    model : ProbabilityModel
        The model.
    thread : ModelThread
        Where it is computed.
    """

    is_threaded = False
    is_on_gpu = False

    def __init__(self, model: ProbabilityModel, thread: ModelThread) -> None:
        self.labels = model.labels
        self.origin = model.origin
        self._thread = thread

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities of waveforms [shape=(n_waveforms, n_labels)]."""
        return self._thread.predict_waveforms(waveforms)


class SharedReadingModel(SharedModel):
    """One that hears words too; see `SharedModel`."""

    def __init__(self, model: ReadingModel, thread: ModelThread) -> None:
        super().__init__(model, thread)
        self._model = model

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What is said in each; None where nothing can be believed."""
        return self._thread.ask(self._model.transcribe, waveforms)

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """Calibrated probabilities, as if `texts` were said [shape=(n_waveforms, n_labels)]."""
        return np.stack(self._thread.ask(self._model.predict_spoken, waveforms, texts))


class SharedEnrollingModel(SharedModel):
    """One that adapts to voices; see `SharedModel`."""

    def __init__(self, model: EnrollingModel, thread: ModelThread) -> None:
        super().__init__(model, thread)
        self._model = model
        self.prior = model.prior

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `SpeakerPrior.hear` takes of waveforms, one for each, whatever its company."""
        return self._thread.ask(self._model.summarise, waveforms, is_alone=True)

    def predict_enrolled(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None]
    ) -> np.ndarray:
        """Calibrated probabilities, each waveform of its voice [shape=(n_waveforms, n_labels)]."""
        return np.stack(self._thread.ask(self._model.predict_enrolled, waveforms, voices))


def _shared(model: ProbabilityModel, thread: ModelThread) -> SharedModel:
    if isinstance(model, ReadingModel):
        return SharedReadingModel(model, thread)
    if isinstance(model, EnrollingModel):
        return SharedEnrollingModel(model, thread)
    return SharedModel(model, thread)


class Service(SoundService):
    """What serves one model of labels.

    Parameters
    ----------
    model : ProbabilityModel
        The model.
    config : ServeConfig
        The limits.
    """

    def __init__(self, model: ProbabilityModel, config: ServeConfig) -> None:
        super().__init__(model.predict_waveforms, config)
        self._model = model
        # Asked from other threads, it takes part in the batches of all requests.
        self.shared = _shared(model, self.model)
        self.recognizer = Recognizer(self.shared, threshold=config.threshold)
        self.voices = HeldVoices(self.shared, config, self.metrics)
        # Timelines, explanations, streams: each waits for the model, for most of its time.
        self.pool = ThreadPoolExecutor(
            config.max_timelines + config.max_explanations + config.max_streams,
            thread_name_prefix="tracking",
        )
        self.n_timelines = self.n_explanations = self.n_streams = 0

    def finish_held(self) -> None:
        """Wait for timelines, explanations and streams."""
        self.pool.shutdown()

    async def predict(self, waveform: np.ndarray, voice: Voice | None) -> np.ndarray:
        """Probabilities of one clip of whoever speaks; as `ModelThread.predict`."""
        timeout = self.config.predict_timeout
        if voice is None:
            return await self.model.predict(waveform, timeout)
        call = require_enrolling(self._model).predict_enrolled
        probabilities: np.ndarray = await self.model.answer(call, waveform, voice, timeout=timeout)
        return probabilities

    async def summarise(self, waveform: np.ndarray) -> np.ndarray:
        """What a voice is enrolled by, of one clip; as `ModelThread.predict`."""
        call, timeout = require_enrolling(self._model).summarise, self.config.predict_timeout
        summary: np.ndarray = await self.model.answer(
            call, waveform, timeout=timeout, is_alone=True
        )
        return summary

    def configured(
        self,
        threshold: float | None,
        labels: list[str] | None,
        enrolment: str | None = None,
        enrol_first: float = 0.0,
    ) -> Recognizer:
        """The model with a request's own threshold and labels, for a voice that is held.

        Raises
        ------
        ProblemError
            If the model has no such label or no enrolment, the voice is not held, or the first
            speech is to be heard beside it.
        """
        try:
            if enrolment is not None:
                self.recognizer.require_enrolling()
            voice = None if enrolment is None else self.voices.use(enrolment)
            recognizer = self.recognizer.configured(
                threshold=threshold, labels=labels or None, voice=voice
            )
            if enrol_first:
                require_unheard(recognizer)
            return recognizer
        except KoserError as error:
            raise ProblemError("invalid-request", str(error)) from error

    def describe_model(self) -> ModelAnswer:
        """Labels and limits, for clients."""
        return ModelAnswer(
            labels=list(self.recognizer.labels),
            sampling_rate=SAMPLING_RATE,
            threshold=self.recognizer.threshold,
            is_synthetic=bool(self.recognizer.origin.get("is_synthetic")),
            max_predict_seconds=self.config.max_predict_seconds,
            max_timeline_seconds=self.config.max_timeline_seconds,
            max_explain_seconds=MAX_SECONDS,
            max_upload_bytes=self.config.max_upload_bytes,
            can_enrol=isinstance(self.shared, SharedEnrollingModel),
        )

    @contextmanager
    def timeline_slot(self) -> Iterator[None]:
        """One of the timelines that may be made at once."""
        self._check_capacity(self.n_timelines, self.config.max_timelines, "timelines")
        self.n_timelines += 1
        try:
            yield
        finally:
            self.n_timelines -= 1

    @contextmanager
    def explanation_slot(self) -> Iterator[None]:
        """One of the explanations that may be made at once."""
        self._check_capacity(self.n_explanations, self.config.max_explanations, "explanations")
        self.n_explanations += 1
        try:
            yield
        finally:
            self.n_explanations -= 1

    @contextmanager
    def stream_slot(self) -> Iterator[None]:
        """One of the streams that may be open at once."""
        self._check_capacity(self.n_streams, self.config.max_streams, "streams")
        self.n_streams += 1
        self.metrics.streams.set(self.n_streams)
        try:
            yield
        finally:
            self.n_streams -= 1
            self.metrics.streams.set(self.n_streams)

    def _check_capacity(self, n_held: int, limit: int, what: str) -> None:
        if self.ending.is_set():
            raise ProblemError("not-ready", "This server is about to end. Ask another one.")
        if n_held >= limit:
            raise ProblemError(
                "busy",
                f"{limit} {what} are being handled already. Try again later.",
                {"Retry-After": str(self.config.retry_after)},
            )
