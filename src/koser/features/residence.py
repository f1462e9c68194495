"""Memory that is given back: one large model at a time, and no heap full of holes."""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT")
ResultT = TypeVar("ResultT")

# Pages that are handed back have to be fetched again, which costs the more the more often.
_TEND_SECONDS = 10.0


def use_and_free(
    name: str, load: Callable[[], ModelT], use: Callable[[ModelT], ResultT]
) -> ResultT:
    """What `use` makes of a model that exists no longer than it takes.

    A function instead of a ``with`` block: the variable of a block would keep the model
    alive until something else is put into it.

    Parameters
    ----------
    name : str
        For the log.
    load : Callable
        Makes the model.
    use : Callable
        Must keep no reference to it.
    """
    logger.info("memory: %s in; %s", name, _memory())
    try:
        return use(load())
    finally:
        gc.collect()
        _give_back()
        logger.info("memory: %s out; %s", name, _memory())


class Heap:
    """The heap of a process that computes batches of ever other sizes.

    What one of them leaves does not fit the next one, so glibc's heap grows to several times
    what is in use (`benchmarks/56_training_heap.py`).
    """

    def __init__(self) -> None:
        self._due = 0.0

    def tend(self) -> None:
        """Hand what is free to the system, once in some seconds."""
        if time.perf_counter() >= self._due:
            _trim()
            self._due = time.perf_counter() + _TEND_SECONDS


def _give_back() -> None:
    """Hand freed memory to the system: else the next model comes on top of it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _trim()


def _trim() -> None:
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _memory() -> str:
    """Memory now and at its peak, of the process and, where there is one, of the GPU."""
    parts = []
    values = _process_status()
    if "VmRSS" in values:
        parts.append(f"{values['VmRSS']:.2f} GB resident, {values['VmHWM']:.2f} at most")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        parts.append(f"{(total - free) / 1e9:.2f} of {total / 1e9:.2f} GB of the GPU taken")
    return "; ".join(parts) or "unknown"


def _process_status() -> dict[str, float]:
    """``VmRSS`` and ``VmHWM`` in GB; nothing where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name: int(value.split()[0]) * 1024 / 1e9 for name, value in pairs}
