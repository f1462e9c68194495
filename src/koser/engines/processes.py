"""Worker processes of the local engine, and what each of them does.

On Linux they are forked from a server process that has imported, once, what this one has:
torch and transformers take seconds to import, and here neither every pool nor every worker
pays them, nor holds a copy of them in memory. Elsewhere each worker is a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

# What is dear to import, beside koser's own modules: fork them where they are loaded here.
_PRELOADED = ("torch", "transformers", "sklearn", "ctranslate2", "soundfile", "soxr")
_PRELOADED_WITHIN = ("koser.", "transformers.models.")


def start_pool(n_workers: int, factory: Callable[[], Callable[[Any], Any]]) -> ProcessPoolExecutor:
    """Processes that make one function each, which `apply` and `map_chunk` then call.

    Parameters
    ----------
    n_workers : int
        Processes, started as they are needed.
    factory : Callable
        Makes the function; must be picklable.
    """
    # Never "fork": a child would inherit torch's thread pools in an undefined state. The
    # server has imported torch and never computed, so it has no such threads.
    if sys.platform == "linux":
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_loaded_here())
    else:
        context = multiprocessing.get_context("spawn")
    # The server's environment is that of the moment at which it was started.
    return ProcessPoolExecutor(n_workers, context, _set_up, (factory, dict(os.environ)))


def apply(item: Any) -> Any:
    """What a worker's function makes of one item."""
    return _function(item)


def map_chunk(chunk: list[Any]) -> list[Any]:
    """What a worker's function makes of every item."""
    return [_function(item) for item in chunk]


# The function a worker process applies. A process has one task in its life, and the pool
# gives no other place to keep what its initializer made.
_function: Callable[[Any], Any]


def _loaded_here() -> list[str]:
    return [
        name for name in sys.modules if name in _PRELOADED or name.startswith(_PRELOADED_WITHIN)
    ]


def _set_up(factory: Callable[[], Callable[[Any], Any]], environment: dict[str, str]) -> None:
    global _function
    # Ctrl-C reaches the whole process group; only the parent should speak of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = factory()


def _end_with_parent() -> None:
    """End a worker whose parent was killed: it would wait for the next task for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
