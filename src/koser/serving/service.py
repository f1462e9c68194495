"""The parts of a server that requests share: the model, the decoders, limits and counters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import numpy as np
from starlette.requests import Request

from koser.audio.reading import SAMPLING_RATE
from koser.errors import KoserError
from koser.features.voices import SpeakerPrior, Voice
from koser.inference.models import EnrollingModel, ProbabilityModel
from koser.inference.recognizer import Recognizer
from koser.serving.answers import ModelAnswer
from koser.serving.batching import ModelThread
from koser.serving.decoding import Decoders
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig
from koser.serving.spool import Buffered, Spool
from koser.serving.uploads import expected_bytes, receive
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


class SharedEnrollingModel(SharedModel):
    """A model that adapts to voices, as `SharedModel`."""

    def __init__(self, model: ProbabilityModel, thread: ModelThread, prior: SpeakerPrior) -> None:
        super().__init__(model, thread)
        self.prior = prior

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `SpeakerPrior.hear` takes of waveforms, one for each."""
        return self._thread.summarise_waveforms(waveforms)

    def predict_enrolled(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None]
    ) -> np.ndarray:
        """Calibrated probabilities, each waveform of its voice [shape=(n_waveforms, n_labels)]."""
        return self._thread.predict_waveforms(waveforms, voices)


class Service:
    """What serves one model.

    Parameters
    ----------
    model : ProbabilityModel
        The model.
    config : ServeConfig
        The limits.
    """

    def __init__(self, model: ProbabilityModel, config: ServeConfig) -> None:
        self.config = config
        self.metrics = Metrics()
        enrolling = model if isinstance(model, EnrollingModel) else None
        self.model = ModelThread(model.predict_waveforms, config, self.metrics, enrolling)
        # Asked from other threads, it takes part in the batches of all requests.
        self.shared = (
            SharedModel(model, self.model)
            if enrolling is None
            else SharedEnrollingModel(model, self.model, enrolling.prior)
        )
        self.recognizer = Recognizer(self.shared, threshold=config.threshold)
        self.voices = HeldVoices(self.shared, config, self.metrics)
        self.decoders = Decoders(config, self.metrics)
        self.buffered = Buffered(config, self.metrics)
        # Timelines and streams: each waits for the model, for most of its time.
        self.pool = ThreadPoolExecutor(
            config.max_timelines + config.max_streams, thread_name_prefix="tracking"
        )
        self.n_timelines = self.n_streams = 0
        self.is_ready = False
        self.ending = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have everything up within the block; what is held at its end is finished first."""
        self.model.start()
        try:
            await self.decoders.start()
            # The first call of a model is its slowest, and one that cannot compute ends here.
            quiet = np.random.default_rng(0).normal(scale=0.01, size=2 * SAMPLING_RATE)
            await asyncio.to_thread(self.model.predict_waveforms, [quiet.astype(np.float32)])
            self.is_ready = True
            yield
        finally:
            self.is_ready = False
            await self.decoders.stop()
            await asyncio.to_thread(self.pool.shutdown)
            await asyncio.to_thread(self.model.stop)

    def begin_end(self) -> None:
        """Say to the outside that this server will end: streams finish, /readyz refuses."""
        self.ending.set()

    @asynccontextmanager
    async def received(self, request: Request, max_seconds: float) -> AsyncIterator[Spool]:
        """The sound of a request, received and decoded.

        Raises
        ------
        ProblemError
            If any limit says no, or it is no sound.
        """
        spool = Spool(
            self.buffered,
            max_bytes=self.config.max_upload_bytes,
            expected_bytes=expected_bytes(request, self.config),
            max_seconds=max_seconds,
        )
        with spool:
            await receive(request, self.config, spool)
            await self.decoders.decode(spool)
            request.state.log.update(bytes=spool.n_bytes, audio_seconds=round(spool.duration, 3))
            yield spool

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
            If the model has no such label or no enrolment, or the voice is not held.
        """
        try:
            if enrolment is not None or enrol_first:
                self.recognizer.require_enrolling()
            voice = None if enrolment is None else self.voices.use(enrolment)
            return self.recognizer.configured(
                threshold=threshold, labels=labels or None, voice=voice
            )
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
