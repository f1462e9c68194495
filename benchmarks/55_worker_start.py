"""Worker processes forked from a server that has imported everything, against new interpreters.

Every worker imports what hearing with Whisper's encoder takes (torch, transformers, koser), and
waits. Time until all of a pool's workers are there, CPU time of everything, and the memory that
nobody shares, of the workers and the server together. A new program for each way; pools one
after another, as a command has them for extraction, transcripts and trainings.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from koser.engines.local import available_cores
from koser.engines.processes import start_pool
from measuring import (
    cpu_seconds,
    descendants,
    in_fresh_process,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)

MODULES = ("koser.systems.wav2vec2", "transformers.models.whisper.modeling_whisper")
N_POOLS = 4
BUSY = 0.5


@dataclass(frozen=True)
class Figure:
    """What the pools of one way took."""

    first: float
    later: float
    cpu: float
    own_mb: float


def prepare() -> Callable[[float], None]:
    """What a worker does before its work, which here is to wait."""
    for name in MODULES:
        import_module(name)
    return time.sleep


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_workers = 2 if arguments.quick else max(4, available_cores())
    n_pools = 2 if arguments.quick else N_POOLS
    ways = {"new interpreters": spawned, "forked from a server": start_pool}
    found = {name: in_fresh_process(run, way, n_workers, n_pools) for name, way in ways.items()}
    rows = [("", "first pool, s", "later ones, s", "CPU, s", "MB a worker, unshared")]
    for name, figure in found.items():
        rows.append(
            (
                name,
                f"{figure.first:.2f}",
                f"{figure.later:.2f}",
                f"{figure.cpu:.1f}",
                f"{figure.own_mb:.0f}",
            )
        )
    print(f"{n_pools} pools of {n_workers} workers")
    print_table(rows)
    plain, ours = found.values()
    print_verdict(
        f"{plain.cpu / ours.cpu:.1f} times less CPU time", ">= 2", is_met=plain.cpu >= 2 * ours.cpu
    )


def spawned(n_workers: int, factory: Callable[[], object]) -> ProcessPoolExecutor:
    """The plain way."""
    return ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), factory)


def run(way: Callable[..., ProcessPoolExecutor], n_workers: int, n_pools: int) -> Figure:
    """Start `n_pools` one after another, in this process, which has imported everything."""
    prepare()
    seconds, own, cpu = [], 0.0, cpu_seconds()
    for _ in range(n_pools):
        started = time.perf_counter()
        with way(n_workers, prepare) as pool:
            # Each takes long enough for every worker to have to be there.
            list(pool.map(time.sleep, [BUSY] * n_workers))
            seconds.append(time.perf_counter() - started - BUSY)
            own = sum(own_mb(pid) for pid in descendants()) / n_workers
    time.sleep(BUSY)  # the last ones end
    return Figure(seconds[0], statistics.median(seconds[1:]), cpu_seconds() - cpu, own)


def own_mb(pid: int) -> float:
    """Memory that no other process has, in MB."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return sum(int(each.split()[1]) for each in lines if each.startswith("Private")) / 1e3
    return 0.0


if __name__ == "__main__":
    main()
