"""What is shown while a corpus is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def byte_bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """What to call with bytes done and their total; draws a bar from the first call on.

    None where standard error is no terminal.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Started late: the question for the licence comes before, and a live bar would cover it.
    progress = Progress(*columns, console=console, transient=True)
    tasks: list[TaskID] = []

    def show(done: int, total: int | None) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task(name, total=total))
        progress.update(tasks[0], completed=done, total=total)

    try:
        yield show
    finally:
        progress.stop()
