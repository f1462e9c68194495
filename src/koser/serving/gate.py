"""What every request passes: its id, the API key, headers, counting, the log, the last resort."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import secrets
import time
from collections.abc import Iterable, MutableMapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from koser.errors import ConfigError
from koser.serving.logs import log_event
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError, problem_response

_logger = logging.getLogger("koser.serving.requests")

# Browsers cannot set headers on a WebSocket; this subprotocol, offered beside `STREAM_PROTOCOL`,
# carries the key in base64url.
STREAM_PROTOCOL = "koser.stream.v1"
KEY_PROTOCOL = "koser.key."
_GUARDED = ("/v1/", "/metrics")
# The page needs nothing from elsewhere, and nobody else may frame it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
}
CLIENT_LEFT = 499  # as nginx logs it; nobody receives it


class Keys:
    """The API keys that are accepted; none means that everybody is.

    Parameters
    ----------
    keys : Iterable[str]
        The keys.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in keys]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a file of one key a line; empty lines and those with ``#`` are comments.

        Raises
        ------
        ConfigError
            If it cannot be read, or holds no key of at least 16 characters.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read the API keys in '{path}': {error}.") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys or min(len(key) for key in keys) < 16 or not all(map(str.isascii, keys)):
            raise ConfigError(
                f"'{path}' must hold one API key a line, each of 16 ASCII characters or more. "
                f"Make one: openssl rand -hex 24 > '{path}'"
            )
        return cls(keys)

    def accept(self, offered: str | None) -> bool:
        """Whether `offered` is one of them; takes as long whichever it resembles."""
        if not self._keys:
            return True
        given = (offered or "").encode("utf-8", "surrogateescape")
        # Every key is compared: the time says nothing of which one came close.
        return bool(sum([hmac.compare_digest(key, given) for key in self._keys]))


class Gate:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app : ASGIApp
        What it protects.
    keys : Keys
        Who may use it.
    metrics : Metrics
        Where requests are counted.
    """

    def __init__(self, app: ASGIApp, keys: Keys, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, one WebSocket, or the application's start and end."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, send)
        try:
            self._check(scope)
            await self._app(scope, receive, request.send)
        except ProblemError as problem:
            self._metrics.problems.labels(problem.kind).inc()
            await request.refuse(problem)
        except ClientDisconnect:
            request.status = CLIENT_LEFT
        except Exception:
            # The last resort: a defect of the server is a 500 with an id that the log has too.
            _logger.exception("defect in request %s", request.id)
            request.status = 500
            await request.refuse(
                ProblemError("internal-error", f"The server failed on request {request.id}.")
            )
        finally:
            request.count(self._metrics)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            _check_origin(headers)
        if scope["path"].startswith(_GUARDED) and not self._keys.accept(_offered_key(headers)):
            raise ProblemError(
                "unauthorized",
                "This server needs an API key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
                {"WWW-Authenticate": "Bearer"},
            )


class _Request:
    """One request on its way through the gate."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.id = secrets.token_hex(8)
        self.status = 0
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()
        self._has_begun = False
        scope.setdefault("state", {})["request_id"] = self.id
        scope["state"]["log"] = {}

    async def send(self, message: Message) -> None:
        """Pass on what the application answers, with the headers that all answers have."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self.id
        elif kind == "websocket.accept":
            self.status = HTTPStatus.SWITCHING_PROTOCOLS
        self._has_begun = True
        await self._send(message)

    async def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, unless an answer has begun already."""
        if self._has_begun:
            if self._scope["type"] == "websocket":
                await self._send({"type": "websocket.close", "code": 1011, "reason": problem.kind})
            return
        self.status = problem.status
        response = problem_response(problem, self.id)
        # On a WebSocket, starlette sends this as the answer to the opening handshake.
        await response(self._scope, _nothing, self.send)

    def count(self, metrics: Metrics) -> None:
        """Write it into the metrics and the log."""
        seconds = time.perf_counter() - self._started
        route = getattr(self._scope.get("route"), "path", "none")
        metrics.requests.labels(route, str(int(self.status))).inc()
        if self._scope["type"] == "http":
            metrics.request_seconds.labels(route).observe(seconds)
        log_event(
            _logger,
            logging.INFO,
            "request",
            request_id=self.id,
            method=self._scope.get("method", "WEBSOCKET"),
            route=route,
            status=int(self.status),
            seconds=round(seconds, 6),
            **self._scope["state"]["log"],
        )


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.disconnect"}


def _offered_key(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if "x-api-key" in headers:
        return headers["x-api-key"]
    for protocol in _protocols(headers):
        if protocol.startswith(KEY_PROTOCOL):
            encoded = protocol.removeprefix(KEY_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
    return None


def _protocols(headers: Headers) -> Sequence[str]:
    return [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]


def _check_origin(headers: Headers) -> None:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise ProblemError(
            "foreign-origin",
            "A page from another origin may not open a stream here; open this server's own page.",
        )
