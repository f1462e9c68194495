"""What an experiment came to: predictions, scores, and the document's results file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.evaluation.calibration import apply_temperature
from koser.evaluation.folds import FoldScore, mean_and_sd, summarise_folds
from koser.evaluation.scoring import Evaluation, evaluate, majority_accuracy
from koser.experiment.against_votes import train_prior
from koser.experiment.analysis import Chosen, Tested, analyse
from koser.experiment.members import Outcome

PROBABILITY_PREFIX = "p_"


@dataclass(frozen=True, eq=False)
class Results:
    """Scores of an experiment with everything they rest on.

    Attributes
    ----------
    predictions : pl.DataFrame
        One row per tested utterance and seed: ``seed, fold, id``, what stands for its speaker
        (``cluster``, null where nothing does), ``path, start, end, duration, label,
        predicted`` and one probability per label, ``p_<label>``, after the temperature.
    evaluation : Evaluation
        Over all rows. With several seeds every utterance counts once per seed, so a
        value is the mean over seeds, and the interval is still over speakers.
    per_seed : dict[int, Evaluation]
        The same for each seed alone, without intervals.
    folds : dict[str, FoldScore]
        Scores of each training's test part alone, by the member's name.
    majority_accuracy : float
        Accuracy of always answering the most frequent label of the train part.
    outcomes : tuple[Outcome, ...]
        The trainings.
    features : dict
        What the system says of the features beside its configuration, as JSON values.
    analysis : dict
        What `koser.experiment.analysis.analyse` returned.
    """

    predictions: pl.DataFrame
    evaluation: Evaluation
    per_seed: dict[int, Evaluation]
    folds: dict[str, FoldScore]
    majority_accuracy: float
    outcomes: tuple[Outcome, ...]
    features: dict[str, Any]
    analysis: dict[str, Any]

    @property
    def chosen(self) -> Outcome:
        """The training whose model is kept: best on its val part, never on test."""
        return max(self.outcomes, key=lambda outcome: _or_zero(outcome.fit.best.val_uar))

    @property
    def best_val_accuracy(self) -> float | None:
        """Mean over trainings of the val accuracy at the chosen epoch, in [0, 1]."""
        values = [outcome.fit.best.val_accuracy for outcome in self.outcomes]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    @property
    def n_utterances(self) -> int:
        """Distinct utterances tested."""
        return int(self.predictions["id"].n_unique())


def collect(
    manifest: Manifest, outcomes: list[Outcome], *, features: dict[str, Any] | None = None
) -> Results:
    """Put the members' predictions together and score them.

    Parameters
    ----------
    manifest : Manifest
        The utterances; members refer to its rows.
    outcomes : list[Outcome]
        One per fold and seed.
    features : dict, optional
        What the system's `describe_data` returned.
    """
    calibrated = [
        apply_temperature(each.probabilities, each.val.temperature.value) for each in outcomes
    ]
    tables = [
        prediction_table(
            manifest,
            probabilities,
            rows=outcome.member.part.test,
            seed=outcome.member.part.seed,
            fold=outcome.member.fold,
        )
        for outcome, probabilities in zip(outcomes, calibrated, strict=True)
    ]
    predictions = pl.concat(tables)
    clusters = clusters_of(manifest, predictions)
    y_true = predictions["label"].to_numpy()
    probabilities = np.concatenate(calibrated)
    names = np.repeat(
        [outcome.member.name for outcome in outcomes], [table.height for table in tables]
    )
    summary = summarise_folds(
        y_true,
        probabilities,
        labels=manifest.labels,
        folds=names,
        clusters=clusters,
        cluster_kind=manifest.provenance.grouping,
    )
    seeds = predictions["seed"].to_numpy()
    raw = np.concatenate([outcome.probabilities for outcome in outcomes])
    parts = [outcome.member.part for outcome in outcomes]
    tested = Tested(
        manifest,
        predictions,
        raw,
        probabilities,
        clusters,
        [
            Chosen(each.val.temperature, each.val.thresholds, len(each.member.part.test))
            for each in outcomes
        ],
        prior=train_prior(manifest, [(part.train, len(part.test)) for part in parts]),
    )
    return Results(
        predictions=predictions,
        evaluation=summary.pooled,
        per_seed={
            int(seed): evaluate(
                y_true[seeds == seed], probabilities[seeds == seed], labels=manifest.labels
            )
            for seed in np.unique(seeds)
        },
        folds={score.fold: score for score in summary.folds},
        majority_accuracy=_majority_accuracy(manifest, outcomes),
        outcomes=tuple(outcomes),
        features=features or {},
        analysis=analyse(tested, summary.pooled),
    )


def prediction_table(
    manifest: Manifest,
    probabilities: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    seed: int,
    fold: int = 0,
) -> pl.DataFrame:
    """What a model said of tested utterances; the columns are those of `Results.predictions`.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    probabilities : np.ndarray [shape=(n_tested, n_labels)]
        Of the tested ones, after the temperature.
    rows : np.ndarray [shape=(n_tested,)], optional
        Which ones were tested; all if not given.
    seed, fold : int
        Of the training.
    """
    column = manifest.grouping_column
    cluster = pl.lit(None, pl.String) if column is None else pl.col(column)
    tested = manifest.table if rows is None else manifest.table[rows.tolist()]
    return tested.select(
        pl.lit(seed, pl.Int64).alias("seed"),
        pl.lit(fold, pl.Int32).alias("fold"),
        "id",
        cluster.alias("cluster"),
        *("path", "start", "end", "channel", "duration", "label"),
        pl.Series("predicted", [manifest.labels[best] for best in probabilities.argmax(axis=1)]),
        *(
            pl.Series(f"{PROBABILITY_PREFIX}{label}", probabilities[:, place])
            for place, label in enumerate(manifest.labels)
        ),
    )


def metrics_json(results: Results, manifest: Manifest, split: Split) -> dict[str, Any]:
    """The content of ``metrics.json``: every score with what it rests on."""
    per_seed = results.per_seed.values()
    notes = list(results.evaluation.notes)
    if len(per_seed) > 1:
        notes.append(
            f"Counts are over {len(per_seed)} seeds: each of the {results.n_utterances} utterances "
            f"was tested {len(per_seed)} times."
        )
    leaks = split.leakage(manifest)
    return {
        **results.evaluation.to_dict(),
        "notes": notes,
        "n": results.n_utterances,
        "majority_accuracy": results.majority_accuracy,
        "best_val_accuracy": results.best_val_accuracy,
        "seeds": sorted(results.per_seed),
        "over_seeds": {
            name: _mean_and_sd([each.scores[name].value for each in per_seed])
            for name in ("accuracy", "uar", "macro_f1")
        },
        "over_folds": _over_folds(results),
        "folds": [_fold_json(results, outcome) for outcome in results.outcomes],
        "protocol": split.describe(),
        "shared": {f"{leak.kind}s": leak.describe() for leak in leaks},
        "leaks": [asdict(leak) for leak in leaks],
        **results.analysis,
        "features": results.features,
        "is_synthetic": manifest.provenance.is_synthetic,
    }


def document_json(model: str, results: Results, manifest: Manifest, split: Split) -> dict[str, Any]:
    """The document's keys of ``results_<model>_<split>.json``; its accuracies are in percent."""
    scores = results.evaluation.scores
    parts = [outcome.member.part for outcome in results.outcomes]
    best_val = results.best_val_accuracy
    return {
        "model": model,
        "split": split.protocol,
        "test_accuracy": _percent(scores["accuracy"].value),
        "test_loss": scores["nll"].value,
        "best_val_accuracy": None if best_val is None else _percent(best_val),
        "num_classes": len(manifest.labels),
        "emotion_mapping": {label: place for place, label in enumerate(manifest.labels)},
        # Over several folds: the mean size of a fold's part, and all that was tested.
        "num_train": round(np.mean([len(part.train) for part in parts])),
        "num_val": round(np.mean([len(part.val) for part in parts])),
        "num_test": results.n_utterances,
    }


