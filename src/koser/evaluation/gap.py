"""The gap between two protocols: how much of a score the split alone gives away.

The same system on the same corpus scores higher where its test speakers were heard in
training. Both test parts come from one population of speakers and often share some, so
the two scores are not independent. The units of evidence are therefore whole speakers, for both
sides at once: with a speaker go all of its test utterances of either side, and what it
shifts on both is not mistaken for a gap.

The score of a side is a function of its confusion counts per speaker, so the gap is one
of the counts of both, side by side, and `koser.evaluation.intervals` takes them as those
of a single result. The interval is as wide as the side with fewer speakers makes it.
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
    CONFIDENCE,
    Groups,
    Intervals,
    Scale,
    balanced_weights,
    cluster_intervals,
    effective_number,
    find_groups,
    sums_per_group,
)
from koser.evaluation.noting import flat_notes, interval_notes
from koser.evaluation.scoring import (
    INTERVAL_METHOD,
    Score,
    as_scores,
)

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
    interval_method : str or None
        How intervals were made; None where there are none.
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
    interval_method: str | None
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
            "interval_method": self.interval_method,
            "notes": list(self.notes),
        }


def evaluate_gap(
    first: Side,
    second: Side,
    *,
    labels: Sequence[str],
    cluster_kind: str | None = None,
    confidence: float = CONFIDENCE,
) -> Gap:
    """Score `first` minus `second`, with intervals over the speakers of both.

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
    confidence : float
        Of the intervals; more than 95 % where one gap was chosen from several.

    Returns
    -------
    Gap
        Without intervals where a side has no clusters, or too few.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` repeats one.
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

    common = tuple(np.array(labels)[is_common].tolist())

    def difference(some_sums: np.ndarray) -> np.ndarray:
        return _differences(some_sums, is_common)

    notes = _absence_notes(sides, labels, is_present)
    intervals: Intervals | None = None
    if groups is None:
        notes.append("No intervals: the speakers are unknown.")
    else:
        n_true = sums.reshape(len(sums), 2, len(labels), -1).sum(axis=3)[..., is_common]
        scales: list[Scale] = ["difference"] * len(SCORE_NAMES)
        try:
            intervals = cluster_intervals(
                sums,
                difference,
                weights=_weights(n_true),
                scales=scales,
                confidence=confidence,
            )
        except UndefinedMetricError as error:
            notes.append(f"No intervals: {error}.")
        else:
            smaller = min(len(side.names) for side in groups)
            n_with_label = (n_true > 0).sum(axis=0).min(axis=0)
            notes += interval_notes(smaller, n_with_label, common, cluster_kind)
            notes += flat_notes(intervals, ("UAR", "accuracy"), cluster_kind)
    values = difference(total[np.newaxis])[0]
    return Gap(
        first=first.name,
        second=second.name,
        scores=dict(zip(SCORE_NAMES, as_scores(values, intervals), strict=True)),
        labels_scored=common,
        n_clusters=len(sums) if groups else None,
        n_shared_clusters=len(set(groups[0].names) & set(groups[1].names)) if groups else None,
        cluster_kind=cluster_kind,
        interval_method=None if intervals is None else INTERVAL_METHOD,
        notes=tuple(notes),
    )


def _weights(n_true: np.ndarray) -> np.ndarray:
    """Weight of each cluster in `SCORE_NAMES` [n_clusters, 2], on the side that has fewer.

    `n_true` [n_clusters, 2, n_common] are the reference utterances of both sides.
    """
    balanced = np.column_stack([balanced_weights(n_true[:, side]) for side in (0, 1)])
    both = np.stack([balanced, n_true.sum(axis=2)], axis=2)  # [n_clusters, 2 sides, 2 scores]
    fewer = effective_number(both).argmin(axis=0)
    weights: np.ndarray = both[:, fewer, np.arange(len(SCORE_NAMES))]
    return weights


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
