"""Decoders: processes that turn uploads into waveforms, replaced when they crash or hang."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from koser.serving.logs import log_event
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig
from koser.serving.spool import Spool

_logger = logging.getLogger(__name__)
_MESSAGE_BYTES = 4096
_START_TIMEOUT = 60.0  # seconds; an interpreter and NumPy on a busy machine


class DecoderLostError(Exception):
    """The process ended, or was killed, before it answered."""


class _Decoder:
    """One process and the socket to it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel

    @classmethod
    async def start(cls, memory: int) -> _Decoder:
        # Packets keep messages apart; descriptors travel beside them.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            command = (sys.executable, "-P", "-m", "koser.serving.decoder")
            process = await asyncio.create_subprocess_exec(
                *command, str(theirs.fileno()), str(memory), pass_fds=(theirs.fileno(),)
            )
        decoder = cls(process, ours)
        try:
            await decoder._receive(_START_TIMEOUT)
        except DecoderLostError:
            await decoder.stop()
            raise
        return decoder

    async def decode(self, spool: Spool, timeout: float) -> dict[str, object]:
        message = json.dumps({"max_seconds": spool.max_seconds}).encode()
        try:
            socket.send_fds(self._channel, [message], [spool.upload, spool.waveform])
        except OSError as error:
            raise DecoderLostError("it had ended") from error
        return await self._receive(timeout)

    async def _receive(self, timeout: float) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                message = await loop.sock_recv(self._channel, _MESSAGE_BYTES)
        except TimeoutError as error:
            raise DecoderLostError(f"it took more than {timeout:g} s") from error
        except OSError as error:
            raise DecoderLostError("it crashed") from error
        if not message:
            raise DecoderLostError("it crashed")
        answer: dict[str, object] = json.loads(message)
        return answer

    async def stop(self) -> None:
        """End the process, whatever it does."""
        self._channel.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Decoders:
    """A fixed number of decoders, each with one upload at a time.

    Parameters
    ----------
    config : ServeConfig
        Their number and limits.
    metrics : Metrics
        Where their time, and their end, is counted.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._idle: asyncio.Queue[_Decoder | None] = asyncio.Queue()
        self._n_asking = 0

    async def start(self) -> None:
        """Start all of them, and wait until they are up."""
        memory = self._config.decoder_memory
        started = await asyncio.gather(
            *(_Decoder.start(memory) for _ in range(self._config.n_decoders))
        )
        for decoder in started:
            self._idle.put_nowait(decoder)

    async def stop(self) -> None:
        """End all of them; nothing may be decoding any more."""
        while not self._idle.empty():
            decoder = self._idle.get_nowait()
            if decoder is not None:
                await decoder.stop()

    async def decode(self, spool: Spool) -> None:
        """Make the waveform of an upload, 16 kHz mono.

        Parameters
        ----------
        spool : Spool
            The upload, and where its waveform will be.

        Raises
        ------
        ProblemError
            If the sound is refused, or too many uploads wait already.
        """
        if self._n_asking >= self._config.max_decoding + self._config.n_decoders:
            raise ProblemError(
                "busy",
                f"{self._config.max_decoding} uploads wait to be decoded. Try again later.",
                {"Retry-After": str(self._config.retry_after)},
            )
        self._n_asking += 1
        try:
            async with self._borrowed() as decoder:
                with self._metrics.decode_seconds.time():
                    answer = await decoder.decode(spool, self._config.decode_timeout)
        except DecoderLostError as error:
            self._metrics.decoders_lost.inc()
            log_event(_logger, logging.ERROR, "decoder lost", reason=str(error))
            raise ProblemError(
                "audio-unreadable",
                f"The decoder was lost over this upload: {error}. Convert it to a WAV.",
            ) from error
        finally:
            self._n_asking -= 1
        if "n_samples" not in answer:
            raise ProblemError(str(answer["kind"]), str(answer["detail"]))
        spool.set_decoded(int(str(answer["n_samples"])))

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[_Decoder]:
        decoder = await self._idle.get()
        try:
            if decoder is None:  # the last one was lost, and so was its successor
                decoder = await _Decoder.start(self._config.decoder_memory)
            yield decoder
        except BaseException:
            # Also where the client went away: what it sent may still be decoding.
            if decoder is not None:
                await asyncio.shield(decoder.stop())
            decoder = None
            raise
        finally:
            self._idle.put_nowait(decoder)