def clusters_of(manifest: Manifest, predictions: pl.DataFrame) -> np.ndarray | None:
    """What stands for the speaker of each row of `predictions`; None where nothing does.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    predictions : pl.DataFrame
        With their ids in the column ``id``.
    """
    column = manifest.grouping_column
    if column is None:
        return None
    of_id = manifest.table.select("id", column)
    joined = predictions.join(of_id, on="id", how="left", maintain_order="left")
    return joined[column].to_numpy()


def _majority_accuracy(manifest: Manifest, outcomes: list[Outcome]) -> float:
    y = manifest.table["label"].to_numpy()
    parts = [outcome.member.part for outcome in outcomes]
    n_tested = [len(part.test) for part in parts]
    accuracies = [majority_accuracy(y[part.train], y[part.test]) for part in parts]
    return float(np.average(accuracies, weights=n_tested))


def _fold_json(results: Results, outcome: Outcome) -> dict[str, Any]:
    part, fit = outcome.member.part, outcome.fit
    score = results.folds[outcome.member.name]
    return {
        "fold": outcome.member.fold,
        "seed": part.seed,
        "n_train": len(part.train),
        "n_val": len(part.val),
        "n_test": len(part.test),
        "accuracy": score.accuracy,
        "uar": score.uar,
        "temperature": outcome.val.temperature.value,
        "best_epoch": fit.best_epoch,
        "n_epochs": len(fit.history),
        "best_val_uar": fit.best.val_uar,
        "train_seconds": outcome.train_seconds,
    }


def _over_folds(results: Results) -> dict[str, Any]:
    """Mean and deviation over folds, a fold's score being its mean over seeds.

    A fold that lacks a label has no UAR; the UAR's mean is over the others, ``n`` of them.
    """
    over: dict[str, Any] = {"n_folds": len({each.member.fold for each in results.outcomes})}
    for name in ("accuracy", "uar"):
        of_fold: dict[int, list[float]] = {}
        for outcome in results.outcomes:
            value = getattr(results.folds[outcome.member.name], name)
            if value is not None:
                of_fold.setdefault(outcome.member.fold, []).append(value)
        means = [float(np.mean(values)) for values in of_fold.values()]
        over[name] = asdict(mean_and_sd(means)) if means else None
    return over


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100.0 * share, 4)


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


def _mean_and_sd(values: list[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    over_seeds = mean_and_sd(known)
    return {"mean": over_seeds.mean, "sd": over_seeds.sd}
