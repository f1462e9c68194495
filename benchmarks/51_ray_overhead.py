"""What Ray costs on one machine: the same work on the local engine and on Ray, in turns.

Predictions (`mfcc`, RANDOM weights) and MFCCs of a generated manifest over 64 shared sounds
of 4 s (synthetic); both engines have a worker per core. Starting the cluster is stated by
itself; starting workers, importing and loading the model count for both. Overhead is of wall
time, median of the rounds; the results are compared row for row.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from generated import write_generated, write_sounds
from koser.data.stored import StoredManifest
from koser.engines.choosing import EngineOptions, opened_engine
from koser.engines.engine import Engine
from koser.engines.local import LocalEngine, available_cores
from koser.experiment.extraction import extract_features
from koser.features.store_check import largest_difference
from koser.inference.bulk import ModelSource, predict_manifest
from koser.systems.mfcc import MfccConfig
from measuring import new_parser, print_heading, print_table, print_verdict
from models import random_mfcc

SECONDS = 4.0
N_ROWS, N_ROUNDS = 10_000, 3
TARGET = 0.15


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_rows, n_rounds = (1_000, 1) if arguments.quick else (N_ROWS, N_ROUNDS)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        run, _ = random_mfcc(folder)
        sounds = write_sounds(folder / "sounds", seconds=SECONDS)
        write_generated(folder / "m", sounds, n_rows, seconds=SECONDS)
        stored = StoredManifest.open(folder / "m")
        started = time.perf_counter()
        options = EngineOptions("ray", n_workers=available_cores())
        ray = stack.enter_context(opened_engine(options))
        start_seconds = time.perf_counter() - started
        engines: dict[str, Engine] = {"local": LocalEngine(available_cores()), "ray": ray}
        timings: dict[tuple[str, str], list[float]] = {}
        for number in range(n_rounds):
            for name in list(engines)[:: -1 if number % 2 else 1]:
                where = folder / f"{name}-{number}"
                for work in (predict, extract):
                    started = time.perf_counter()
                    work(run, stored, where, engines[name])
                    timings.setdefault((work.__name__, name), []).append(
                        time.perf_counter() - started
                    )
        local, other = (
            pl.read_parquet(folder / f"{name}-0/out/part-*.parquet") for name in engines
        )
        difference = largest_difference(folder / "local-0" / "store", folder / "ray-0" / "store")
    print(f"cluster started in {start_seconds:.1f} s")
    rows = [("", "engine", "seconds", "clips/s")]
    medians = {key: statistics.median(seconds) for key, seconds in timings.items()}
    for (what, name), seconds in sorted(medians.items()):
        rows.append((what, name, f"{seconds:.1f}", f"{n_rows / seconds:.0f}"))
    print_table(rows)
    print_verdict(
        f"predictions equal row for row: {local.equals(other)}; features differ by {difference}",
        "True, 0.0",
        is_met=local.equals(other) and difference == 0.0,
    )
    for what in ("predict", "extract"):
        overhead = medians[what, "ray"] / medians[what, "local"] - 1
        print_verdict(
            f"{what}: Ray takes {100 * overhead:+.0f} % of the local engine's time on top",
            f"<= {100 * TARGET:.0f} %",
            is_met=overhead <= TARGET,
        )


def predict(run: Path, stored: StoredManifest, where: Path, engine: Engine) -> None:
    predict_manifest(ModelSource(run), stored, where / "out", engine, shard_rows=256)


def extract(run: Path, stored: StoredManifest, where: Path, engine: Engine) -> None:
    extract_features(
        "mfcc", stored, MfccConfig(speeds=()), store_root=where / "store", engine=engine
    )


if __name__ == "__main__":
    main()
