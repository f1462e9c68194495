"""What koser logs, into a run's own file; what it warned of, for the run's result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also write what koser logs (INFO and above) to `path`, appending."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("koser")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        handler.close()


@contextmanager
def warnings_collected() -> Iterator[list[str]]:
    """A list that what koser warns of within the block is added to, each message once."""
    handler = _Collector(logging.WARNING)
    package = logging.getLogger("koser")
    package.addHandler(handler)
    try:
        yield handler.messages
    finally:
        package.removeHandler(handler)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        # A log that cannot be written ends the run, in one line: results would follow it.
        raise


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)
