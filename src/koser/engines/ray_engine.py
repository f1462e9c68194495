"""The Ray engine: chunks of rows through Ray Data, to actors that hold the work.

What crosses the cluster is pickled, as everything is that Ray moves: whoever reaches a
cluster runs code on it, so it belongs into a private network.
"""

from __future__ import annotations

import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from koser.engines.cluster import Resources, worker_count
from koser.engines.engine import Work
from koser.engines.isolation import Isolation
from koser.engines.local import ChunkFunction
from koser.errors import EngineError

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")

# What a wave of work may take of the driver's memory: chunks are read from an iterable, and
# Ray Data starts from what is in its object store. Workers are started anew for each wave.
_WAVE_TASKS = 4096
_WAVE_BYTES = 16 * 2**20
# Times that a task is given to another worker before its chunks are looked at singly.
_RETRIES = 2


@dataclass(frozen=True)
class RayEngine:
    """The engine of a connected cluster; see `koser.engines.engine.Engine`.

    Attributes
    ----------
    n_workers : int or None
        Actors; as many as the cluster has room for by default.
    resources : Resources
        Of each.
    batch_rows : int
        Rows that are sent to an actor at once, in whole chunks: what a death repeats.
    """

    n_workers: int | None = None
    resources: Resources = field(default_factory=Resources)
    batch_rows: int = 128

    @property
    def device(self) -> str:
        """Where the actors compute."""
        return "cuda" if self.resources.gpus else "cpu"

    @property
    def n_threads(self) -> int:
        """The cores that an actor takes."""
        return max(1, int(self.resources.cpus))

    def call(self, function: Callable[[], ResultT]) -> ResultT:
        """What a function returns on a worker."""
        import ray

        worker_count(1, self.resources)
        remote: Any = ray.remote(**self._resources())(_call)
        answer: ResultT = _unpacked(ray.get(remote.remote(pickle.dumps(function))))
        return answer

    def map_chunks(
        self,
        factory: Callable[[], Work[RowT, ResultT]],
        chunks: Iterable[Sequence[RowT]],
        *,
        lost: Callable[[RowT], ResultT],
        here: bool = False,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of every chunk, in order; see `Engine.map_chunks`."""
        import ray

        n_workers = worker_count(self.n_workers, self.resources)
        # Kept by the driver, for actors that are started later.
        payload = ray.put(pickle.dumps(partial(ChunkFunction, factory)))
        cell = _Cell(payload, self._resources())
        isolation = Isolation(cell.attempt, lost)
        try:
            for wave in _iter_waves(chunks, self.batch_rows):
                yield from self._iter_wave(wave, payload, n_workers, isolation)
        finally:
            cell.close()

    def _iter_wave(
        self,
        wave: list[list[bytes]],
        payload: Any,  # an ObjectRef
        n_workers: int,
        isolation: Isolation[RowT, ResultT],
    ) -> Iterator[list[ResultT]]:
        """Results of tasks; one that is missing among them killed its workers."""
        tasks = [{"number": number, "chunks": task} for number, task in enumerate(wave)]
        expected = 0

        def redo(until: int) -> Iterator[list[ResultT]]:
            for task in wave[expected:until]:
                for chunk in task:
                    yield isolation.finish(pickle.loads(chunk))

        for row in self._dataset(tasks, payload, n_workers).iter_rows():
            yield from redo(row["number"])
            expected = row["number"] + 1
            yield from _unpacked(row["results"])
        yield from redo(len(wave))

    def _dataset(self, tasks: list[dict[str, Any]], payload: Any, n_workers: int) -> Any:
        import ray.data

        _configure(ray.data.DataContext.get_current())
        with warnings.catch_warnings():
            # Retries have no other name until the Ray that ends this one, which is excluded.
            warnings.filterwarnings("ignore", ".*ray_remote_args", DeprecationWarning)
            return ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
                _Actor,
                fn_constructor_args=([payload],),  # in a list: Ray would put its value in its place
                batch_size=1,
                concurrency=min(n_workers, len(tasks)),
                ray_remote_args_fn=_retrying,
                **self._resources(),
            )

    def _resources(self) -> dict[str, float]:
        taken = {"num_cpus": self.resources.cpus}
        return {**taken, "num_gpus": self.resources.gpus} if self.resources.gpus else taken


def _iter_waves(chunks: Iterable[Sequence[Any]], batch_rows: int) -> Iterator[list[list[bytes]]]:
    """Pickled chunks by task, as many tasks at once as may be in the object store."""
    wave: list[list[bytes]] = []
    n_bytes = n_rows = 0
    for chunk in chunks:
        pickled = pickle.dumps(chunk, protocol=5)
        if n_rows == 0 or n_rows >= batch_rows:
            if n_bytes >= _WAVE_BYTES or len(wave) >= _WAVE_TASKS:
                yield wave
                wave, n_bytes = [], 0
            wave.append([])
            n_rows = 0
        wave[-1].append(pickled)
        n_rows += max(len(chunk), 1)
        n_bytes += len(pickled)
    if wave:
        yield wave


class _Actor:
    """What Ray Data runs: the work on every chunk of a task."""

    def __init__(self, payload: list[Any]) -> None:
        (self._payload,) = payload
        self._function: ChunkFunction | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {
            "number": batch["number"],
            "results": [_packed(partial(self._apply, task)) for task in batch["chunks"]],
        }

    def _apply(self, task: Sequence[bytes]) -> list[Any]:
        if self._function is None:
            self._function = _load(self._payload)
        return [self._function(pickle.loads(chunk)) for chunk in task]


class _Cell:
    """One actor by itself, started when it is needed."""

    def __init__(self, payload: Any, resources: dict[str, float]) -> None:
        self._payload = payload
        self._resources = resources
        self._actor: Any = None

    def attempt(self, rows: Sequence[Any]) -> list[Any] | None:
        """The rows' results; None if the actor dies."""
        import ray

        if self._actor is None:
            remote: Any = ray.remote(max_restarts=0, **self._resources)(_Alone)
            self._actor = remote.remote([self._payload])
        try:
            result: list[Any] = _unpacked(ray.get(self._actor.apply.remote(pickle.dumps(rows))))
        except ray.exceptions.RayActorError:
            self.close()
            return None
        return result

    def close(self) -> None:
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = None


class _Alone:
    """The actor of a cell."""

    def __init__(self, payload: list[Any]) -> None:
        self._function: ChunkFunction = _load(payload[0])

    def apply(self, rows: bytes) -> bytes:
        return _packed(lambda: self._function(pickle.loads(rows)))


def _configure(context: Any) -> None:
    """Order as the rows', silence, and tasks that kill their workers left out, not fatal."""
    context.execution_options.preserve_order = True
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # koser says itself what it does about a worker that died.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _retrying() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


def _load(payload: Any) -> ChunkFunction:
    import ray

    function: ChunkFunction = pickle.loads(ray.get(payload))()
    return function


def _call(function: bytes) -> bytes:
    return _packed(lambda: pickle.loads(function)())


def _packed(function: Callable[[], Any]) -> bytes:
    """What a function returns or raises; Ray would turn an exception into one of its own."""
    outcome: tuple[Any, Exception | None]
    try:
        outcome = (function(), None)
    except Exception as error:
        # For --debug: what is raised anew by the driver has its own traceback.
        error.add_note("".join(traceback.format_exception(error)))
        outcome = (None, error)
    try:
        return pickle.dumps(outcome, protocol=5)
    except Exception as error:
        if outcome[1] is None:
            raise
        text = f"{type(outcome[1]).__name__}: {outcome[1]} (it cannot be pickled: {error})"
        return pickle.dumps((None, EngineError(text)))


def _unpacked(outcome: bytes) -> Any:
    value, error = pickle.loads(outcome)
    if error is not None:
        raise error
    return value
