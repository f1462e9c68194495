"""Experiments on real corpora, run through the public Python API and timed."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from koser.data import corpora
from koser.data.manifest import Manifest
from koser.engines.local import available_cores
from koser.experiment.request import TrainRequest
from koser.experiment.run import Run, run_experiment
from koser.reporting.wording import headline
from measuring import new_parser


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished run and its wall time, from the audio files to the report."""

    run: Run
    seconds: float

    @property
    def uar(self) -> float:
        """UAR over everything tested; NaN, which meets no target, where it is undefined."""
        return _or_nan(self.run.metrics["uar"])

    def uar_by_seed(self) -> dict[int, float]:
        """UAR of each seed alone."""
        per_seed = self.run.results.per_seed.items()
        return {seed: _or_nan(each.scores["uar"].value) for seed, each in per_seed}


@dataclass(frozen=True)
class Folders:
    """Where a script leaves its runs and features."""

    runs: Path
    store: Path


def new_trial_parser(documentation: str | None, *, n_seeds: int) -> argparse.ArgumentParser:
    """A parser with the options of every script that trains."""
    parser = new_parser(documentation)
    parser.add_argument("--seeds", type=int, default=n_seeds, help="trainings, from seed 42 on")
    parser.add_argument("--set", action="append", default=[], help="setting: train.epochs=20")
    parser.add_argument("--out", type=Path, help="keep the run folders here; else they are removed")
    parser.add_argument("--store", type=Path, help="feature stores; by default empty ones")
    return parser


@contextmanager
def trial_folders(arguments: argparse.Namespace) -> Iterator[Folders]:
    """The folders asked for, or temporary ones."""
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        yield Folders(arguments.out or folder / "runs", arguments.store or folder / "store")


def prepare(corpus: str, root: Path, folders: Folders) -> Path:
    """Write the manifest of a corpus and return its file."""
    manifest: Manifest = corpora.prepare(corpus, root, {})
    path = folders.runs / f"{corpus}.parquet"
    manifest.write(path)
    print(f"{corpus}: {len(manifest)} utterances, labels {', '.join(manifest.labels)}")
    return path


def run_trial(name: str, request: TrainRequest, folders: Folders) -> Trial:
    """Run what is asked for with a process per core, and print its headline.

    What an earlier call left of it in a folder that is kept is not done again.
    """
    started = time.perf_counter()
    run = run_experiment(
        request.resolve(),
        folders.runs / name,
        store_root=folders.store,
        n_workers=available_cores(),
        resume=(folders.runs / name).exists(),
    )
    seconds = time.perf_counter() - started
    n_trainings = len(run.results.outcomes)
    print(f"{name}: {headline(run.metrics)}")
    print(f"{name}: {seconds:.0f} s for features, {n_trainings} trainings and the report")
    return Trial(run, seconds)


def print_known(figures: Sequence[tuple[str, float]]) -> None:
    """Print what others reach under the same protocol."""
    for system, value in figures:
        print(f"known   UAR {value:.3f}  {system}")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
