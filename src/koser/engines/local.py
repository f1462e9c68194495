"""The local engine: a function over items, in this process or in several."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from koser.engines.engine import Work
from koser.engines.isolation import Isolation
from koser.engines.processes import (
    apply,
    kill_pool,
    map_chunk,
    result_of,
    running_pool,
    start_pool,
)
from koser.errors import RunError

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT")
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
    with running_pool(n_workers, factory) as pool:
        pending: deque[Future[list[ResultT]]] = deque()
        iterator = iter(items)
        try:
            while True:
                while len(pending) < n_workers * _CHUNKS_PER_WORKER:
                    chunk = list(islice(iterator, chunk_size))
                    if not chunk:
                        break
                    pending.append(pool.submit(map_chunk, chunk))
                if not pending:
                    return
                yield from result_of(pending.popleft())
        except BrokenProcessPool as error:
            raise RunError(
                "A worker process died: out of memory, or a crash inside a library. "
                "What was done is kept. Run the same command again (koser train with --resume), "
                "with --workers 1 if it repeats."
            ) from error


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


@dataclass(frozen=True)
class LocalEngine:
    """The engine of this machine; see `koser.engines.engine.Engine`.

    Attributes
    ----------
    n_workers : int
        Processes; or, where one process does it all, threads that read ahead for it.
    """

    n_workers: int = 1

    @property
    def device(self) -> None:
        """What this machine has."""
        return None

    @property
    def n_threads(self) -> int:
        """As many as there are cores, for what computes in this process."""
        return 0

    def call(self, function: Callable[[], ResultT]) -> ResultT:
        """What a function returns in this process."""
        return function()

    def map_chunks(
        self,
        factory: Callable[[], Work[RowT, ResultT]],
        chunks: Iterable[Sequence[RowT]],
        *,
        lost: Callable[[RowT], ResultT],
        here: bool = False,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of every chunk, in order; see `Engine.map_chunks`."""
        if here or self.n_workers <= 1:
            work = factory()
            yield from map(work.finish, iter_ahead(work.read, chunks, n_threads=self.n_workers))
            return
        cell: _Cell[RowT, ResultT] = _Cell(partial(ChunkFunction, factory))
        isolation = Isolation(cell.attempt, lost)
        remaining = iter(chunks)
        try:
            while True:
                sent: deque[_Sent[RowT, ResultT]] = deque()
                yield from _iter_until_broken(cell.factory, remaining, self.n_workers, sent)
                if not sent:
                    return
                for each in sent:
                    yield isolation.finish(each.chunk) if each.result is None else each.result
        finally:
            cell.close()


SERIAL = LocalEngine()


class ChunkFunction:
    """Both steps of a work as one function, made when it is first called.

    What making it raises then takes the way of every other exception.
    """

    def __init__(self, factory: Callable[[], Work[Any, Any]]) -> None:
        self._factory = factory
        self._work: Work[Any, Any] | None = None

    def __call__(self, rows: Sequence[Any]) -> list[Any]:
        """The results of rows."""
        if self._work is None:
            self._work = self._factory()
        return self._work.finish(self._work.read(rows))


@dataclass
class _Sent(Generic[RowT, ResultT]):
    """A chunk that a pool has been given."""

    chunk: Sequence[RowT]
    future: Future[list[ResultT]] | None = field(default=None, repr=False)

    @property
    def result(self) -> list[ResultT] | None:
        """What became of it before the pool broke; None for nothing."""
        future = self.future
        if future is None or not future.done() or future.cancelled() or future.exception():
            return None
        return future.result()


def _iter_until_broken(
    factory: Callable[[], ChunkFunction],
    chunks: Iterator[Sequence[RowT]],
    n_workers: int,
    sent: deque[_Sent[RowT, ResultT]],
) -> Iterator[list[ResultT]]:
    """Yield results until `chunks` end or a process dies; then what is open is in `sent`."""
    with running_pool(n_workers, factory) as pool:
        try:
            while True:
                for chunk in islice(chunks, n_workers * _CHUNKS_PER_WORKER - len(sent)):
                    # Noted before it is sent, which fails where the pool is broken by now.
                    sent.append(_Sent(chunk))
                    sent[-1].future = pool.submit(apply, chunk)
                if not sent:
                    return
                future = sent[0].future
                result = result_of(future) if future is not None else []
                sent.popleft()
                yield result
        except BrokenProcessPool:
            return


class _Cell(Generic[RowT, ResultT]):
    """One process by itself, started when it is needed."""

    def __init__(self, factory: Callable[[], ChunkFunction]) -> None:
        self.factory = factory
        self._pool: ProcessPoolExecutor | None = None

    def attempt(self, rows: Sequence[RowT]) -> list[ResultT] | None:
        """The rows' results; None if the process dies."""
        if self._pool is None:
            self._pool = start_pool(1, self.factory)
        try:
            result: list[ResultT] = result_of(self._pool.submit(apply, rows))
        except BrokenProcessPool:
            self.close()
            return None
        except BaseException:
            kill_pool(self._pool)
            self._pool = None
            raise
        return result

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None
