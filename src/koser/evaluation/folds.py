"""Scores of a whole experiment: over the folds of a cross-validation, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.intervals import find_groups
from koser.evaluation.scoring import Evaluation, evaluate


@dataclass(frozen=True)
class FoldScore:
    """Scores of one fold.

    Attributes
    ----------
    fold : str
        Name of the fold.
    n_utterances : int
        Number of utterances in it.
    accuracy : float
        Accuracy in [0, 1].
    uar : float or None
        UAR over the labels that the test part as a whole has; None where the fold lacks one
        of them: the UARs of two folds would be over different labels.
    """

    fold: str
    n_utterances: int
    accuracy: float
    uar: float | None


@dataclass(frozen=True, eq=False)
class FoldSummary:
    """Scores of a cross-validation.

    Attributes
    ----------
    pooled : Evaluation
        All folds' predictions scored together. This is the result; averages over folds
        would weigh folds, not utterances, and fail where a fold lacks a label.
    folds : tuple[FoldScore, ...]
        Each fold alone, ordered by name.
    """

    pooled: Evaluation
    folds: tuple[FoldScore, ...]


@dataclass(frozen=True)
class MeanAndSd:
    """Mean and sample standard deviation (n - 1) of `n` values; no sd of one value."""

    mean: float
    sd: float | None
    n: int


def summarise_folds(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    *,
    labels: Sequence[str],
    folds: ArrayLike,
    clusters: ArrayLike | None = None,
    cluster_kind: str | None = None,
) -> FoldSummary:
    """Score a cross-validation: all folds pooled, then each fold alone.

    Parameters
    ----------
    y_true, probabilities, labels, clusters, cluster_kind
        As in `evaluate`, with the rows of all folds.
    folds : array-like [shape=(n_utterances,)]
        Fold in which each utterance was tested.

    Returns
    -------
    FoldSummary
        Pooled evaluation and scores per fold.

    Raises
    ------
    LabelError, UndefinedMetricError
        As `evaluate`; also if an utterance has no fold.
    """
    pooled = evaluate(
        y_true,
        probabilities,
        labels=labels,
        clusters=clusters,
        cluster_kind=cluster_kind,
    )
    references = np.asarray(y_true)
    predicted = np.array(labels)[np.asarray(probabilities).argmax(axis=1)]
    groups = find_groups(folds, n_utterances=len(references), what="fold")
    expected = [label for label in labels if label not in pooled.labels_absent]
    scores = []
    for fold_id, name in enumerate(groups.names):
        rows = groups.ids == fold_id
        of_fold = references[rows], predicted[rows]
        is_complete = set(expected) <= set(of_fold[0].tolist())
        uar = metrics.unweighted_average_recall(*of_fold, labels=expected) if is_complete else None
        scores.append(
            FoldScore(name, int(rows.sum()), metrics.accuracy(*of_fold, labels=labels), uar)
        )
    return FoldSummary(pooled, tuple(scores))


def mean_and_sd(values: Sequence[float]) -> MeanAndSd:
    """Mean and standard deviation of a score over seeds.

    Parameters
    ----------
    values : Sequence[float]
        One score per seed.

    Returns
    -------
    MeanAndSd
        With the sample standard deviation; None for a single value.

    Raises
    ------
    UndefinedMetricError
        If there are no values, or one is not finite.

    Examples
    --------
    >>> mean_and_sd([0.5, 0.7])
    MeanAndSd(mean=0.6, sd=0.141..., n=2)
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise UndefinedMetricError(f"No mean of {list(values)}: finite values are needed.")
    sd = float(array.std(ddof=1)) if array.size > 1 else None
    return MeanAndSd(float(array.mean()), sd, array.size)
