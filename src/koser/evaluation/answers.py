"""Scores of labels alone, where there are no probabilities: subgroups, raters.

The rules are those of `koser.evaluation.scoring`: UAR over the labels that have reference
utterances, intervals over clusters, and a note on whatever a reader must know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.intervals import (
    Intervals,
    balanced_weights,
    cluster_intervals,
    find_groups,
    sums_per_group,
)
from koser.evaluation.noting import flat_notes, interval_notes
from koser.evaluation.scoring import Score, as_scores

SCORE_NAMES = ("uar", "accuracy")


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """How good labels are.

    Attributes
    ----------
    scores : dict[str, Score]
        ``uar`` and ``accuracy``.
    labels_absent : tuple[str, ...]
        Labels without reference utterances, left out of the UAR.
    n_answers : int
        Answers scored.
    n_clusters : int or None
        None where clusters are unknown.
    notes : tuple[str, ...]
        What belongs beside the numbers.
    """

    scores: dict[str, Score]
    labels_absent: tuple[str, ...]
    n_answers: int
    n_clusters: int | None
    notes: tuple[str, ...]


def score_answers(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    labels: Sequence[str],
    clusters: ArrayLike | None = None,
    cluster_kind: str | None = None,
) -> AnswerScores:
    """Score labels against reference labels.

    Parameters
    ----------
    y_true, y_pred : array-like of str [shape=(n_answers,)]
        Reference and answer; one outside `labels` is wrong.
    labels : Sequence[str]
        All classes of the task.
    clusters : array-like [shape=(n_answers,)], optional
        Speaker, or what stands for one. Without it there are no intervals.
    cluster_kind : str, optional
        What a cluster is.

    Returns
    -------
    AnswerScores
        Without intervals where there are fewer than two clusters; a note says so.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`.
    UndefinedMetricError
        If lengths differ, there is no answer, or one has no cluster.
    """
    true_ids = metrics.label_ids(y_true, labels=labels)
    columns = metrics.predicted_ids(y_pred, labels=labels, n_utterances=len(true_ids))
    n_classes, n_columns = len(labels), len(labels) + 1
    group_ids, n_clusters = np.zeros_like(true_ids), None
    if clusters is not None:
        groups = find_groups(clusters, n_utterances=len(true_ids), what="cluster")
        group_ids, n_clusters = groups.ids, len(groups.names)
    sums = sums_per_group(
        group_ids,
        true_ids * n_columns + columns,
        n_groups=n_clusters or 1,
        n_ids=n_classes * n_columns,
    )
    n_true = sums.reshape(-1, n_classes, n_columns).sum(axis=2)
    is_present = n_true.sum(axis=0) > 0

    def score(some_sums: np.ndarray) -> np.ndarray:
        confusion = some_sums.reshape(-1, n_classes, n_columns)
        recalls = metrics.recalls_from_confusion(confusion)[:, is_present]
        return np.column_stack([recalls.mean(axis=1), metrics.accuracy_from_confusion(confusion)])

    intervals: Intervals | None = None
    notes: list[str] = []
    if n_clusters is not None:
        weights = np.column_stack([balanced_weights(n_true[:, is_present]), n_true.sum(axis=1)])
        try:
            intervals = cluster_intervals(sums, score, weights=weights, scales=["share", "share"])
        except UndefinedMetricError as error:
            notes.append(f"No intervals: {error}.")
        else:
            n_with_label = (n_true > 0).sum(axis=0)
            notes += interval_notes(n_clusters, n_with_label, labels, cluster_kind)
            notes += flat_notes(intervals, ("UAR", "accuracy"), cluster_kind)
    values = score(sums.sum(axis=0, keepdims=True))[0]
    return AnswerScores(
        scores=dict(zip(SCORE_NAMES, as_scores(values, intervals), strict=True)),
        labels_absent=tuple(np.array(labels)[~is_present].tolist()),
        n_answers=len(true_ids),
        n_clusters=n_clusters,
        notes=tuple(notes),
    )
