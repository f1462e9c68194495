"""Memory and time of `extract` and `predict` from 10^4 to 10^6 rows of a generated manifest.

Rows name 64 shared sounds of 0.2 s (synthetic): extraction finds their features in the store
after hashing the file of every row, prediction hears every row (`mfcc`, RANDOM weights, in
ONNX). So it is the handling of rows that is measured: reading the manifest, chunks to worker
processes and back, shards. Each figure is of a new process; peak memory is that of the
process that runs the command, and of its largest worker.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from generated import write_generated, write_sounds
from koser.engines.local import LocalEngine, available_cores
from measuring import (
    LargestWorker,
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)
from models import random_mfcc

SECONDS = 0.2
TARGET_GROWTH, TARGET_SLOWER = 1.25, 1.25


@dataclass(frozen=True)
class Figure:
    """What a command took."""

    seconds: float
    own_mb: float
    worker_mb: float


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    sizes = (1_000, 4_000, 16_000) if arguments.quick else (10_000, 100_000, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        _, model = random_mfcc(folder)
        sounds = write_sounds(folder / "sounds", seconds=SECONDS)
        for size in sizes:
            write_generated(folder / f"{size}", sounds, size, seconds=SECONDS)
        in_fresh_process(extract, folder, sizes[0])  # the store has them all from now on
        works = {"extract": extract, "predict": predict}
        figures = {
            (name, size): in_fresh_process(work, folder, size, model)
            for name, work in works.items()
            for size in sizes
        }
    rows = [("", "rows", "seconds", "rows/s", "memory, MB", "of a worker, MB")]
    for (name, size), figure in figures.items():
        rows.append(
            (
                name,
                f"{size:,}",
                f"{figure.seconds:.1f}",
                f"{size / figure.seconds:,.0f}",
                f"{figure.own_mb:.0f}",
                f"{figure.worker_mb:.0f}",
            )
        )
    print_table(rows)
    for name in works:
        first, middle, last = (figures[name, size] for size in sizes)
        growth = last.own_mb / first.own_mb
        print_verdict(
            f"{name}: {growth:.2f} times the memory for {sizes[2] // sizes[0]} times the rows",
            f"<= {TARGET_GROWTH:g}",
            is_met=growth <= TARGET_GROWTH,
        )
        # The middle size: at the smallest, starting the workers is most of the time.
        slower = (last.seconds / sizes[2]) / (middle.seconds / sizes[1])
        print_verdict(
            f"{name}: {slower:.2f} times as long per row at {sizes[2]:,} as at {sizes[1]:,}",
            f"<= {TARGET_SLOWER:g}",
            is_met=slower <= TARGET_SLOWER,
        )


def extract(folder: Path, size: int, _model: Path | None = None) -> Figure:
    from koser.data.stored import StoredManifest
    from koser.experiment.extraction import extract_features
    from koser.systems.mfcc import MfccConfig

    started = time.perf_counter()
    with LargestWorker() as largest:
        extract_features(
            "mfcc",
            StoredManifest.open(folder / f"{size}"),
            MfccConfig(speeds=()),
            store_root=folder / "store",
            engine=LocalEngine(available_cores()),
        )
    return figure_since(started, largest)


def predict(folder: Path, size: int, model: Path) -> Figure:
    from koser.data.stored import StoredManifest
    from koser.inference.bulk import ModelSource, predict_manifest

    started = time.perf_counter()
    with LargestWorker() as largest:
        done = predict_manifest(
            ModelSource(model),
            StoredManifest.open(folder / f"{size}"),
            folder / f"out-{size}",
            LocalEngine(available_cores()),
        )
    if not (done.is_complete and done.n_failed == 0):
        raise RuntimeError("rows are missing")
    return figure_since(started, largest)


def figure_since(started: float, largest: LargestWorker) -> Figure:
    return Figure(time.perf_counter() - started, memory_mb("VmHWM"), largest.peak_mb)


if __name__ == "__main__":
    main()
