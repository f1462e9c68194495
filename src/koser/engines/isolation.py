"""Chunks during which a worker died: which row does it, and the results of all others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from koser.errors import EngineError

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)

# Deaths that prove it is the rows: a worker may also be killed from outside.
_TRIES = 2
# Rows lost one after another from which on it is not the rows but everything.
_MOST_IN_A_ROW = 8


class Isolation(Generic[RowT, ResultT]):
    """Finishes chunks in a worker that is given nothing else.

    Parameters
    ----------
    attempt : Callable
        Maps rows to results in a worker of its own; None if that dies.
    lost : Callable
        What stands for a row that kills it.
    """

    def __init__(
        self,
        attempt: Callable[[Sequence[RowT]], list[ResultT] | None],
        lost: Callable[[RowT], ResultT],
    ) -> None:
        self._attempt = attempt
        self._lost = lost
        self._n_in_a_row = 0

    def finish(self, rows: Sequence[RowT]) -> list[ResultT]:
        """Results of all rows, in order.

        Raises
        ------
        EngineError
            If one row after another is lost.
        """
        logger.warning("A worker died. What it was working on is done again.")
        found = self._try(rows)
        return [self._finish_row(row) for row in rows] if found is None else found

    def _finish_row(self, row: RowT) -> ResultT:
        found = self._try([row])
        if found is not None:
            self._n_in_a_row = 0
            return found[0]
        self._n_in_a_row += 1
        if self._n_in_a_row >= _MOST_IN_A_ROW:
            raise EngineError(
                f"Workers die whatever they are given, {self._n_in_a_row} rows one after another: "
                f"out of memory, or a crash inside a library. What was done is kept. Run the same "
                f"command again with fewer workers (--workers); koser train with --resume too, "
                f"where its run folder is there."
            )
        return self._lost(row)

    def _try(self, rows: Sequence[RowT]) -> list[ResultT] | None:
        for _ in range(_TRIES):
            found = self._attempt(rows)
            if found is not None:
                return found
        return None
