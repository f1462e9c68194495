"""How close predicted valence and arousal come to the raters' values.

Conventions
-----------
`y_true` and `y_pred` are values of one dimension, in its own units, in the same order.

Metrics
-------
``ccc``: Lin's concordance correlation coefficient [1]_: 1 only where values are equal, 0 for a
constant answer; unlike ``pearson`` it counts a shift and a wrong scale.
``pearson``: Pearson's correlation.
``rmse``: root of the mean squared error, in units of the dimension.

References
----------
.. [1] Lin, "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45(1),
   1989.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation.intervals import Intervals, Scale, cluster_intervals, find_groups
from koser.evaluation.noting import MIN_CLUSTERS, flat_notes
from koser.evaluation.scoring import Score, as_scores

DIMENSIONS = ("valence", "arousal")
SCORE_NAMES = ("ccc", "pearson", "rmse")
_TITLES = ("CCC", "Pearson", "RMSE")  # in a sentence
_SCALES: tuple[Scale, ...] = ("difference", "difference", "loss")


@dataclass(frozen=True, eq=False)
class ValueScores:
    """How good values are.

    Attributes
    ----------
    scores : dict[str, Score]
        ``ccc``, ``pearson`` and ``rmse``; None where one is undefined.
    n_values : int
        Values scored.
    n_clusters : int or None
        None where clusters are unknown.
    notes : tuple[str, ...]
        What belongs beside the numbers.
    """

    scores: dict[str, Score]
    n_values: int
    n_clusters: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """The scores, and their intervals under ``ci95``."""
        return {
            **{name: score.value for name, score in self.scores.items()},
            "ci95": {name: score.bounds for name, score in self.scores.items()},
            "n": self.n_values,
            "n_speakers": self.n_clusters,
            "notes": list(self.notes),
        }


def concordance_correlation(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Lin's concordance correlation coefficient, in [-1, 1].

    Raises
    ------
    UndefinedMetricError
        If there are fewer than two values, one is not finite, or all are one and the same.

    Examples
    --------
    >>> round(concordance_correlation([0, 1, 2], [0, 1, 1]), 4)
    0.6667
    """
    score = evaluate_values(y_true, y_pred).scores["ccc"].value
    if score is None:
        raise UndefinedMetricError("CCC is undefined: every value is the same.")
    return score


def evaluate_values(
    y_true: ArrayLike, y_pred: ArrayLike, *, clusters: ArrayLike | None = None
) -> ValueScores:
    """Score values of one dimension.

    Parameters
    ----------
    y_true, y_pred : array-like of float [shape=(n_utterances,)]
        What the raters said, and the system.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one; without it there are no intervals.

    Returns
    -------
    ValueScores
        With 95 % intervals over clusters.

    Raises
    ------
    UndefinedMetricError
        If shapes differ, there are fewer than two values, or one is not finite.
    """
    true, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if true.ndim != 1 or true.shape != predicted.shape or len(true) < 2:
        raise UndefinedMetricError(
            f"`y_true` has shape {true.shape} and `y_pred` {predicted.shape}: one value of each "
            f"is needed for every utterance, of two at least."
        )
    n_bad = int((~np.isfinite(true) | ~np.isfinite(predicted)).sum())
    if n_bad:
        raise UndefinedMetricError(f"{n_bad} of {len(true)} values are not finite.")
    # Moments about a common centre: the sums of clusters then lose no digits.
    true, predicted = true - true.mean(), predicted - true.mean()
    columns = (np.ones(len(true)), true, predicted, true**2, predicted**2, true * predicted)
    moments = np.column_stack(columns)
    intervals, n_clusters, notes = _intervals(moments, clusters)
    values = _scores(moments.sum(axis=0, keepdims=True))[0]
    scores = [
        score if np.isfinite(value) else Score(None)
        for score, value in zip(as_scores(values, intervals), values.tolist(), strict=True)
    ]
    return ValueScores(
        dict(zip(SCORE_NAMES, scores, strict=True)), len(true), n_clusters, tuple(notes)
    )


def _intervals(
    moments: np.ndarray, clusters: ArrayLike | None
) -> tuple[Intervals | None, int | None, list[str]]:
    if clusters is None:
        return None, None, ["No intervals: the speakers are unknown."]
    groups = find_groups(clusters, n_utterances=len(moments), what="cluster")
    n_clusters = len(groups.names)
    if n_clusters < 2:
        return None, n_clusters, ["No intervals: all utterances are of one cluster."]
    sums = np.zeros((n_clusters, moments.shape[1]))
    np.add.at(sums, groups.ids, moments)
    notes = [f"Only {n_clusters} clusters: the intervals are wide."] * (n_clusters < MIN_CLUSTERS)
    intervals = cluster_intervals(sums, _scores, weights=sums[:, [0, 0, 0]], scales=_SCALES)
    return intervals, n_clusters, [*notes, *flat_notes(intervals, _TITLES, None)]


def _scores(sums: np.ndarray) -> np.ndarray:
    """`SCORE_NAMES` of summed moments [n, 3]; NaN where undefined."""
    n = sums[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        true, predicted, true_2, predicted_2, product = (sums[:, 1:] / n[:, None]).T
        variance_true = np.maximum(true_2 - true**2, 0.0)
        variance_predicted = np.maximum(predicted_2 - predicted**2, 0.0)
        covariance = product - true * predicted
        gap = (true - predicted) ** 2
        ccc = 2 * covariance / (variance_true + variance_predicted + gap)
        pearson = covariance / np.sqrt(variance_true * variance_predicted)
        rmse = np.sqrt(np.maximum(true_2 + predicted_2 - 2 * product, 0.0))
    return np.column_stack([ccc, pearson, rmse])
