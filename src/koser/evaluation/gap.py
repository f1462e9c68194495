"""The gap between two protocols: how much of a score the split alone gives away.

The same system on the same corpus scores higher where its test speakers were heard in
training. Both test parts come from one population of speakers and often share some, so
the two scores are not independent. Resampled are therefore whole speakers, once for both
sides: a drawn speaker brings all of its test utterances of either side, and what it
shifts on both is not mistaken for a gap.

The score of a side is a function of its confusion counts per speaker, so the gap is one
of the counts of both, side by side, and `koser.evaluation.intervals` resamples them as
those of a single result. How many speakers a resample has on each side varies with it,
as it would in another corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.intervals import (
    Groups,
    bootstrap_intervals,
    find_groups,
    sums_per_group,
)
from koser.evaluation.scoring import Score, interval_notes

SCORE_NAMES = ("uar", "accuracy")


@dataclass(frozen=True, eq=False)
class Side:
    """The tested utterances of one protocol.

    Attributes
    ----------
    name : str
        What the side is called, such as its protocol.
    y_true, y_pred : array-like of str [shape=(n_utterances,)]
        Reference and predicted label. With several seeds, an utterance counts once per
        seed, as in every score of koser.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one, named alike on both sides.
    """

    name: str
    y_true: ArrayLike
    y_pred: ArrayLike
    clusters: ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Gap:
    """Scores of the first side minus those of the second.

    Attributes
    ----------
    first, second : str
        Names of the sides.
    scores : dict[str, Score]
        ``uar`` and ``accuracy``: differences in [-1, 1] with their 95 % intervals.
    labels_scored : tuple[str, ...]
        Those that the UAR is taken over: the ones with reference utterances on both sides.
    n_clusters : int or None
        Clusters on either side; None where they are unknown.
    n_shared_clusters : int or None
        Those on both.
    cluster_kind : str or None
        What a cluster is, such as ``"speaker"``.
    n_resamples : int
        Resamples behind each interval; 0 where there are no intervals.
    notes : tuple[str, ...]
        What belongs beside the numbers, one sentence each.
    """

    first: str
    second: str
    scores: dict[str, Score]
    labels_scored: tuple[str, ...]
    n_clusters: int | None
    n_shared_clusters: int | None
    cluster_kind: str | None
    n_resamples: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """The form of ``gap.json``: flat names, and the intervals under ``ci95``."""
        return {
            "first": self.first,
            "second": self.second,
            **{name: score.value for name, score in self.scores.items()},
            "ci95": {name: score.bounds for name, score in self.scores.items()},
            "labels_scored": list(self.labels_scored),
            "n_speakers": self.n_clusters,
            "n_shared_speakers": self.n_shared_clusters,
            "cluster_kind": self.cluster_kind,
            "n_resamples": self.n_resamples,
            "notes": list(self.notes),
        }


def evaluate_gap(
    first: Side,
    second: Side,
    *,
    labels: Sequence[str],
    cluster_kind: str | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Gap:
    """Score `first` minus `second`, with intervals that resample speakers jointly.

    UAR is taken over the labels that have reference utterances on both sides: otherwise
    part of the gap would be one between labels. A note says where it therefore differs
    from the two sides' own UARs.

    Parameters
    ----------
    first, second : Side
        Usually the result under ``random``, and that under ``speaker``.
    labels : Sequence[str]
        All classes of the task.
    cluster_kind : str, optional
        What a cluster is.
    n_resamples : int > 0
        Bootstrap resamples.
    seed : int
        The same seed on the same rows, in any order, gives the same intervals.

    Returns
    -------
    Gap
        Without intervals where a side has no clusters, or too few.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` repeats one.
    ConfigError
        If `n_resamples` is not positive.
    UndefinedMetricError
        If lengths differ, an utterance has no cluster, or no label is on both sides.

    Examples
    --------
    >>> first = Side("random", ["angry", "neutral"], ["angry", "neutral"])
    >>> second = Side("speaker", ["angry", "neutral"], ["angry", "angry"])
    >>> evaluate_gap(first, second, labels=["angry", "neutral"]).scores["uar"].value
    0.5
    """
    sides = (first, second)
    cells = [_cells(side, labels) for side in sides]
    groups = _joint_groups(sides)
    sums = _sums_per_cluster(cells, groups, n_cells=len(labels) * (len(labels) + 1))
    total = sums.sum(axis=0)
    is_present = total.reshape(2, len(labels), -1).sum(axis=2) > 0
    is_common = is_present.all(axis=0)
    if not is_common.any():
        raise UndefinedMetricError(
            f"No label has test utterances on both sides, '{first.name}' and '{second.name}', "
            f"so there is no UAR to compare."
        )

    def difference(resampled: np.ndarray) -> np.ndarray:
        return _differences(resampled, is_common)

    scores = [Score(value) for value in difference(total[np.newaxis])[0].tolist()]
    notes = _absence_notes(sides, labels, is_present)
    has_intervals = False
    if groups is None:
        notes.append("No intervals: the speakers are unknown.")
    else:
        try:
            intervals = bootstrap_intervals(sums, difference, n_resamples=n_resamples, seed=seed)
        except UndefinedMetricError as error:
            notes.append(f"No intervals: {error}.")
        else:
            has_intervals = True
            bounds = zip(scores, intervals.low.tolist(), intervals.high.tolist(), strict=True)
            scores = [Score(score.value, low, high) for score, low, high in bounds]
            smaller = min(len(side.names) for side in groups)
            notes += interval_notes(intervals, smaller, cluster_kind, n_resamples)
    return Gap(
        first=first.name,
        second=second.name,
        scores=dict(zip(SCORE_NAMES, scores, strict=True)),
        labels_scored=tuple(np.array(labels)[is_common].tolist()),
        n_clusters=len(sums) if groups else None,
        n_shared_clusters=len(set(groups[0].names) & set(groups[1].names)) if groups else None,
        cluster_kind=cluster_kind,
        n_resamples=n_resamples if has_intervals else 0,
        notes=tuple(notes),
    )


def _cells(side: Side, labels: Sequence[str]) -> np.ndarray:
    """Cell of each utterance in a confusion matrix (n_classes, n_classes + 1), row by row.

    The last column counts predictions outside `labels`.
    """
    true_ids = metrics.label_ids(side.y_true, labels=labels)
    columns = metrics.predicted_ids(side.y_pred, labels=labels, n_utterances=len(true_ids))
    cells: np.ndarray = true_ids * (len(labels) + 1) + columns
    return cells


def _joint_groups(sides: tuple[Side, Side]) -> list[Groups] | None:
    """The clusters of each side, numbered alike on both; None if a side has none."""
    groups = []
    for side in sides:
        if side.clusters is None:
            return None
        n_utterances = len(np.asarray(side.y_true))
        groups.append(find_groups(side.clusters, n_utterances=n_utterances, what="cluster"))
    names = np.unique(np.concatenate([each.names for each in groups]))
    return [Groups(each.names, names.searchsorted(each.names)[each.ids]) for each in groups]


def _sums_per_cluster(
    cells: list[np.ndarray], groups: list[Groups] | None, *, n_cells: int
) -> np.ndarray:
    """Confusion counts of both sides, side by side [n_clusters, 2 * n_cells]."""
    of_side = [each.ids for each in groups] if groups else [np.zeros_like(each) for each in cells]
    n_clusters = 1 + max(int(ids.max()) for ids in of_side)
    return np.hstack(
        [
            sums_per_group(ids, each, n_groups=n_clusters, n_ids=n_cells)
            for ids, each in zip(of_side, cells, strict=True)
        ]
    )


def _differences(sums: np.ndarray, is_common: np.ndarray) -> np.ndarray:
    """`SCORE_NAMES`, first side minus second [n, 2]; NaN where a label or a side is missing."""
    confusion = sums.reshape(len(sums), 2, len(is_common), -1)
    uar = metrics.recalls_from_confusion(confusion)[..., is_common].mean(axis=-1)
    accuracy = metrics.accuracy_from_confusion(confusion)
    return np.column_stack([each[:, 0] - each[:, 1] for each in (uar, accuracy)])


def _absence_notes(
    sides: tuple[Side, Side], labels: Sequence[str], is_present: np.ndarray
) -> list[str]:
    n_common = int(is_present.all(axis=0).sum())
    if n_common == len(labels):
        return []
    absent = []
    for side, present in zip(sides, is_present, strict=True):
        missing = " or ".join(f"'{labels[place]}'" for place in np.flatnonzero(~present).tolist())
        if missing:
            absent.append(f"no test utterance of '{side.name}' is {missing}")
    note = f"UAR over {n_common} of {len(labels)} labels: {', '.join(absent)}"
    if (is_present[0] != is_present[1]).any():
        note += ". It is not the difference of the two UARs, which are over other labels"
    return [f"{note}."]
