"""Run folders: whether everything is there, as it was written, and says the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from koser.data.splits import Split
from koser.doctor.findings import Diagnosis, Finding, fail, note, ok, warn
from koser.errors import KoserError
from koser.evaluation.scoring import evaluate
from koser.experiment.folder import is_finished
from koser.experiment.results import PROBABILITY_PREFIX
from koser.experiment.tuning import read_trials
from koser.hashes import SUMS, read_sums, sha256_of
from koser.models.checkpoint import Checkpoint, find_checkpoint, load_tensors
from koser.reporting.runs import RunFolder, read_json

# What every finished run and evaluation has.
_FILES = ("run.json", "config.toml", "split.parquet", "predictions.parquet", "metrics.json")
# Scores are computed again from what stands in the predictions, in double precision; their
# sums may have another order in another version of NumPy.
_TOLERANCE = 1e-9
_SCORES = ("accuracy", "uar", "macro_f1", "nll")
TRAIN_AGAIN = "Copy it again, or train into another folder."
Check = Callable[[Path], Iterator[Finding]]


def examine_run(folder: Path) -> Diagnosis:
    """Check a run folder without its corpus and its features."""
    checks: tuple[Check, ...] = (
        _completeness,
        check_hashes,
        _checkpoint,
        check_trainings,
        _split,
        _predictions,
        _metrics,
    )
    if not is_finished(folder):
        checks = (_completeness, check_trainings)
    return Diagnosis("run", str(folder), run_checks(checks, folder))


def run_checks(checks: Sequence[Check], folder: Path) -> tuple[Finding, ...]:
    """The findings of all checks; one that cannot be made is a failure by itself."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(folder)
        except (KoserError, OSError) as error:
            findings.append(fail(check.__name__.strip("_"), str(error), TRAIN_AGAIN))
    return tuple(findings)


def examine_checkpoint(path: Path) -> Diagnosis:
    """Check a single ``.pth``."""
    try:
        finding = describe_checkpoint(Checkpoint.read(path))
    except KoserError as error:
        finding = fail("checkpoint", str(error), TRAIN_AGAIN)
    return Diagnosis("checkpoint", str(path), (finding,))


def _completeness(folder: Path) -> Iterator[Finding]:
    if not is_finished(folder):
        command = read_json(folder / "run.json").get("command") or ["koser", "train", "..."]
        line = shlex.join([*_program(command[0]), *command[1:]])
        yield warn("run", "it is not finished", f"Go on with it: {line} --resume")
        return
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if not any(folder.glob("confusion_matrix_*.png")):
        missing.append("confusion_matrix_*.png")
    if missing:
        yield fail("files", f"missing: {', '.join(missing)}", TRAIN_AGAIN)
    else:
        yield ok("files", "all there")


def _program(path: str) -> list[str]:
    """How to start what a run's command names: a script beside the corpus, or koser."""
    is_script = Path(path).suffix == ".py" and Path(path).name != "__main__.py"
    return ["python", path] if is_script else ["koser"]


def check_hashes(folder: Path) -> Iterator[Finding]:
    """Whether files hold what they held when they were finished."""
    sums = read_sums(folder)
    if not sums:
        yield note("hashes", f"there is no {SUMS}: an earlier version of koser made the run")
        return
    missing = [name for name in sums if not (folder / name).is_file()]
    changed = [
        name
        for name, digest in sums.items()
        if name not in missing and sha256_of(folder / name) != digest
    ]
    if missing or changed:
        told = [f"changed: {', '.join(changed)}"] if changed else []
        told += [f"missing: {', '.join(missing)}"] if missing else []
        yield fail("hashes", "; ".join(told), TRAIN_AGAIN)
    else:
        yield ok("hashes", f"{len(sums)} files are as they were written")


def _checkpoint(folder: Path) -> Iterator[Finding]:
    if not any(folder.glob("best_model_*.pth")):
        yield note("checkpoint", "none: this is a test of another run's model")
        return
    checkpoint = Checkpoint.read(find_checkpoint(folder))
    labels = tuple(RunFolder.read(folder).labels)
    if checkpoint.labels != labels:
        what = f"it knows {', '.join(checkpoint.labels)}; the scores are of {', '.join(labels)}"
        yield fail("checkpoint", what, TRAIN_AGAIN)
    else:
        yield describe_checkpoint(checkpoint)


