"""Where work runs: one interface, whether in this process, in others or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

RowT = TypeVar("RowT")
GivenT = TypeVar("GivenT", contravariant=True)
ResultT = TypeVar("ResultT")


class Work(Protocol[GivenT, ResultT]):
    """What is done to rows, in two steps, so that files are read while others are computed.

    A row that cannot be worked on gets a result that says so; an exception ends everything.
    """

    def read(self, rows: Sequence[GivenT]) -> Any:  # whatever `finish` takes
        """Fetch what the rows need. Called in a thread, and ahead, where that helps."""
        ...

    def finish(self, read: Any) -> list[ResultT]:  # what `read` returned
        """One result per row, in order."""
        ...


class Engine(Protocol):
    """Maps work over rows; the results depend on neither the engine nor its workers."""

    @property
    def device(self) -> str | None:
        """Where its workers compute, ``"cpu"`` or ``"cuda"``; None for what this machine has."""
        ...

    @property
    def n_threads(self) -> int:
        """Threads that one worker may compute with; 0 for as many as there are cores."""
        ...

    def call(self, function: Callable[[], ResultT]) -> ResultT:
        """What a picklable function returns where the workers are."""
        ...

    def map_chunks(
        self,
        factory: Callable[[], Work[RowT, ResultT]],
        chunks: Iterable[Sequence[RowT]],
        *,
        lost: Callable[[RowT], ResultT],
        here: bool = False,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of every chunk, in order, as they are there.

        Rows of a chunk are computed together, so what a chunk is belongs to the caller. A
        worker that dies is replaced, and its chunks are done again. Chunks that go on
        killing workers are done row by row; only the row that does it is lost.

        Parameters
        ----------
        factory : Callable
            Makes the work; called once in each worker. Picklable: a class, or a
            `functools.partial` of one.
        chunks : Iterable[Sequence]
            Read as needed, never held as a whole. Rows and results are picklable.
        lost : Callable
            What stands for a row that killed every worker it was given to.
        here : bool
            For work that gains nothing from several processes: it is small, or has a GPU
            that they would have to share. An engine of this machine then stays in this process.

        Raises
        ------
        EngineError
            If workers die whatever they are given, or cannot be had.
        Exception
            Whatever the work raises.
        """
        ...
