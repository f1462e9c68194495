"""Send a system through corpora on which it must fail: ``koser train --canaries``.

What is cheaper than the run itself, and is said in ``canaries.json``: a few folds, one seed,
and a sample of each part. What is not: the system and every one of its settings.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from koser.audio.reading import load_clip
from koser.config import Config
from koser.data.assignment import TEST, TRAIN, VAL, codes, crossed_share
from koser.data.enrolment import Enrolment, EnrolmentOptions
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.engines.local import LocalEngine, iter_map
from koser.errors import RunError
from koser.features.extraction import clips_of
from koser.features.store_check import largest_difference
from koser.features.threads import torch_threads
from koser.files import write_json
from koser.models.checkpoint import Checkpoint
from koser.systems import system_class
from koser.systems.system import Part, System
from koser.training.canaries import (
    Canary,
    judge_chance,
    judge_invariance,
    make_noise,
    permute_labels,
)

if TYPE_CHECKING:
    from koser.experiment.run import Experiment

MAX_FOLDS = 6
ENOUGH_TESTED = 120  # utterances; fewer folds will do that test as many
MAX_ROWS = {TRAIN: 600, VAL: 150, TEST: 300}  # of every fold
N_COMPARED = 24  # utterances of the invariance canary
N_ALONE = 8  # of them, those that are also recognised from their sound, one by one
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Pipeline:
    """What is put to the test.

    Attributes
    ----------
    system : type[System]
        The kind of system.
    config : Config
        All its settings.
    store_root : Path
        Feature stores of the run, which has the features of the corpus itself already.
    n_workers : int
        Processes of the extraction.
    """

    system: type[System]
    config: Config
    store_root: Path
    n_workers: int = 1


def run_canaries(
    pipeline: Pipeline, manifest: Manifest, split: Split, trained: System, *, seed: int
) -> tuple[Canary, ...]:
    """All canaries on one pipeline.

    Parameters
    ----------
    pipeline : Pipeline
        What is put to the test.
    manifest : Manifest
        The corpus.
    split : Split
        Who plays which part.
    trained : System
        A system that the pipeline has trained on the corpus, for the canary that compares
        its probabilities.
    seed : int
        Of the training, and of what the canaries draw.

    Raises
    ------
    KoserError
        As training does.
    """
    sample, parts = _sample(manifest, split, seed, pipeline.config)
    permuted, is_within = permute_labels(sample, seed)
    with tempfile.TemporaryDirectory(prefix="koser-canaries-") as folder:
        root = Path(folder)
        found = [_at_chance("permuted_labels", pipeline, permuted, parts, root, seed, is_within)]
        noise = make_noise(sample, root / "noise", seed)
        row_of = {name: row for row, name in enumerate(sample.table["id"])}
        order = np.array([row_of[name] for name in noise.table["id"]], np.int64)
        elsewhere = Pipeline(pipeline.system, pipeline.config, root / "store", pipeline.n_workers)
        found.append(
            _at_chance("noise", elsewhere, noise, parts[:, order], root, seed, is_within=False)
        )
        found.append(_invariance(_unenrolled(pipeline), sample, parts, trained, root))
    return tuple(found)


def watch_run(
    experiment: Experiment, folder: Path, *, store_root: Path, n_workers: int = 1
) -> dict[str, Any]:
    """All canaries on the pipeline of a finished run; leaves ``canaries.json`` in its folder.

    Parameters
    ----------
    experiment : Experiment
        What the run tried.
    folder : Path
        The run folder.
    store_root : Path
        Folder of the feature stores that the run filled.
    n_workers : int
        Processes of the extraction.

    Returns
    -------
    dict
        The content of ``canaries.json``. Canaries that the folder has already are not run
        again.
    """
    done = folder / "canaries.json"
    if done.exists():
        known: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return known
    system = system_class(experiment.model)
    checkpoint = Checkpoint.read(folder / f"best_model_{experiment.model}.pth")
    pipeline = Pipeline(system, experiment.config, store_root, n_workers)
    trained = system.from_checkpoint(checkpoint)
    canaries = run_canaries(
        pipeline, experiment.manifest, experiment.split, trained, seed=experiment.seeds[0]
    )
    return write_canaries(canaries, folder)


def write_canaries(canaries: tuple[Canary, ...], folder: Path) -> dict[str, Any]:
    """Leave ``canaries.json`` in a run folder, and return its content."""
    verdicts = {canary.verdict for canary in canaries}
    values = {
        "verdict": "fail" if "fail" in verdicts else "pass",
        "canaries": [canary.to_dict() for canary in canaries],
        "settings": {
            "max_folds": MAX_FOLDS,
            "enough_tested": ENOUGH_TESTED,
            "max_train": MAX_ROWS[TRAIN],
            "max_val": MAX_ROWS[VAL],
            "max_test": MAX_ROWS[TEST],
            "n_compared": N_COMPARED,
            "n_alone": N_ALONE,
        },
    }
    try:
        write_json(values, folder / "canaries.json")
    except OSError as error:
        raise RunError(f"Cannot write '{folder / 'canaries.json'}': {error.strerror}.") from error
    return values


def _sample(
    manifest: Manifest, split: Split, seed: int, config: Config
) -> tuple[Manifest, np.ndarray]:
    """The utterances that canaries use, and their parts in a few folds [n_folds, n_rows].

    Those that speakers are enrolled with have no part, -1.
    """
    parts = split.parts(manifest)
    n_tested = min(MAX_ROWS[TEST], max(1, int((parts == TEST).sum() / len(parts))))
    n_folds = min(len(parts), MAX_FOLDS, -(-ENOUGH_TESTED // n_tested))
    folds = np.linspace(0, len(parts) - 1, n_folds).astype(np.int64)
    by_id = manifest.table["id"].arg_sort().to_numpy()
    rng = np.random.default_rng(seed)
    chosen = np.full((len(folds), len(manifest)), -1)
    for number, fold in enumerate(folds.tolist()):
        for part, limit in MAX_ROWS.items():
            rows = by_id[parts[fold][by_id] == part]
            if len(rows) > limit:
                rows = rng.choice(rows, limit, replace=False)
            chosen[number, rows] = part
    is_kept = (chosen >= 0).any(axis=0)
    enrolment = getattr(config, "enrolment", EnrolmentOptions())
    if enrolment.k:
        is_kept |= Enrolment.draw(manifest, enrolment).is_drawn
    kept = np.flatnonzero(is_kept)
    table = manifest.table[kept.tolist()]
    return Manifest(table, manifest.provenance), chosen[:, kept]


def _unenrolled(pipeline: Pipeline) -> Pipeline:
    """The pipeline without enrolment: an utterance alone has no speaker of whom more is known."""
    if not hasattr(pipeline.config, "enrolment"):
        return pipeline
    config = pipeline.config.model_copy(update={"enrolment": EnrolmentOptions()})
    return replace(pipeline, config=config)


def _at_chance(
    name: str,
    pipeline: Pipeline,
    manifest: Manifest,
    parts: np.ndarray,
    folder: Path,
    seed: int,
    is_within: bool,
) -> Canary:
    """Train on a canary corpus and test."""
    place = {label: number for number, label in enumerate(manifest.labels)}
    y = np.array([place[label] for label in manifest.table["label"]], np.int64)
    rows, predicted = [], []
    for part, probabilities in _trainings(pipeline, manifest, parts, folder / name, seed):
        rows.append(part.test)
        predicted.append(probabilities.argmax(axis=1))
    tested = np.concatenate(rows)
    column = manifest.grouping_column
    clusters = None if column is None else codes(manifest.table[column])[tested]
    return judge_chance(
        name,
        y[tested],
        np.concatenate(predicted),
        clusters,
        is_within=is_within,
        n_labels=len(place),
        crossed=crossed_share(parts),
    )


def _trainings(
    pipeline: Pipeline, manifest: Manifest, parts: np.ndarray, folder: Path, seed: int
) -> Iterator[tuple[Part, np.ndarray]]:
    """The test rows of each fold, and their probabilities."""
    members = [
        Part(
            np.flatnonzero(part == TRAIN),
            np.flatnonzero(part == VAL),
            np.flatnonzero(part == TEST),
            seed,
        )
        for part in parts
    ]
    data = pipeline.system.extract(
        manifest,
        pipeline.config,
        train_rows=np.unique(np.concatenate([member.train for member in members])),
        store_root=pipeline.store_root,
        engine=LocalEngine(pipeline.n_workers),
    )
    work = partial(_Training, pipeline, manifest.labels, data, folder)
    yield from zip(members, iter_map(work, members), strict=True)


class _Training:
    """One training and its test; leaves nothing but the probabilities."""

    def __init__(
        self, pipeline: Pipeline, labels: tuple[str, ...], data: Any, folder: Path
    ) -> None:
        self._pipeline, self._labels, self._data, self._folder = pipeline, labels, data, folder

    def __call__(self, member: Part) -> np.ndarray:
        self._folder.mkdir(parents=True, exist_ok=True)
        system = self._pipeline.system(self._labels, self._pipeline.config)
        with torch_threads(system.n_threads or self._pipeline.n_workers):
            system.fit(self._data, member, resume_file=self._folder / "last.pth")
            for file in self._folder.glob("last*"):
                file.unlink()
            return system.predict_rows(self._data, member.test)


def _invariance(
    pipeline: Pipeline, manifest: Manifest, parts: np.ndarray, trained: System, folder: Path
) -> Canary:
    """Extract the same files in other batches, in another order and one by one."""
    rows = np.flatnonzero((parts == TEST).any(axis=0))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), N_COMPARED)).astype(np.int64)]
    first = _company(pipeline, manifest, rows, trained, folder / "forwards")
    features, probabilities = [], [0.0]
    for batch in (rows[::-1][::2], rows[::-1][1::2]):
        if not len(batch):
            continue
        for row, other in _company(pipeline, manifest, batch, trained, folder / "others").items():
            probabilities.append(_distance(first[row].probabilities, other.probabilities))
            features += [
                _distance(a, b) / max(float(np.abs(a).max()), _TINY)
                for a, b in zip(first[row].held, other.held, strict=True)
            ]
    for row, alone in _alone(manifest, rows[:N_ALONE], trained).items():
        probabilities.append(_distance(first[row].probabilities, alone))
    stored = largest_difference(folder / "forwards", folder / "others")
    if stored is not None:
        features.append(stored)
    return judge_invariance(max(features, default=None), max(probabilities), len(rows))


@dataclass(frozen=True)
class _Utterance:
    """What became of an utterance in some company: features that are not in a store, and more."""

    held: list[np.ndarray]
    probabilities: np.ndarray


def _company(
    pipeline: Pipeline, manifest: Manifest, rows: np.ndarray, trained: System, store_root: Path
) -> dict[int, _Utterance]:
    """Extract and recognise some rows together."""
    part = Manifest(manifest.table[rows.tolist()], manifest.provenance)
    data = pipeline.system.extract(
        part, pipeline.config, train_rows=np.zeros(0, np.int64), store_root=store_root
    )
    found = trained.predict_rows(data, np.arange(len(rows)))
    held = list(_arrays(data, len(rows)))
    return {
        row: _Utterance([array[place] for array in held], found[place])
        for place, row in enumerate(rows.tolist())
    }


def _arrays(data: Any, n_rows: int) -> Iterator[np.ndarray]:
    """Arrays of floats with a row per utterance, wherever a system's data hold them."""
    if isinstance(data, np.ndarray):
        if data.dtype.kind == "f" and data.ndim and len(data) == n_rows and data.size:
            yield data.reshape(n_rows, -1).astype(np.float64)
    elif is_dataclass(data):
        for each in fields(data):
            yield from _arrays(getattr(data, each.name), n_rows)
    elif isinstance(data, Mapping | list | tuple):
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _arrays(value, n_rows)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max())


def _alone(manifest: Manifest, rows: np.ndarray, trained: System) -> dict[int, np.ndarray]:
    found = {}
    for row, clip in zip(rows.tolist(), clips_of(manifest.table[rows.tolist()]), strict=True):
        waveform = load_clip(clip)
        found[row] = trained.predict_waveforms([waveform])[0]
    return found
