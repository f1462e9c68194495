"""Text and tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What could open a table cell, a link, code, emphasis or HTML.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def escaped(text: str) -> str:
    r"""`text` so that Markdown shows it as it is, in one line.

    Examples
    --------
    >>> escaped("a|b <script>\n_x_")
    'a\\|b \\<script\\> \\_x\\_'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1) -> str:
    """A table whose first `n_text` columns are words and the others numbers.

    Parameters
    ----------
    head : Sequence[str]
        Headings.
    rows : Sequence[Sequence[str]]
        Cells; shown as they are.
    n_text : int
        Columns that stand left.
    """
    marks = [":---" if place < n_text else "---:" for place in range(len(head))]
    lines = [[escaped(cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, marks)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