def describe_checkpoint(checkpoint: Checkpoint) -> Finding:
    """What a checkpoint that could be read is."""
    n_values = sum(tensor.numel() for tensor in checkpoint.state.values())
    return ok("checkpoint", f"{checkpoint.system}, {n_values:,} trained values, no code in it")


def check_trainings(folder: Path) -> Iterator[Finding]:
    """Whether what every training has left can be read."""
    done = sorted(folder.glob("parts/*/outcome.pth"))
    begun = sorted(
        set(folder.glob("parts/*/last.pth")) - {path.parent / "last.pth" for path in done}
    )
    damaged = []
    for path in (*done, *begun):
        try:
            load_tensors(path)
        except KoserError:
            damaged.append(str(path.relative_to(folder)))
    for path in sorted(folder.glob("parts/*/tuning.json")):
        try:
            read_trials(path)
        except KoserError:
            damaged.append(str(path.relative_to(folder)))
    if damaged:
        yield fail(
            "trainings",
            f"damaged: {', '.join(damaged)}",
            "Remove these files and resume the run: their trainings are done anew.",
        )
    elif done or begun:
        yield ok("trainings", f"{len(done)} finished, {len(begun)} begun")


def _split(folder: Path) -> Iterator[Finding]:
    split = Split.read(folder / "split.parquet")
    described = RunFolder.read(folder).split_hash
    if split.hash != described:
        what = f"split.parquet has the hash {split.hash}, the scores are of {described}"
        yield fail("split", what, TRAIN_AGAIN)
    else:
        yield ok("split", f"{split.protocol}, {split.n_folds} folds, hash {split.hash}")


def _predictions(folder: Path) -> Iterator[Finding]:
    run, split = RunFolder.read(folder), Split.read(folder / "split.parquet")
    yield compare_predictions(run.predictions, split, run.metrics["seeds"])


def compare_predictions(predictions: pl.DataFrame, split: Split, seeds: Sequence[int]) -> Finding:
    """Whether there is one prediction for each tested utterance of a split under each seed."""
    tested = split.table.filter(pl.col("part") == "test").select("fold", "id")
    expected = pl.DataFrame({"seed": seeds}, schema={"seed": pl.Int64}).join(tested, how="cross")
    found = predictions.select("seed", pl.col("fold").cast(pl.Int32), "id")
    n_twice = found.height - found.unique().height
    n_missing = expected.join(found, on=found.columns, how="anti").height
    n_unknown = found.join(expected, on=found.columns, how="anti").height
    if n_twice or n_missing or n_unknown:
        what = (
            f"of {expected.height:,} tested utterances {n_missing:,} are missing, {n_twice:,} are "
            f"there twice, and {n_unknown:,} were not to be tested"
        )
        return fail("predictions", what, TRAIN_AGAIN)
    return ok("predictions", f"{found.height:,}, one per tested utterance and seed")


def _metrics(folder: Path) -> Iterator[Finding]:
    run = RunFolder.read(folder)
    columns = [f"{PROBABILITY_PREFIX}{label}" for label in run.labels]
    again = evaluate(
        run.predictions["label"].to_numpy(),
        run.predictions.select(columns).to_numpy(),
        labels=run.labels,
    )
    known: dict[str, Any] = dict(run.metrics)
    wrong = [
        f"{name} {known[name]:.6f} instead of {again.scores[name].value:.6f}"
        for name in _SCORES
        if known.get(name) is not None and not is_near(known[name], again.scores[name].value)
    ]
    if wrong:
        yield fail("scores", f"not those of the predictions: {', '.join(wrong)}", TRAIN_AGAIN)
    else:
        yield ok("scores", f"{', '.join(_SCORES)} follow from the predictions")


def is_near(first: float, second: float | None) -> bool:
    """Whether a score is the one that was kept, but for the order of sums."""
    return second is not None and abs(first - second) <= _TOLERANCE * max(1.0, abs(first))
