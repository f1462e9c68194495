"""The local engine: a function over items, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from koser.errors import RunError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

# Chunks in flight per worker: enough that none waits, few enough that a slow consumer
# holds only these results in memory.
_CHUNKS_PER_WORKER = 3


def available_cores() -> int:
    """Cores this process may use, which a container can set below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def iter_map(
    factory: Callable[[], Callable[[ItemT], ResultT]],
    items: Iterable[ItemT],
    *,
    n_workers: int = 1,
    chunk_size: int = 1,
) -> Iterator[ResultT]:
    """Yield ``factory()(item)`` for every item, in the items' order.

    Parameters
    ----------
    factory : Callable
        Makes the function that is applied. Called once in every process, so that what
        is dear to set up (an opened store, a loaded model) is set up once. With more
        than one worker it must be picklable: a class, or a `functools.partial` of one.
    items : Iterable
        Read as needed, never held as a whole.
    n_workers : int
        Processes. With 1, everything runs in this one.
    chunk_size : int
        Items sent to a process at once.

    Raises
    ------
    RunError
        If a worker process dies, which a decoder's crash or a lack of memory does.
    """
    if n_workers <= 1:
        yield from map(factory(), items)
        return
    # "spawn": a forked child would inherit torch's thread pools in an undefined state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context, _set_up_worker, (factory,)) as pool:
        pending: deque[Future[list[ResultT]]] = deque()
        iterator = iter(items)
        try:
            while True:
                while len(pending) < n_workers * _CHUNKS_PER_WORKER:
                    chunk = list(islice(iterator, chunk_size))
                    if not chunk:
                        break
                    pending.append(pool.submit(_map_chunk, chunk))
                if not pending:
                    return
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise RunError(
                "A worker process died: out of memory, or a crash inside a library. "
                "What was done is kept. Run the same command again, with --workers 1 if it repeats."
            ) from error
        finally:
            for future in pending:
                future.cancel()


def iter_ahead(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, n_threads: int = 1
) -> Iterator[ResultT]:
    """Yield ``function(item)`` for every item, in order, computed ahead in threads.

    For functions that wait or release Python's lock, such as reading and decoding.
    At most `n_threads` + 1 results are ahead of the consumer.
    """
    with ThreadPoolExecutor(n_threads) as pool:
        pending: deque[Future[ResultT]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


# The function a worker process applies. A process has one task in its life, and the pool
# gives no other place to keep what its initializer made.
_worker_function: Callable[[Any], Any]


def _set_up_worker(factory: Callable[[], Callable[[ItemT], ResultT]]) -> None:
    global _worker_function
    # Ctrl-C reaches the whole process group; only the parent should speak of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker_function = factory()


def _map_chunk(chunk: Sequence[ItemT]) -> list[Any]:
    return [_worker_function(item) for item in chunk]
