"""What serves a model, whatever it says of a sound: its thread, the decoders, limits, counters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from starlette.requests import Request

from koser.audio.reading import SAMPLING_RATE
from koser.serving.batching import ModelThread, PredictBatch
from koser.serving.decoding import Decoders
from koser.serving.metrics import Metrics
from koser.serving.settings import ServeConfig
from koser.serving.spool import Buffered, Spool
from koser.serving.uploads import expected_bytes, receive


class SoundService:
    """The parts of a server that requests share.

    Parameters
    ----------
    predict : Callable
        Waveforms (16 kHz mono) to a row of numbers for each.
    config : ServeConfig
        The limits.
    """

    def __init__(self, predict: PredictBatch, config: ServeConfig) -> None:
        self.config = config
        self.metrics = Metrics()
        self.model = ModelThread(predict, config, self.metrics)
        self.decoders = Decoders(config, self.metrics)
        self.buffered = Buffered(config, self.metrics)
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
            await asyncio.to_thread(self.finish_held)
            await asyncio.to_thread(self.model.stop)

    def finish_held(self) -> None:
        """Wait for what still asks the model from threads of its own; here nothing does."""

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
