"""Receiving sound: a raw body or a form, streamed into a spool within limits.

What a client says of a file (its name, its media type) is never used: what the bytes are shows
when they are decoded.
"""

from __future__ import annotations

import asyncio
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig
from koser.serving.spool import Spool, too_large

FIELD = "file"  # of a form: the one with the sound
_RAW_TYPES = frozenset({"application/octet-stream", "application/ogg", "video/mp4", "video/webm"})

# What may be refused of any operation that takes sound.
UPLOAD_PROBLEMS = (
    "bad-request",
    "unauthorized",
    "upload-timeout",
    "upload-too-large",
    "audio-too-long",
    "unsupported-media-type",
    "audio-unreadable",
    "invalid-request",
    "busy",
    "model-timeout",
)

_BYTES = {"type": "string", "format": "binary"}
# For OpenAPI: the body of every operation that takes sound.
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a sound file: WAV, FLAC, Ogg, MP3 and more.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FIELD: _BYTES},
                    "required": [FIELD],
                    "additionalProperties": False,
                }
            },
            "audio/*": {"schema": _BYTES},
            "application/octet-stream": {"schema": _BYTES},
        },
    }
}


async def receive(request: Request, config: ServeConfig, spool: Spool) -> None:
    """Write the sound of a request into `spool`.

    Raises
    ------
    ProblemError
        If it is too large, too slow, empty, of a media type that is no sound, or a form
        without exactly one file.
    """
    writer = _writer_for(request, spool)
    try:
        async with asyncio.timeout(config.upload_timeout):
            async for chunk in request.stream():
                if chunk:
                    writer.write(chunk)
    except TimeoutError as error:
        raise ProblemError(
            "upload-timeout",
            f"The body did not arrive within {config.upload_timeout:g} s.",
            {"Connection": "close"},
        ) from error
    writer.finish()


def expected_bytes(request: Request, config: ServeConfig) -> int | None:
    """What the request says of its body's size, refused at once where that is too much."""
    length = request.headers.get("content-length")
    if length is None:
        return None
    # The HTTP parser has already refused what is no number.
    n_bytes = int(length)
    if n_bytes > config.max_upload_bytes:
        raise too_large(config.max_upload_bytes)
    return n_bytes


def _writer_for(request: Request, spool: Spool) -> _RawBody | _Form:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ProblemError(
            "unsupported-media-type",
            f"Content-Encoding '{encoding[:40]}' is not taken: send the file as it is.",
        )
    header = request.headers.get("content-type", "application/octet-stream")
    kind, options = parse_options_header(header)
    media_type = kind.decode("latin-1").lower()
    if media_type == "multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise ProblemError("bad-request", "The Content-Type of the form names no boundary.")
        return _Form(boundary, spool)
    if media_type.startswith("audio/") or media_type in _RAW_TYPES:
        return _RawBody(spool)
    raise ProblemError(
        "unsupported-media-type",
        f"Content-Type '{media_type[:80]}' is no sound. Send audio/*, application/octet-stream or "
        f"a form with a field '{FIELD}'; with curl: -F {FIELD}=@call.wav",
    )


class _RawBody:
    """The body is the file."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def write(self, chunk: bytes) -> None:
        self._spool.write(chunk)

    def finish(self) -> None:
        if not self._spool.n_bytes:
            raise ProblemError(
                "audio-unreadable", "The body is empty. Send the bytes of a sound file."
            )


class _Form:
    """The body is multipart/form-data with one field, which is the file."""

    def __init__(self, boundary: bytes, spool: Spool) -> None:
        self._spool = spool
        self._n_files = 0
        self._is_complete = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise ProblemError("bad-request", f"The form is malformed: {error}.") from error

    def finish(self) -> None:
        if not self._is_complete:
            raise ProblemError("bad-request", "The form ends before its last boundary.")
        if self._n_files != 1:
            raise ProblemError("invalid-request", f"The form has no field '{FIELD}'.")
        if not self._spool.n_bytes:
            raise ProblemError("audio-unreadable", f"The field '{FIELD}' is empty.")

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != FIELD:
            raise ProblemError(
                "invalid-request",
                f"The form has a field '{name[:40]}'. It takes one file, in the field '{FIELD}'; "
                f"options go into the query.",
            )
        self._n_files += 1
        if self._n_files > 1:
            raise ProblemError(
                "invalid-request", "The form has several files. Send one in each request."
            )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._spool.write(data[start:end])

    def _on_end(self) -> None:
        self._is_complete = True
