"""Waiting for what a thread computes: within a time limit, and only while somebody wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from koser.serving.problems import ProblemError

_T = TypeVar("_T")


class _StoppedError(Exception):
    """Nobody waits for this any more."""


async def computed(
    request: Request,
    compute: Callable[[Callable[[], None]], _T],
    *,
    pool: Executor,
    timeout: float,
    name: str,
) -> _T:
    """What `compute` returns, computed in another thread.

    Parameters
    ----------
    request : Request
        Who asked; its body has been read.
    compute : Callable
        Called with a function that it has to call now and then: it raises where nobody waits.
    pool : Executor
        Whose thread computes.
    timeout : float
        Seconds.
    name : str
        What it is, for the detail of a problem.

    Raises
    ------
    ProblemError
        If it takes longer.
    ClientDisconnect
        If the client has left. In every case `compute` has ended.
    """
    is_stopped = threading.Event()

    def check() -> None:
        if is_stopped.is_set():
            raise _StoppedError

    work = asyncio.get_running_loop().run_in_executor(pool, compute, check)
    leaving = asyncio.ensure_future(_left(request))
    both: set[asyncio.Future[Any]] = {work, leaving}
    try:
        await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        if leaving.done():
            raise ClientDisconnect
        raise ProblemError("model-timeout", f"The {name} took longer than {timeout:g} s.")
    finally:
        is_stopped.set()
        leaving.cancel()
        # What it works on may only be let go when the thread no longer reads it.
        await asyncio.wait([work])
        work.exception()  # looked at: it is no defect that the log should tell of


async def _left(request: Request) -> None:
    """Return when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
