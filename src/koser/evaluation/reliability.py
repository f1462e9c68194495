"""Accuracy by confidence: the data of a reliability diagram.

Bins hold equally many utterances, as those of
`koser.evaluation.calibration.adaptive_calibration_error`, so that no point of the diagram rests on
a handful of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.calibration import checked_probabilities, equal_mass_bins
from koser.evaluation.intervals import Intervals, cluster_intervals, find_groups, sums_per_group
from koser.evaluation.metrics import label_ids
from koser.evaluation.scoring import Score, as_scores

N_BINS = 10  # fewer than an ECE has: each has an interval to show


@dataclass(frozen=True)
class ReliabilityBin:
    """Utterances of similar confidence.

    Attributes
    ----------
    low, high : float
        Lowest and highest confidence in it.
    confidence : float
        Their mean.
    accuracy : Score
        Share of right answers; of calibrated probabilities it is near `confidence`.
    n_answers : int
        Answers in it.
    """

    low: float
    high: float
    confidence: float
    accuracy: Score
    n_answers: int

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """As JSON holds it."""
        return {
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
            "accuracy": self.accuracy.value,
            "ci95": self.accuracy.bounds,
            "n": self.n_answers,
        }


def reliability_bins(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    *,
    labels: Sequence[str],
    clusters: ArrayLike | None = None,
    n_bins: int = N_BINS,
) -> tuple[ReliabilityBin, ...]:
    """Accuracy and mean confidence of the top label, by confidence [1]_.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    probabilities : array-like of float [shape=(n_utterances, n_classes)]
        Predicted probabilities, columns in the order of `labels`.
    labels : Sequence[str]
        All classes of the task.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one; without it there are no intervals.
    n_bins : int > 0
        Number of bins; there are fewer where many confidences are equal.

    Returns
    -------
    tuple[ReliabilityBin, ...]
        From low to high confidence.

    Raises
    ------
    ConfigError
        If `n_bins` is not positive.
    LabelError, UndefinedMetricError
        As `koser.evaluation.calibration.expected_calibration_error`.

    References
    ----------
    .. [1] DeGroot & Fienberg, "The Comparison and Evaluation of Forecasters", The
       Statistician 32(1), 1983.
    """
    if n_bins < 1:
        raise ConfigError(f"n_bins = {n_bins}: a reliability diagram needs at least one bin.")
    true_ids = label_ids(y_true, labels=labels)
    checked = checked_probabilities(probabilities, n_utterances=len(true_ids), labels=labels)
    confidences, is_right = checked.max(axis=1), checked.argmax(axis=1) == true_ids
    filled, bins = np.unique(equal_mass_bins(checked, n_bins=n_bins), return_inverse=True)
    n_filled = len(filled)
    n_answers = np.bincount(bins)
    accuracies = np.bincount(bins, weights=is_right) / n_answers
    intervals: Intervals | None = None
    if clusters is not None:
        ids = find_groups(clusters, n_utterances=len(true_ids), what="cluster").ids
        # Wrong answers in the first half of the columns, right ones in the second.
        cells = sums_per_group(
            ids, bins + n_filled * is_right, n_groups=int(ids.max()) + 1, n_ids=2 * n_filled
        )
        intervals = _intervals(cells)
    scores = as_scores(accuracies, intervals)
    return tuple(
        ReliabilityBin(
            low=float(confidences[bins == place].min()),
            high=float(confidences[bins == place].max()),
            confidence=float(confidences[bins == place].mean()),
            accuracy=scores[place],
            n_answers=int(n_answers[place]),
        )
        for place in range(n_filled)
    )


def _intervals(cells: np.ndarray) -> Intervals | None:
    """Of the share of right answers in each bin; None with a single cluster.

    `cells` [n_clusters, 2 * n_bins] count wrong answers per bin, then right ones.
    """

    def score(sums: np.ndarray) -> np.ndarray:
        wrong, right = np.hsplit(sums, 2)
        with np.errstate(divide="ignore", invalid="ignore"):  # a bin of one cluster, without it
            shares: np.ndarray = right / (right + wrong)
        return shares

    wrong, right = np.hsplit(cells, 2)
    n_answers = wrong + right
    try:
        return cluster_intervals(
            cells, score, weights=n_answers, scales=["share"] * n_answers.shape[1]
        )
    except UndefinedMetricError:
        return None
