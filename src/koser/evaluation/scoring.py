"""Every score of one set of predictions, with its interval and its caveats.

`evaluate` is where metrics, calibration and intervals meet. It defines no score of its
own: it decides which labels can be scored, leaves out speakers, and writes down, in
`Evaluation.notes`, whatever a reader must know beside the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation import calibration, metrics
from koser.evaluation.bootstrap import Percentiles
from koser.evaluation.intervals import (
    Groups,
    Intervals,
    Scale,
    balanced_weights,
    cluster_intervals,
    find_groups,
    sums_per_group,
)
from koser.evaluation.noting import flat_notes, interval_notes

SCORE_NAMES = ("accuracy", "uar", "macro_f1", "nll", "ece", "adaptive_ece")
_TITLES = ("accuracy", "UAR", "macro-F1", "NLL", "ECE", "adaptive ECE")
_SCALES: dict[str, Scale] = {"nll": "loss"}  # all others are shares
INTERVAL_METHOD = "cluster jackknife, Student's t"


@dataclass(frozen=True)
class Score:
    """A number and the 95 % interval around it.

    Attributes
    ----------
    value : float or None
        The score; None where it is undefined.
    low, high : float or None
        Bounds of the interval; None where there is none, which a note explains.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> list[float] | None:
        """The interval as JSON holds it."""
        return None if self.low is None or self.high is None else [self.low, self.high]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good predictions are, and how sure that is.

    Attributes
    ----------
    labels : tuple[str, ...]
        All classes of the task.
    labels_absent : tuple[str, ...]
        Those without reference utterances. UAR and macro-F1 leave them out.
    n_utterances : int
        Number of scored utterances.
    n_clusters : int or None
        Number of clusters; None where clusters are unknown.
    cluster_kind : str or None
        What a cluster is, such as ``"speaker"`` or ``"group(age×gender)"``.
    interval_method : str or None
        How intervals were made; None where there are none.
    confusion : np.ndarray [shape=(n_classes, n_classes), dtype=int64]
        Rows are references, columns predictions, in the order of `labels`.
    scores : dict[str, Score]
        ``accuracy``, ``uar``, ``macro_f1``, ``nll`` (nats), ``ece`` and ``adaptive_ece``.
    recall : dict[str, Score]
        One per label; None for absent ones.
    notes : tuple[str, ...]
        What belongs beside the numbers wherever they are shown, one sentence each.
    """

    labels: tuple[str, ...]
    labels_absent: tuple[str, ...]
    n_utterances: int
    n_clusters: int | None
    cluster_kind: str | None
    interval_method: str | None
    confusion: np.ndarray
    scores: dict[str, Score]
    recall: dict[str, Score]
    notes: tuple[str, ...]

    @property
    def chance_uar(self) -> float:
        """UAR of a guesser that ignores its input: 1 / number of labels scored."""
        return 1 / (len(self.labels) - len(self.labels_absent))

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """The form of ``metrics.json``: flat names, and the intervals under ``ci95``."""
        return {
            **{name: score.value for name, score in self.scores.items()},
            "recall": {label: score.value for label, score in self.recall.items()},
            "ci95": {
                **{name: score.bounds for name, score in self.scores.items()},
                "recall": {label: score.bounds for label, score in self.recall.items()},
            },
            "chance_uar": self.chance_uar,
            "n": self.n_utterances,
            "n_speakers": self.n_clusters,
            "cluster_kind": self.cluster_kind,
            "interval_method": self.interval_method,
            "labels": list(self.labels),
            "labels_absent": list(self.labels_absent),
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        }


def evaluate(
    y_true: ArrayLike,
    probabilities: ArrayLike,
    *,
    labels: Sequence[str],
    clusters: ArrayLike | None = None,
    cluster_kind: str | None = None,
) -> Evaluation:
    """Score predicted probabilities against reference labels.

    The prediction is the most probable of all `labels`. UAR and macro-F1 are taken over
    the labels that have reference utterances; the others are listed in `labels_absent`
    and in a note, and predicting one of them is an error like any other.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    probabilities : array-like of float [shape=(n_utterances, n_classes)]
        Predicted probabilities, columns in the order of `labels`.
    labels : Sequence[str]
        All classes of the task.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one, of each utterance. Without it there are no
        intervals: utterances are not independent.
    cluster_kind : str, optional
        What a cluster is, such as ``"speaker"`` or ``"group(age×gender)"``.

    Returns
    -------
    Evaluation
        All scores with their intervals.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` repeats one.
    UndefinedMetricError
        If shapes differ, `probabilities` are none, or an utterance has no cluster.

    Examples
    --------
    >>> evaluation = evaluate(
    ...     ["angry", "neutral", "neutral"],
    ...     [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]],
    ...     labels=["angry", "neutral"],
    ... )
    >>> evaluation.scores["uar"].value
    0.75
    """
    true_ids = metrics.label_ids(y_true, labels=labels)
    checked = calibration.checked_probabilities(
        probabilities, n_utterances=len(true_ids), labels=labels
    )
    if clusters is None:
        groups = Groups(names=(), ids=np.zeros(len(true_ids), dtype=np.int64))
    else:
        groups = find_groups(clusters, n_utterances=len(true_ids), what="cluster")
    sums = _sums_per_cluster(true_ids, checked, groups.ids)
    total = sums.sum(axis=0)
    confusions = sums[:, : len(labels) ** 2].reshape(-1, len(labels), len(labels))
    confusion = confusions.sum(axis=0).astype(np.int64)
    is_present = confusion.sum(axis=1) > 0

    def score(some_sums: np.ndarray) -> np.ndarray:
        return _scores(some_sums, is_present)

    notes, intervals = _absence_notes(labels, is_present), None
    if clusters is None:
        notes.append(
            "No intervals: the speakers are unknown, and utterances of one are not independent."
        )
    else:
        n_true = confusions.sum(axis=2)
        intervals, why = _intervals(sums, score, n_true, labels=labels, cluster_kind=cluster_kind)
        notes += why
    scored = as_scores(score(total[np.newaxis])[0], intervals)
    n_named = len(SCORE_NAMES)
    recall = iter(scored[n_named:])
    return Evaluation(
        labels=tuple(labels),
        labels_absent=tuple(np.array(labels)[~is_present].tolist()),
        n_utterances=len(true_ids),
        n_clusters=None if clusters is None else len(groups.names),
        cluster_kind=cluster_kind,
        interval_method=None if intervals is None else INTERVAL_METHOD,
        confusion=confusion,
        scores=dict(zip(SCORE_NAMES, scored[:n_named], strict=True)),
        recall={
            label: next(recall) if present else Score(None)
            for label, present in zip(labels, is_present, strict=True)
        },
        notes=tuple(notes),
    )


def _intervals(
    sums: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    n_true: np.ndarray,
    *,
    labels: Sequence[str],
    cluster_kind: str | None,
) -> tuple[Intervals | None, list[str]]:
    """Intervals of all scores with what is to be known of them; or None and why.

    Parameters
    ----------
    sums : np.ndarray [shape=(n_clusters, n_sums)]
        What `score` makes scores of.
    score : Callable
        Sums to scores.
    n_true : np.ndarray [shape=(n_clusters, n_classes)]
        Reference utterances of each label.
    labels : Sequence[str]
        All classes.
    cluster_kind : str or None
        What a cluster is.
    """
    is_present = n_true.sum(axis=0) > 0
    try:
        intervals = cluster_intervals(
            sums, score, weights=_weights(n_true, is_present), scales=_scales(is_present)
        )
    except UndefinedMetricError as error:
        return None, [f"No intervals: {error}."]
    notes = interval_notes(len(sums), (n_true > 0).sum(axis=0), labels, cluster_kind)
    present = np.array(labels)[is_present].tolist()
    names = [*_TITLES, *(f"the recall of '{label}'" for label in present)]
    return intervals, notes + flat_notes(intervals, names, cluster_kind)


def majority_accuracy(y_train: ArrayLike, y_test: ArrayLike) -> float:
    """Accuracy on `y_test` of always answering the most frequent label of `y_train`.

    Parameters
    ----------
    y_train, y_test : array-like of str [shape=(n_utterances,)]
        Labels of the training and of the test utterances. Of equally frequent labels
        the alphabetically first is answered.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    UndefinedMetricError
        If either has no utterances.

    Examples
    --------
    >>> majority_accuracy(["sadness", "sadness", "angry"], ["angry", "sadness"])
    0.5
    """
    trained, tested = np.asarray(y_train), np.asarray(y_test)
    if not trained.size or not tested.size:
        raise UndefinedMetricError(
            f"{trained.size} training and {tested.size} test utterances: the majority baseline "
            f"needs at least one of each."
        )
    names, counts = np.unique(trained, return_counts=True)
    return float(np.mean(tested == names[counts.argmax()]))


def _weights(n_true: np.ndarray, is_present: np.ndarray) -> np.ndarray:
    """Weight of each cluster in each score, columns as in `_scores` [n_clusters, n_scores]."""
    of_all, balanced = n_true.sum(axis=1), balanced_weights(n_true[:, is_present])
    of_name = dict.fromkeys(SCORE_NAMES, of_all) | {"uar": balanced, "macro_f1": balanced}
    return np.column_stack([*(of_name[name] for name in SCORE_NAMES), n_true[:, is_present]])


def _scales(is_present: np.ndarray) -> list[Scale]:
    of_recall: list[Scale] = ["share"] * int(is_present.sum())
    return [_SCALES.get(name, "share") for name in SCORE_NAMES] + of_recall


def as_scores(values: np.ndarray, intervals: Intervals | Percentiles | None) -> list[Score]:
    """Values with their intervals, where they have one.

    Parameters
    ----------
    values : np.ndarray [shape=(n_scores,)]
        The scores.
    intervals : Intervals, Percentiles or None
        Of these scores; None for no intervals at all.
    """
    if intervals is None:
        return [Score(value) for value in values.tolist()]
    bounds = zip(values.tolist(), intervals.low.tolist(), intervals.high.tolist(), strict=True)
    return [
        Score(value, low, high) if np.isfinite(low) else Score(value) for value, low, high in bounds
    ]


def _sums_per_cluster(
    true_ids: np.ndarray, probabilities: np.ndarray, cluster_ids: np.ndarray
) -> np.ndarray:
    """What `_scores` needs [n_clusters, n_classes**2 + 2 * N_BINS + 1], summed per cluster."""
    n_classes, n_bins = probabilities.shape[1], calibration.N_BINS
    tally = partial(sums_per_group, cluster_ids, n_groups=int(cluster_ids.max()) + 1)
    bins = calibration.confidence_bins(probabilities)
    # Of all utterances: the bins stay where they are when a cluster is left out.
    equal_bins = calibration.equal_mass_bins(probabilities)
    gaps = calibration.confidence_gaps(true_ids, probabilities)
    losses = calibration.log_losses(true_ids, probabilities)
    return np.hstack(
        [
            tally(true_ids * n_classes + probabilities.argmax(axis=1), n_ids=n_classes**2),
            tally(bins, n_ids=n_bins, weights=gaps),
            tally(equal_bins, n_ids=n_bins, weights=gaps),
            tally(np.zeros_like(bins), n_ids=1, weights=losses),
        ]
    )


def _scores(sums: np.ndarray, is_present: np.ndarray) -> np.ndarray:
    """`SCORE_NAMES`, then the recall of each present class [n, 6 + n_present]."""
    n_classes, n_bins = len(is_present), calibration.N_BINS
    ends = n_classes**2 + np.array([0, n_bins, 2 * n_bins])
    counts, gaps, equal_gaps, losses = np.split(sums, ends, axis=1)
    confusion = counts.reshape(-1, n_classes, n_classes)
    n_utterances = counts.sum(axis=1)
    recalls = metrics.recalls_from_confusion(confusion)[:, is_present]
    named = [
        metrics.accuracy_from_confusion(confusion),
        recalls.mean(axis=1),
        metrics.f1_from_confusion(confusion)[:, is_present].mean(axis=1),
        losses[:, 0] / n_utterances,
        np.abs(gaps).sum(axis=1) / n_utterances,
        np.abs(equal_gaps).sum(axis=1) / n_utterances,
    ]
    return np.column_stack([*named, recalls])


def _absence_notes(labels: Sequence[str], is_present: np.ndarray) -> list[str]:
    absent = [f"'{labels[position]}'" for position in np.flatnonzero(~is_present).tolist()]
    if not absent:
        return []
    return [
        f"UAR over {len(labels) - len(absent)} of {len(labels)} labels: "
        f"no test utterance is {' or '.join(absent)} (macro-F1 likewise)."
    ]
