"""One experiment on valence and arousal, end to end: `koser regress`.

Its folder is not that of a run on labels: ``dimensions.json`` has the scores and all they rest
on, ``predictions.parquet`` every value, ``split.parquet`` and ``config.toml`` what was run,
``parts/`` a model per training. A training that is there is not repeated. ``SHA256SUMS`` comes
last.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from koser.config import write_toml
from koser.data.manifest import LeftOut, Manifest
from koser.data.sealing import write_table
from koser.data.splits import Split
from koser.engines.local import LocalEngine
from koser.errors import ManifestError, RunError
from koser.evaluation.dimensions import DIMENSIONS, evaluate_values
from koser.experiment.environment import describe_environment
from koser.experiment.folder import held, names_in
from koser.experiment.outputs import kept_files
from koser.experiment.request import TrainRequest
from koser.experiment.taught import hash_taught
from koser.features.extraction import Progress
from koser.features.threads import torch_threads
from koser.files import PARTIAL_SUFFIX, copy_atomically, replacing, write_json
from koser.hashes import SUMS, write_sums
from koser.models.checkpoint import load_tensors, save_tensors
from koser.systems import system_class
from koser.systems.dimensions import DimensionalSystem
from koser.systems.system import Part
from koser.training.regression import ValueLoss

logger = logging.getLogger(__name__)

Json = dict[str, Any]  # Any: what JSON can hold
OnTraining = Callable[[int, int], None]
RESULTS = "dimensions.json"
MARK = "experiment.json"  # written first; says which experiment a folder holds


@dataclass(frozen=True)
class Listeners:
    """Who is told how far it is; all optional."""

    on_clip: Progress | None = None
    on_training: OnTraining | None = None


@dataclass(frozen=True)
class RegressRequest:
    """What is to be tried.

    Attributes
    ----------
    train : TrainRequest
        Model, manifests, split, settings and seeds, as for labels.
    loss : {'ccc', 'mse', 'ccc+mse'}
        What is minimised.
    command : tuple[str, ...]
        The command line, for the record.
    """

    train: TrainRequest
    loss: ValueLoss = "ccc"
    command: tuple[str, ...] = field(default=())


def run_regression(
    request: RegressRequest,
    folder: Path,
    *,
    store_root: Path,
    n_workers: int = 1,
    listeners: Listeners | None = None,
) -> Json:
    """Extract, train, test, score and write everything into `folder`.

    Parameters
    ----------
    request : RegressRequest
        What to try.
    folder : Path
        New, empty, or with trainings of the same request, which are not repeated.
    store_root : Path
        Folder of the feature stores.
    n_workers : int
        Processes of the extraction.
    listeners : Listeners, optional
        Told of progress.

    Returns
    -------
    dict
        The content of ``dimensions.json``.

    Raises
    ------
    ManifestError
        If no utterance has both values.
    KoserError
        If anything asked for is missing, unknown or contradicts itself.
    """
    listeners, train = listeners or Listeners(), request.train
    whole = train.read_manifest()
    manifest = rated_rows(whole)
    experiment = train.resolve_on(manifest, whole=whole)
    DimensionalSystem(train.model, experiment.config)  # a wrong one is refused before the work
    trainings = list(_parts(manifest, experiment.split, experiment.seeds))
    with _claimed(folder, request, experiment.identity()):
        write_toml(experiment.config, folder / "config.toml")
        experiment.split.write(folder / "split.parquet")
        data = system_class(train.model).extract(
            manifest,
            experiment.config,
            train_rows=np.unique(np.concatenate([part.train for _, part in trainings])),
            store_root=store_root,
            engine=LocalEngine(n_workers),
            progress=listeners.on_clip,
        )
        values = manifest.table.select(DIMENSIONS).to_numpy()
        origin = {"split": experiment.split.describe(), "loss": request.loss}
        trainer = _Trainer(request, experiment.config, data, values, folder, origin)
        outcomes = []
        for number, (fold, part) in enumerate(trainings, start=1):
            outcomes.append(trainer(fold, part))
            if listeners.on_training is not None:
                listeners.on_training(number, len(trainings))
        predictions = pl.concat(
            _prediction_table(manifest, values, fold, part, each["predicted"])
            for (fold, part), each in zip(trainings, outcomes, strict=True)
        )
        results = _results(request, manifest, experiment.split, predictions, trainings, outcomes)
        _write(folder, request, predictions, results, outcomes)
    return results


def rated_rows(manifest: Manifest) -> Manifest:
    """The rows that have valence and arousal; the others are left out, and counted.

    Raises
    ------
    ManifestError
        If there is none.
    """
    is_rated = pl.all_horizontal(pl.col(name).is_finite() for name in DIMENSIONS).fill_null(False)
    kept = manifest.table.filter(is_rated)
    if not kept.height:
        raise ManifestError(
            f"None of the {len(manifest)} utterances has valence and arousal. Corpora that keep "
            f"them: kemdy19, kemdy20, kemocon, and table with these columns."
        )
    left_out = tuple(
        LeftOut(name, "no valence or no arousal") for name in manifest.table.filter(~is_rated)["id"]
    )
    provenance = manifest.provenance
    return Manifest(
        kept, replace(provenance, left_out=(*provenance.left_out, *left_out))
    ).validate()


def _parts(manifest: Manifest, split: Split, seeds: tuple[int, ...]) -> Iterator[tuple[int, Part]]:
    row_of = {name: row for row, name in enumerate(manifest.table["id"])}

    def rows(fold: int, part: str) -> np.ndarray:
        return np.sort(np.array([row_of[name] for name in split.ids(fold, part)], np.int64))

    for seed in seeds:
        for fold in range(split.n_folds):
            train, val, test = (rows(fold, part) for part in ("train", "val", "test"))
            yield fold, Part(train, val, test, seed)


@contextmanager
def _claimed(folder: Path, request: RegressRequest, identity: Json) -> Iterator[None]:
    """Make `folder` this experiment's, or refuse one that holds anything else or is in use."""
    values = json.dumps([identity, request.loss], ensure_ascii=False, sort_keys=True)
    fingerprint = hashlib.blake2b(values.encode(), digest_size=16).hexdigest()
    mark = folder / MARK
    with held(folder):
        if mark.is_file():
            if _fingerprint(mark) != fingerprint:
                raise RunError(
                    f"'{folder}' holds another experiment. Give another folder with --out."
                )
        elif any(not name.endswith(PARTIAL_SUFFIX) for name in names_in(folder)):
            raise RunError(f"'{folder}' is not empty. Give another folder with --out.")
        else:
            write_json({"fingerprint": fingerprint, "experiment": identity}, mark)
        yield


