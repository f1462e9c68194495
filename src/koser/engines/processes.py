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
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

# Seconds after which Ctrl-C is heard at the latest.
_PATIENCE = 0.5
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
        _start_server(context)
    else:
        context = multiprocessing.get_context("spawn")
    # The server's environment is that of the moment at which it was started.
    return ProcessPoolExecutor(n_workers, context, _set_up, (factory, dict(os.environ)))


@contextmanager
def running_pool(
    n_workers: int, factory: Callable[[], Callable[[Any], Any]]
) -> Iterator[ProcessPoolExecutor]:
    """The processes of `start_pool` for a block.

    Any exception that leaves it ends them in the midst of their tasks, which may have hours to
    go: Ctrl-C, the error of another task, a consumer that wants no more results.
    """
    pool = start_pool(n_workers, factory)
    try:
        yield pool
    except BaseException:
        kill_pool(pool)
        raise
    pool.shutdown()


def result_of(future: Future[ResultT]) -> ResultT:
    """What a task came to, waiting for it as long as it takes, or until Ctrl-C."""
    # Not in one go: polars lets the system resume waits that a signal has interrupted, and
    # Python learns of the signal when they end.
    while not future.done():
        wait_for([future], timeout=_PATIENCE)
    return future.result()


def kill_pool(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool whatever they do, and wait until they are gone."""
    # A pool can do this itself only from Python 3.14 on.
    processes = list((pool._processes or {}).values())
    # Any: typeshed takes the one for another class, and leaves out the writer of the other.
    manager: Any = pool._executor_manager_thread
    results: Any = pool._result_queue
    # Before they die: what is cancelled by then cannot be mistaken for what they had in hand.
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    # A process may have died half way through a result, for the rest of which the pool would
    # wait for ever while anybody, this process included, could still write it.
    results._writer.close()
    if manager is not None:
        manager.join()
    else:  # interrupted before all had been started
        for process in processes:
            process.join()


def apply(item: Any) -> Any:
    """What a worker's function makes of one item."""
    return _function(item)


def map_chunk(chunk: list[Any]) -> list[Any]:
    """What a worker's function makes of every item."""
    return [_function(item) for item in chunk]


# The function a worker process applies. A process has one task in its life, and the pool
# gives no other place to keep what its initializer made.
_function: Callable[[Any], Any]


def _start_server(context: Any) -> None:
    """Start the process that forks workers, if there is none, and wait until it can.

    It is deaf to Ctrl-C, and so are workers that are just starting: only this process should
    speak of it.
    """
    resource_tracker.ensure_running()  # first: starting it unblocks the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Interrupted while it waits for the server, a pool would leave it a worker to start, which
    # would complain that its queues are gone. This one needs nothing.
    context.Process(target=int, daemon=True).start()


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
