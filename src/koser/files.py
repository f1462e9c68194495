"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` if the block succeeds.

    Whatever happens, a reader of `path` sees the old file or the whole new one, and
    nothing else is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it becomes `path` if the block succeeds.

    For what depends on its content alone: if another process has made `path` meanwhile,
    that one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process with the same id
    try:
        yield partial
        with suppress(OSError):
            os.rename(partial, path)
        if not path.is_dir():
            raise OSError(f"cannot make the folder '{path}'")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file whole, and onto the disk before its name."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write `values` for people and programs: indented, Korean readable, no NaN."""
    text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
