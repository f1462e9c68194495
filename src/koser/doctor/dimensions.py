"""Folders of `koser regress`: whether everything is there, as it was written, and says the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from koser.data.sealing import UNREADABLE
from koser.data.splits import Split
from koser.doctor.findings import Diagnosis, Finding, fail, ok, warn
from koser.doctor.runs import (
    TRAIN_AGAIN,
    Check,
    check_hashes,
    check_trainings,
    compare_predictions,
    describe_checkpoint,
    is_near,
    run_checks,
)
from koser.errors import RunError
from koser.evaluation.dimensions import DIMENSIONS, SCORE_NAMES, evaluate_values
from koser.experiment.dimensions import MARK, RESULTS
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.reporting.runs import read_json

_PREDICTIONS = "predictions.parquet"


def examine_dimensions(folder: Path) -> Diagnosis:
    """Check a folder of `koser regress` without its corpus and its features."""
    checks: tuple[Check, ...] = (
        _completeness,
        check_hashes,
        _checkpoint,
        check_trainings,
        _predictions,
        _scores,
    )
    if not (folder / RESULTS).is_file():
        checks = (_unfinished, check_trainings)
    return Diagnosis("dimensions", str(folder), run_checks(checks, folder))


def _unfinished(folder: Path) -> Iterator[Finding]:
    read_json(folder / MARK)
    yield warn("run", "it is not finished", "Run the same koser regress again: it goes on.")


def _completeness(folder: Path) -> Iterator[Finding]:
    names = (MARK, "config.toml", "split.parquet", _PREDICTIONS)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        yield fail("files", f"missing: {', '.join(missing)}", TRAIN_AGAIN)
    else:
        yield ok("files", "all there")


def _checkpoint(folder: Path) -> Iterator[Finding]:
    yield describe_checkpoint(Checkpoint.read(find_checkpoint(folder)))


def _predictions(folder: Path) -> Iterator[Finding]:
    split, results = Split.read(folder / "split.parquet"), read_json(folder / RESULTS)
    if split.hash != results["protocol"]["hash"]:
        told = f"split.parquet has the hash {split.hash}, the scores are of another split"
        yield fail("split", told, TRAIN_AGAIN)
    yield compare_predictions(_read_predictions(folder), split, results["seeds"])


def _scores(folder: Path) -> Iterator[Finding]:
    predictions, known = _read_predictions(folder), read_json(folder / RESULTS)["dimensions"]
    wrong = []
    for name in DIMENSIONS:
        values, predicted = predictions[name], predictions[f"predicted_{name}"]
        again = evaluate_values(values.to_numpy(), predicted.to_numpy()).scores
        for score in SCORE_NAMES:
            kept, value = known[name][score], again[score].value
            if kept is not None and not is_near(kept, value):
                wrong.append(f"{name} {score} {kept} instead of {value}")
    if wrong:
        yield fail("scores", f"not those of the predictions: {', '.join(wrong)}", TRAIN_AGAIN)
    else:
        yield ok("scores", f"{', '.join(SCORE_NAMES)} follow from the predictions")


def _read_predictions(folder: Path) -> pl.DataFrame:
    path = folder / _PREDICTIONS
    try:
        return pl.read_parquet(path, hive_partitioning=False, glob=False)
    except UNREADABLE as error:
        raise RunError(f"Cannot read the predictions '{path}': {error}.") from error
