"""Scores of predicted labels against reference labels.

Conventions
-----------
The reference comes first, the prediction second: one label name per utterance, in the
same order. `labels` are all classes of the task, in order, never inferred from data.
A reference outside `labels` is refused. A prediction outside `labels` is a wrong one,
as when a model that knows seven labels is scored on a corpus of four; only
`confusion_matrix`, which has no column for it, refuses it.

Metrics
-------
`accuracy`, `recall_per_class`, `unweighted_average_recall`, `macro_f1` and
`confusion_matrix`. Each is a formula on the confusion matrix; the formulas
(`…_from_confusion`) are public too and take whole stacks of matrices, which is what
makes thousands of bootstrap resamples cheap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import LabelError, UndefinedMetricError


def accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, labels: Sequence[str]) -> float:
    """Share of utterances that carry the right label.

    On skewed emotions it flatters whoever guesses the majority; papers call it
    "weighted accuracy" (WA). Read it beside `unweighted_average_recall`.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    y_pred : array-like of str [shape=(n_utterances,)]
        Predicted label of each utterance, in the same order.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` repeats one.
    UndefinedMetricError
        If there is no utterance, or the lengths differ.

    Examples
    --------
    >>> accuracy(["angry", "neutral"], ["angry", "angry"], labels=["angry", "neutral"])
    0.5
    """
    return float(accuracy_from_confusion(_count(y_true, y_pred, labels)))


def recall_per_class(
    y_true: ArrayLike, y_pred: ArrayLike, *, labels: Sequence[str]
) -> dict[str, float]:
    """Recall of each class: the share of its utterances that were recognised.

    Parameters
    ----------
    y_true, y_pred : array-like of str [shape=(n_utterances,)]
        Reference and predicted label of each utterance.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    dict[str, float]
        Recall in [0, 1] of every label, in the order of `labels`.

    Raises
    ------
    LabelError, UndefinedMetricError
        As `accuracy`; also if a class of `labels` has no reference utterance.
    """
    confusion = _count(y_true, y_pred, labels)
    _refuse_absent_classes(confusion, labels, "Recall")
    return dict(zip(labels, recalls_from_confusion(confusion).tolist(), strict=True))


def unweighted_average_recall(
    y_true: ArrayLike, y_pred: ArrayLike, *, labels: Sequence[str]
) -> float:
    """Unweighted average recall (UAR): the mean of the per-class recalls.

    Every emotion weighs the same, so a majority-class guesser scores
    ``1 / len(labels)`` however skewed the corpus is. Papers also call it
    unweighted accuracy (UA) [1]_; "weighted accuracy" (WA) is `accuracy`.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    y_pred : array-like of str [shape=(n_utterances,)]
        Predicted label of each utterance, in the same order.
    labels : Sequence[str]
        All classes of the task. Not inferred from the data: a class that only
        the model names would otherwise count as a recall of 0.

    Returns
    -------
    float
        UAR in [0, 1].

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` repeats one.
    UndefinedMetricError
        If a class of `labels` has no reference utterance, there is no utterance
        at all, or the lengths differ.

    References
    ----------
    .. [1] Schuller, Steidl & Batliner, "The INTERSPEECH 2009 Emotion
       Challenge", Interspeech 2009.

    Examples
    --------
    >>> y_true = np.array(["angry", "angry", "angry", "neutral"])
    >>> y_pred = np.array(["angry", "angry", "neutral", "neutral"])
    >>> round(unweighted_average_recall(y_true, y_pred, labels=["angry", "neutral"]), 4)
    0.8333
    """
    recalls = recall_per_class(y_true, y_pred, labels=labels)
    return float(np.mean(list(recalls.values())))


def macro_f1(y_true: ArrayLike, y_pred: ArrayLike, *, labels: Sequence[str]) -> float:
    """Macro F1: the mean over classes of the harmonic mean of precision and recall.

    The mean of the F1 scores, not the F1 of the means, which differs from it [1]_.
    A class that is never predicted has an F1 of 0.

    Parameters
    ----------
    y_true, y_pred : array-like of str [shape=(n_utterances,)]
        Reference and predicted label of each utterance.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    float
        Macro F1 in [0, 1].

    Raises
    ------
    LabelError, UndefinedMetricError
        As `unweighted_average_recall`.

    References
    ----------
    .. [1] Opitz & Burst, "Macro F1 and Macro F1", arXiv:1911.03347, 2019.
    """
    confusion = _count(y_true, y_pred, labels)
    _refuse_absent_classes(confusion, labels, "F1")
    return float(np.mean(f1_from_confusion(confusion)))


def confusion_matrix(y_true: ArrayLike, y_pred: ArrayLike, *, labels: Sequence[str]) -> np.ndarray:
    """Count how often each label was recognised as each other.

    Parameters
    ----------
    y_true, y_pred : array-like of str [shape=(n_utterances,)]
        Reference and predicted label of each utterance.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    np.ndarray [shape=(n_classes, n_classes), dtype=int64]
        Rows are references, columns predictions, both in the order of `labels`.

    Raises
    ------
    LabelError, UndefinedMetricError
        As `accuracy`; also if a prediction is not in `labels`.

    Examples
    --------
    >>> y_true, y_pred = ["angry", "angry", "neutral"], ["angry", "neutral", "neutral"]
    >>> confusion_matrix(y_true, y_pred, labels=["angry", "neutral"]).tolist()
    [[1, 1], [0, 1]]
    """
    confusion = _count(y_true, y_pred, labels)
    n_outside = int(confusion[:, -1].sum())
    if n_outside:
        raise LabelError(
            f"{n_outside} predictions name none of the labels {list(labels)}, so the matrix has "
            f"no column for them. Give `labels` every label the model can predict."
        )
    return confusion[:, :-1]


def label_ids(y_true: ArrayLike, *, labels: Sequence[str]) -> np.ndarray:
    """Position in `labels` of each reference label.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    labels : Sequence[str]
        All classes of the task, distinct.

    Returns
    -------
    np.ndarray [shape=(n_utterances,), dtype=int64]
        Values in [0, n_classes).

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` is empty or repeats one.
    UndefinedMetricError
        If there is no utterance.
    """
    values = _checked_values(y_true, "y_true")
    ids = _find(values, labels)
    unknown = Counter(values[ids < 0].tolist())
    if unknown:
        listed = ", ".join(f"{label!r} ({count})" for label, count in unknown.most_common(5))
        raise LabelError(
            f"{unknown.total()} of {len(values)} reference utterances carry a label that is not "
            f"among {list(labels)}: {listed}. Add it to `labels`, or leave these utterances out "
            f"before scoring and report how many."
        )
    return ids


def predicted_ids(y_pred: ArrayLike, *, labels: Sequence[str], n_utterances: int) -> np.ndarray:
    """Position in `labels` of each predicted label; ``len(labels)`` for one outside of them.

    Parameters
    ----------
    y_pred : array-like of str [shape=(n_utterances,)]
        Predicted label of each utterance.
    labels : Sequence[str]
        All classes of the task, distinct.
    n_utterances : int > 0
        Number of reference labels.

    Returns
    -------
    np.ndarray [shape=(n_utterances,), dtype=int64]
        Values in [0, n_classes]: columns of the matrices that the formulas below take.

    Raises
    ------
    LabelError
        If `labels` is empty or repeats one, or `y_pred` holds no names.
    UndefinedMetricError
        If there is not one prediction per reference.
    """
    predicted = _checked_values(y_pred, "y_pred")
    if len(predicted) != n_utterances:
        raise UndefinedMetricError(
            f"{n_utterances} reference labels but {len(predicted)} predicted ones. "
            f"Give one prediction per utterance, in the same order."
        )
    return _find(predicted, labels) % (len(labels) + 1)  # -1 -> the last column


def accuracy_from_confusion(confusion: np.ndarray) -> np.ndarray:
    """Accuracy of each confusion matrix; NaN where it is empty.

    Parameters
    ----------
    confusion : np.ndarray [shape=(..., n_classes, n_columns)]
        Counts; rows are references. Columns beyond `n_classes` are wrong predictions.

    Returns
    -------
    np.ndarray [shape=(...)]
        Accuracy in [0, 1], or NaN.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).sum(axis=-1)
    n_utterances = confusion.sum(axis=(-2, -1))
    return _divide(hits, n_utterances, where=n_utterances > 0)


def recalls_from_confusion(confusion: np.ndarray) -> np.ndarray:
    """Recall of each class of each confusion matrix; NaN for a class without references.

    Parameters
    ----------
    confusion : np.ndarray [shape=(..., n_classes, n_columns)]
        As in `accuracy_from_confusion`.

    Returns
    -------
    np.ndarray [shape=(..., n_classes)]
        Recalls in [0, 1], or NaN.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _divide(hits, confusion.sum(axis=-1), where=confusion.sum(axis=-1) > 0)


def f1_from_confusion(confusion: np.ndarray) -> np.ndarray:
    """F1 of each class of each confusion matrix; NaN for a class without references.

    Parameters
    ----------
    confusion : np.ndarray [shape=(..., n_classes, n_columns)]
        As in `accuracy_from_confusion`.

    Returns
    -------
    np.ndarray [shape=(..., n_classes)]
        F1 in [0, 1], or NaN.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    n_true = confusion.sum(axis=-1)
    n_predicted = confusion.sum(axis=-2)[..., : confusion.shape[-2]]
    return _divide(2 * hits, n_true + n_predicted, where=n_true > 0)


def _divide(numerator: np.ndarray, denominator: np.ndarray, *, where: np.ndarray) -> np.ndarray:
    quotients = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotients, where=where)
    return quotients


def _count(y_true: ArrayLike, y_pred: ArrayLike, labels: Sequence[str]) -> np.ndarray:
    """Counts [n_classes, n_classes + 1]; the last column: predictions outside `labels`."""
    true_ids = label_ids(y_true, labels=labels)
    columns = predicted_ids(y_pred, labels=labels, n_utterances=len(true_ids))
    n_classes, n_columns = len(labels), len(labels) + 1
    cells = true_ids * n_columns + columns
    return np.bincount(cells, minlength=n_classes * n_columns).reshape(n_classes, n_columns)


def _find(values: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Position in `labels` of each of `values` [n_utterances], -1 where it is none."""
    if isinstance(labels, str) or not labels or len(set(labels)) < len(labels):
        raise LabelError(f"`labels` must be distinct names, at least one, not {labels!r}.")
    ids = np.full(len(values), -1)
    for position, label in enumerate(labels):
        ids[values == label] = position
    return ids


def _checked_values(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size:
        raise UndefinedMetricError(
            f"`{name}` has shape {array.shape}: a score needs one label per utterance, "
            f"of at least one utterance."
        )
    # Numbers would match no label, and every prediction would silently be wrong.
    if array.dtype.kind not in "UOT":
        raise LabelError(
            f"`{name}` holds {array.dtype} values, not label names. "
            f"Map ids to names first: np.array(labels)[ids]"
        )
    return array


def _refuse_absent_classes(confusion: np.ndarray, labels: Sequence[str], metric: str) -> None:
    n_true = confusion.sum(axis=-1)
    present = sorted(label for label, count in zip(labels, n_true, strict=True) if count)
    for label in labels:
        if label not in present:
            raise UndefinedMetricError(
                f"{metric} of '{label}' is undefined: none of the {n_true.sum()} reference "
                f"utterances carries it (present: {present}). "
                f"Drop it from `labels`, or pool the folds before scoring."
            )
