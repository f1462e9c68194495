"""The process around the application: sockets, signals, a graceful end."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn

from koser.errors import ConfigError
from koser.serving.app import create_app
from koser.serving.gate import Keys
from koser.serving.logs import log_event
from koser.serving.service import Service
from koser.serving.sound_service import SoundService
from koser.serving.values import ValueService

_logger = logging.getLogger(__name__)


class GracefulServer(uvicorn.Server):
    """A server that first says it will end, then finishes what it holds, then ends with 0.

    Parameters
    ----------
    config : uvicorn.Config
        Of the sockets.
    service : SoundService
        What is served.
    """

    def __init__(self, config: uvicorn.Config, service: SoundService) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Open the sockets, and remember the loop that signals are handed to."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal; a second one ends the drain, a third everything."""
        if self._loop is not None and not self._service.ending.is_set():
            self._loop.call_soon_threadsafe(self._begin_end, sig)
            return
        self.force_exit = self.should_exit
        self.should_exit = True

    def _begin_end(self, sig: int) -> None:
        log_event(_logger, logging.INFO, "ending", signal=sig)
        self._service.begin_end()
        asyncio.get_running_loop().call_later(self._service.config.drain_seconds, self._end)

    def _end(self) -> None:
        self.should_exit = True


def open_socket(host: str, port: int) -> socket.socket:
    """Listen, before anything is loaded.

    Parameters
    ----------
    host, port : str, int
        Where; port 0 for any that is free.

    Raises
    ------
    ConfigError
        If that is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}. "
            f"Choose another with --port or --host."
        ) from error
    return listening


def new_server(service: Service | ValueService, keys: Keys | None) -> GracefulServer:
    """A server that is not running yet; `run` it with the sockets it is to use.

    Parameters
    ----------
    service : Service or ValueService
        What is served.
    keys : Keys or None
        Who may use it; None for everybody.
    """
    config = uvicorn.Config(
        create_app(service, keys),
        log_config=None,  # the process's own: see `koser.serving.logs`
        access_log=False,  # the gate writes one, without addresses and query strings
        server_header=False,
        proxy_headers=False,
        ws_max_size=service.config.max_message_bytes,
        ws_per_message_deflate=False,  # sound does not shrink, and a bomb would
        timeout_graceful_shutdown=service.config.shutdown_timeout,
    )
    return GracefulServer(config, service)
