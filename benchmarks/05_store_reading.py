"""Reading features at random: speed beside the disk's, and memory that does not grow.

A store as large as AI Hub 263 has with 40-dimensional MFCCs: 2 GB of float32 matrices of
40 x 300. New processes read all of it, in turns: twice through `FeatureStore.read` in random
order, and with plain `os.pread` in file order, in random order, and in random order with
the checksum that the store verifies. These come from the page cache, so they are the cost
of the software; beside them stands the disk, read once in file order from outside the cache.

An array is held against its checksum when a process reads it for the first time, not in
later epochs: what the checksums cost, the difference between the two plain readings, is
given as a share of a training of 20 epochs. Every reader sums what it reads, as a training
looks at all of it: a view of a mapped file costs nothing until then.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.features.store import FeatureStore
from measuring import (
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)

SHAPE = (40, 300)
ROW_BYTES = 4 * SHAPE[0] * SHAPE[1]
DESCRIPTION = {"extractor": "benchmark"}
# Memory that reading may leave behind beside the index: the allocator's, whatever the size.
ALLOWANCE_MB = 1.0
N_EPOCHS = 20
MOST_COST = 0.05


@dataclass(frozen=True)
class Memory:
    """Anonymous memory in MB: it cannot be given back, unlike pages of a mapped file."""

    before: float
    opened: float
    tenth: float
    whole: float


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the store")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    gigabytes = min(arguments.gigabytes, 0.1) if arguments.quick else arguments.gigabytes
    n_rows = round(gigabytes * 1e9 / ROW_BYTES)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        data, index = write_store(Path(folder), n_rows)
        index_mb = index.stat().st_size / 1e6
        seconds = defaultdict(list)
        for _ in range(3):
            (first, later), memory = in_fresh_process(read_through_store, Path(folder), n_rows)
            seconds["ours: FeatureStore.read, random, first epoch"].append(first)
            seconds["ours: the same, later epochs"].append(later)
            for name, is_random, is_checked in (
                ("plain: pread, random", True, False),
                ("plain: pread and crc32, random", True, True),
                ("plain: pread, in file order", False, False),
            ):
                plain_seconds = in_fresh_process(read_plainly, data, n_rows, is_random, is_checked)
                seconds[name].append(plain_seconds)
            seconds["the disk itself, in file order"].append(in_fresh_process(read_cold, data))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print_speeds(medians, n_rows)
    _, later, plain, checked, *_ = medians.values()
    cost = (checked - plain) / (N_EPOCHS * later)
    print_verdict(
        f"checksums cost {cost:.1%} of reading in {N_EPOCHS} epochs",
        f"<= {MOST_COST:.0%}",
        is_met=cost <= MOST_COST,
    )
    print(f"anonymous memory with {n_rows:,} rows, their index {index_mb:.1f} MB on disk")
    print_table(
        [
            ("MB before", "store opened", "1/10 read", "all read"),
            tuple(
                f"{value:.1f}"
                for value in (memory.before, memory.opened, memory.tenth, memory.whole)
            ),
        ]
    )
    growth, kept = memory.whole - memory.tenth, memory.whole - memory.before
    print_verdict(
        f"from 1/10 to all of the store: {growth:+.1f} MB",
        f"<= {ALLOWANCE_MB:g} MB",
        is_met=growth <= ALLOWANCE_MB,
    )
    print_verdict(
        f"all in all {kept:.1f} MB for {n_rows * ROW_BYTES / 1e6:,.0f} MB of features",
        f"<= 4 times the index + {ALLOWANCE_MB:g} MB",
        is_met=kept <= 4 * index_mb + ALLOWANCE_MB,
    )


def print_speeds(seconds: dict[str, float], n_rows: int) -> None:
    ours = next(iter(seconds.values()))
    print_table(
        [("median of 3", "MB/s", "ours / this")]
        + [
            (name, f"{n_rows * ROW_BYTES / each / 1e6:,.0f}", f"{each / ours:.2f}")
            for name, each in seconds.items()
        ]
    )


def key(row: int) -> bytes:
    return hashlib.blake2b(row.to_bytes(8), digest_size=16).digest()


def write_store(root: Path, n_rows: int) -> tuple[Path, Path]:
    """Fill a store with noise and return its data and index files."""
    rng = np.random.default_rng(0)
    store = FeatureStore(root, DESCRIPTION)
    with store.writer() as writer:
        for row in range(n_rows):
            writer.append(key(row), rng.random(SHAPE, dtype=np.float32))
    return store.folder / "data.bin", store.folder / "index.bin"


def read_through_store(root: Path, n_rows: int) -> tuple[tuple[float, float], Memory]:
    """Seconds of the first pass and of the second, and the memory of the first."""
    order = np.random.default_rng(1).permutation(n_rows)
    before = memory_mb("RssAnon")
    started = time.perf_counter()
    store = FeatureStore(root, DESCRIPTION)
    opened, tenth = memory_mb("RssAnon"), 0.0
    for done, row in enumerate(order):
        store.read(key(int(row))).sum()
        if done == n_rows // 10:
            tenth = memory_mb("RssAnon")
    first = time.perf_counter() - started
    memory = Memory(before, opened, tenth, memory_mb("RssAnon"))
    started = time.perf_counter()
    for row in order:
        store.read(key(int(row))).sum()
    return (first, time.perf_counter() - started), memory


def read_cold(data: Path) -> float:
    """Read the whole file after its pages were dropped from the cache."""
    file = os.open(data, os.O_RDONLY)
    os.fsync(file)  # only clean pages can be dropped
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    while os.read(file, 2**22):
        pass
    seconds = time.perf_counter() - started
    os.close(file)
    return seconds


def read_plainly(data: Path, n_rows: int, is_random: bool, is_checked: bool) -> float:
    order = np.arange(n_rows)
    if is_random:
        order = np.random.default_rng(1).permutation(n_rows)
    started = time.perf_counter()
    file = os.open(data, os.O_RDONLY)
    try:
        for row in order:
            raw = os.pread(file, ROW_BYTES, int(row) * ROW_BYTES)
            if is_checked:
                zlib.crc32(raw)
            np.frombuffer(raw, np.float32).sum()
    finally:
        os.close(file)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
