"""What every benchmark measures with: turns, fresh processes, memory, and a verdict."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from koser.engines.local import available_cores

ResultT = TypeVar("ResultT")

_PACKAGES = ("torch", "numpy", "librosa", "soxr", "polars")


@dataclass(frozen=True)
class Timing:
    """The median round of a piece of work.

    Attributes
    ----------
    seconds : float
        Wall time.
    cores : float
        CPU time of this process, its threads and its workers, per second.
    """

    seconds: float
    cores: float


def time_in_turns(works: Mapping[str, Callable[[], object]], *, n_rounds: int) -> dict[str, Timing]:
    """Time every work once a round and keep each one's median round.

    Rivals take turns, so that a slow minute of the machine hits all of them, and every
    second round runs backwards, so that none always follows the same one. With an even
    number of rounds the slower of the two in the middle counts.
    """
    rounds: dict[str, list[Timing]] = {name: [] for name in works}
    for number in range(n_rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            started, cpu_started = time.perf_counter(), cpu_seconds()
            works[name]()
            seconds = time.perf_counter() - started
            rounds[name].append(Timing(seconds, (cpu_seconds() - cpu_started) / seconds))
    return {
        name: sorted(timings, key=lambda timing: timing.seconds)[n_rounds // 2]
        for name, timings in rounds.items()
    }


def cpu_seconds() -> float:
    """CPU time of this process and of all that descend from it, ended or not."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    ticks = 0
    for pid in descendants():
        with suppress(OSError):  # it has ended since
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            # Its own time, and that of its children which have ended.
            ticks += sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return total + ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int | None = None) -> list[int]:
    """Processes that this one, or `pid`, has started, and theirs."""
    pid = os.getpid() if pid is None else pid
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text(encoding="ascii").split()
            for child in map(int, children):
                found += [child, *descendants(child)]
    return found


class LargestWorker:
    """Watches, within its block, how large the largest process gets that descends from this one.

    Workers are children of the process that forks them, so `resource.getrusage` does not see them.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> LargestWorker:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            for pid in descendants():
                with suppress(OSError, KeyError):  # it has ended since
                    self.peak_mb = max(self.peak_mb, memory_mb("VmHWM", pid))


def in_fresh_process(function: Callable[..., ResultT], *arguments: object) -> ResultT:
    """What `function` of a script returns in a new interpreter, with nothing loaded yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_mb(field: str, pid: int | str = "self") -> float:
    """A figure of ``/proc/PID/status`` in MB (10^6 bytes): ``VmHWM``, ``RssAnon`` ...

    `resource.getrusage` would not do: its peak includes what the parent held when it
    started this process.
    """
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.removesuffix("kB")) * 1024 / 1e6
    raise KeyError(field)


def new_parser(documentation: str | None) -> argparse.ArgumentParser:
    """A parser with the first line of a script's docstring and the option all have."""
    parser = argparse.ArgumentParser(
        description=(documentation or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run?")
    return parser


def print_heading(documentation: str | None, *, is_quick: bool) -> None:
    """Print what is measured and on which machine."""
    print((documentation or "").partition("\n")[0])
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    print(
        f"machine: {available_cores()} of {os.cpu_count()} cores of {_cpu_model()}, "
        f"load {os.getloadavg()[0]:.1f} at the start; "
        f"Python {platform.python_version()}, {versions}"
    )
    if is_quick:
        print("QUICK RUN on small sizes: these are not the figures.")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first one being the headings, with numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def print_verdict(figure: str, target: str, *, is_met: bool) -> None:
    """Print whether a figure reaches its target."""
    print(f"{'met   ' if is_met else 'MISSED'}  {figure}  (target {target})")


def mean_and_sd(values: Sequence[float]) -> str:
    """The mean, with the sample standard deviation where there are several values."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
