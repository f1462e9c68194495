"""One WebSocket: 16-bit PCM in, results out while it is spoken.

From the client: binary messages, each any number of bytes of mono 16-bit little-endian PCM, and
at the end the text ``{"type": "end"}``. From the server, JSON texts: ``ready`` once, ``partial``
and ``final`` results, ``enrolled`` where the first speech has become known as a voice, then
``end``, or ``problem`` with the members of RFC 9457.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from koser.inference.recognizer import Recognizer
from koser.inference.stream import EmotionStream, StreamResult
from koser.serving.gate import STREAM_PROTOCOL
from koser.serving.problems import KINDS, ProblemError
from koser.serving.settings import ServeConfig

# RFC 6455, section 7.4.1.
_NORMAL, _GOING_AWAY, _NOT_ACCEPTABLE, _POLICY = 1000, 1001, 1003, 1008


@dataclass(frozen=True)
class _EndError(Exception):
    """Why the stream ends: the code that closes it, and a problem if it is one."""

    code: int
    problem: ProblemError | None = None


class StreamSession:
    """One stream from its acceptance to its end.

    Parameters
    ----------
    socket : WebSocket
        Not accepted yet.
    recognizer : Recognizer
        The model.
    stream : EmotionStream
        Of the recognizer, at the rate at which the client sends.
    config : ServeConfig
        The limits.
    pool : Executor
        Whose threads compute.
    """

    def __init__(
        self,
        socket: WebSocket,
        recognizer: Recognizer,
        stream: EmotionStream,
        config: ServeConfig,
        pool: Executor,
    ) -> None:
        self._socket = socket
        self._recognizer = recognizer
        self._config = config
        self._pool = pool
        self._stream = stream
        self._is_enrolled = stream.enrolled_from is not None
        self._odd_byte = b""

    @property
    def duration(self) -> float:
        """Seconds of sound that came."""
        return self._stream.duration

    async def run(self, ending: asyncio.Event) -> None:
        """Serve until the client ends or leaves, a limit is reached, or `ending` is set."""
        offered = self._socket.scope.get("subprotocols", [])
        await self._socket.accept(STREAM_PROTOCOL if STREAM_PROTOCOL in offered else None)
        await self._send(
            "ready",
            labels=list(self._recognizer.labels),
            threshold=self._recognizer.threshold,
            sampling_rate=self._stream.sampling_rate,
        )
        end = asyncio.ensure_future(ending.wait())
        try:
            while True:
                await self._take(await self._next_message(end))
        except WebSocketDisconnect:
            return
        except _EndError as reason:
            await self._finish(reason)
        finally:
            end.cancel()

    async def _next_message(self, end: asyncio.Future[Any]) -> dict[str, Any]:
        message = asyncio.ensure_future(self._socket.receive())
        timeout = self._config.stream_idle_timeout
        try:
            await asyncio.wait({message, end}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not message.done():
                message.cancel()
        if message.done() and not message.cancelled():
            received: dict[str, Any] = dict(message.result())
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", _NORMAL))
            return received
        if end.done():
            raise _EndError(
                _GOING_AWAY, ProblemError("not-ready", "This server ends. Open another stream.")
            )
        raise _EndError(_POLICY, ProblemError("stream-idle", f"Nothing came for {timeout:g} s."))

    async def _take(self, message: dict[str, Any]) -> None:
        content = message.get("bytes")
        if content is None:
            raise _read_text(message.get("text") or "")
        content = self._odd_byte + content
        n_whole = len(content) // 2 * 2
        self._odd_byte = content[n_whole:]
        samples = np.frombuffer(content[:n_whole], "<i2").astype(np.float32) / 32768
        limit = self._config.max_stream_seconds
        if self._stream.duration + len(samples) / self._stream.sampling_rate > limit:
            detail = f"A stream takes {limit:g} s of sound. Open another one."
            raise _EndError(_POLICY, ProblemError("audio-too-long", detail))
        loop = asyncio.get_running_loop()
        await self._send_results(await loop.run_in_executor(self._pool, self._stream.feed, samples))

    async def _finish(self, reason: _EndError) -> None:
        loop = asyncio.get_running_loop()
        await self._send_results(await loop.run_in_executor(self._pool, self._stream.finish))
        if reason.problem is None:
            await self._send("end", duration=self._stream.duration)
        else:
            kind = KINDS[reason.problem.kind]
            await self._send(
                "problem",
                problem={
                    "type": f"/problems/{reason.problem.kind}",
                    "title": kind.title,
                    "status": kind.status,
                    "detail": reason.problem.detail,
                    "request_id": self._socket.state.request_id,
                },
            )
        await self._socket.close(reason.code)

    async def _send_results(self, results: list[StreamResult]) -> None:
        """Send results, and `enrolled` once the voice has become known meanwhile."""
        for result in results:
            values = result.segment.to_dict()
            await self._send("final" if result.is_final else "partial", segment=values)
        if self._stream.enrolled_from is not None and not self._is_enrolled:
            self._is_enrolled = True
            await self._send("enrolled", enrolled_from=self._stream.enrolled_from)

    async def _send(self, kind: str, **values: object) -> None:
        await self._socket.send_text(json.dumps({"type": kind, **values}, ensure_ascii=False))


def _read_text(text: str) -> _EndError:
    """What a text message means: always an end, a good one or a bad one."""
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if isinstance(message, dict) and message.get("type") == "end":
        return _EndError(_NORMAL)
    detail = 'The only text a stream takes is {"type": "end"}; sound comes in binary messages.'
    return _EndError(_NOT_ACCEPTABLE, ProblemError("bad-message", detail))