def _fingerprint(mark: Path) -> str:
    try:
        return str(json.loads(mark.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"Cannot read which experiment '{mark}' is of: {error!r}. If it is damaged, give "
            f"another folder with --out."
        ) from error


@dataclass(frozen=True)
class _Trainer:
    """What is done for each fold and seed."""

    request: RegressRequest
    config: Any  # of the system's `config_class`
    data: Any  # each system's own
    values: np.ndarray
    folder: Path
    origin: Json

    def __call__(self, fold: int, part: Part) -> Json:
        """Train, predict the test part and keep both; or read what was kept."""
        own = self.folder / "parts" / f"seed{part.seed}-fold{fold:02d}"
        done = own / "outcome.pth"
        described = system_class(self.request.train.model).describe_data(self.data)
        facts = json.dumps(described, sort_keys=True)
        taught = hash_taught(part, self.data, self.values)
        if done.exists():
            kept = load_tensors(done)
            # Older versions kept neither what the features are nor what was taught.
            if (features := kept.pop("features", facts)) != facts:
                raise RunError(
                    f"'{done}' was trained on other features ({features}, now {facts}): the "
                    f"encoder, or how koser computes them, has changed since. Give another folder "
                    f"with --out."
                )
            if kept.pop("taught", taught) != taught:
                raise RunError(
                    f"'{done}' was trained on other values or sound: the manifest has changed "
                    f"since. Give the original one, or another folder with --out."
                )
            return {**kept, "predicted": kept["predicted"].numpy(), "folder": own}
        own.mkdir(parents=True, exist_ok=True)
        system = DimensionalSystem(self.request.train.model, self.config)
        with torch_threads(system.system.n_threads or 1):
            fit = system.fit(self.data, self.values, part, loss=self.request.loss)
            predicted = system.predict_rows(self.data, part.test)
        system.to_checkpoint({**self.origin, "fold": fold, "seed": part.seed}).write(
            own / f"best_model_{self.request.train.model}.pth"
        )
        outcome: Json = {
            "best_epoch": fit.best_epoch,
            "n_epochs": len(fit.history),
            "best_val_ccc": fit.best.val_ccc,
            "train_mean": self.values[part.train].mean(axis=0).tolist(),
        }
        told = {"features": facts, "taught": taught}
        save_tensors({**outcome, **told, "predicted": torch.from_numpy(predicted.copy())}, done)
        return {**outcome, "predicted": predicted, "folder": own}


def _prediction_table(
    manifest: Manifest, values: np.ndarray, fold: int, part: Part, predicted: np.ndarray
) -> pl.DataFrame:
    column = manifest.grouping_column
    cluster = pl.lit(None, pl.String) if column is None else pl.col(column)
    tested: pl.DataFrame = manifest.table[part.test.tolist()]
    return tested.select(
        pl.lit(part.seed, pl.Int64).alias("seed"),
        pl.lit(fold, pl.Int32).alias("fold"),
        "id",
        cluster.alias("cluster"),
        "corpus",
        *(pl.Series(name, values[part.test, place]) for place, name in enumerate(DIMENSIONS)),
        *(
            pl.Series(f"predicted_{name}", predicted[:, place])
            for place, name in enumerate(DIMENSIONS)
        ),
    )


def _results(
    request: RegressRequest,
    manifest: Manifest,
    split: Split,
    predictions: pl.DataFrame,
    trainings: list[tuple[int, Part]],
    outcomes: list[Json],
) -> Json:
    corpora = predictions["corpus"].unique().sort().to_list()
    return {
        "model": request.train.model,
        "loss": request.loss,
        "dimensions": _scores(predictions),
        # Of a system that always answers the train part's mean: its CCC is near 0 by definition.
        "rmse_of_mean": _rmse_of_mean(predictions, trainings, outcomes),
        "corpora": {name: _scores(predictions.filter(corpus=name)) for name in corpora}
        if len(corpora) > 1
        else {},
        "n": predictions["id"].n_unique(),
        "n_speakers": predictions["cluster"].drop_nulls().n_unique() or None,
        "cluster_kind": manifest.provenance.grouping,
        "seeds": sorted({part.seed for _, part in trainings}),
        "protocol": split.describe(),
        "leaks": {leak.kind: leak.describe() for leak in split.leakage(manifest)},
        "left_out": manifest.provenance.left_out_by_reason(),
        "folds": [
            {"fold": fold, "seed": part.seed, "n_train": len(part.train), "n_test": len(part.test)}
            | {key: each[key] for key in ("best_epoch", "n_epochs", "best_val_ccc")}
            for (fold, part), each in zip(trainings, outcomes, strict=True)
        ],
        "is_synthetic": manifest.provenance.is_synthetic,
        "command": list(request.command),
        "environment": describe_environment(),
    }


def _scores(predictions: pl.DataFrame) -> Json:
    """Every dimension's scores; several seeds count an utterance once each."""
    clusters = None if predictions["cluster"].null_count() else predictions["cluster"].to_numpy()
    return {
        name: evaluate_values(
            predictions[name].to_numpy(),
            predictions[f"predicted_{name}"].to_numpy(),
            clusters=clusters,
        ).to_dict()
        for name in DIMENSIONS
    }


def _rmse_of_mean(
    predictions: pl.DataFrame, trainings: list[tuple[int, Part]], outcomes: list[Json]
) -> dict[str, float]:
    n_tested = [len(part.test) for _, part in trainings]
    means = np.repeat([each["train_mean"] for each in outcomes], n_tested, axis=0)
    errors = predictions.select(DIMENSIONS).to_numpy() - means
    found = np.sqrt(np.mean(errors**2, axis=0))
    return dict(zip(DIMENSIONS, found.tolist(), strict=True))


def _write(
    folder: Path,
    request: RegressRequest,
    predictions: pl.DataFrame,
    results: Json,
    outcomes: list[Json],
) -> None:
    (folder / SUMS).unlink(missing_ok=True)  # what they vouch for is written anew
    with replacing(folder / "predictions.parquet") as partial:
        write_table(predictions, partial)
    # Best on its val part, never on test; without one, the first.
    best = max(outcomes, key=lambda each: each["best_val_ccc"] or 0.0)
    name = f"best_model_{request.train.model}.pth"
    copy_atomically(best["folder"] / name, folder / name)
    write_json(results, folder / RESULTS)
    write_sums(folder, kept_files(folder))
