"""A table as templates take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Headings and rows of text.

    Attributes
    ----------
    head : tuple[tuple[str, bool], ...]
        Each column's heading, and whether it holds numbers, which stand right.
    rows : tuple[tuple[str, ...], ...]
        The first cell is the row's heading.
    """

    head: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, ...], ...]


def make_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1
) -> Table | None:
    """A table whose first `n_text` columns are words and the others numbers; None without rows."""
    if not rows:
        return None
    head = tuple((name, place >= n_text) for place, name in enumerate(names))
    return Table(head, tuple(tuple(row) for row in rows))
