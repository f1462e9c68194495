"""The answers of two systems to the same utterances, brought into one order.

An utterance that only one side was tested on, or that has another reference or speaker on the
other side, is refused: a difference would then be one between test sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.intervals import find_groups


@dataclass(frozen=True, eq=False)
class Answers:
    """What one system answered on the test utterances.

    Attributes
    ----------
    name : str
        What the system is called.
    ids : array-like of str [shape=(n_answers,)]
        The utterance of each answer. With several seeds, an utterance is there once per
        seed.
    y_true, y_pred : array-like of str [shape=(n_answers,)]
        Reference and predicted label.
    clusters : array-like [shape=(n_answers,)], optional
        Speaker, or what stands for one. Without it there is neither interval nor
        permutation test.
    """

    name: str
    ids: ArrayLike
    y_true: ArrayLike
    y_pred: ArrayLike
    clusters: ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class OrderedAnswers:
    """Checked answers of one system, ordered by utterance.

    Attributes
    ----------
    name : str
        What the system is called.
    ids : np.ndarray [shape=(n_utterances,)]
        The utterances.
    true_ids : np.ndarray [shape=(n_utterances,)]
        Position of the reference in the labels.
    predicted : np.ndarray [shape=(n_utterances, n_seeds)]
        Positions of the answers; one more than the last for an answer outside the labels.
    clusters : np.ndarray or None [shape=(n_utterances,)]
        Speakers.
    """

    name: str
    ids: np.ndarray
    true_ids: np.ndarray
    predicted: np.ndarray
    clusters: np.ndarray | None

    @property
    def n_seeds(self) -> int:
        """Answers to each utterance."""
        return int(self.predicted.shape[1])


def pair(
    first: Answers, second: Answers, *, labels: Sequence[str]
) -> tuple[OrderedAnswers, OrderedAnswers]:
    """Order both by utterance, and refuse what is no pair.

    Parameters
    ----------
    first, second : Answers
        In any order of rows.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    tuple[OrderedAnswers, OrderedAnswers]
        With the same utterances, references and clusters in the same order.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`.
    UndefinedMetricError
        If the sides have other utterances, references or clusters, or one has answered
        some utterances more often than others.
    """
    ordered = _checked(first, labels), _checked(second, labels)
    _refuse_unmatched(*ordered)
    return ordered


def _checked(answers: Answers, labels: Sequence[str]) -> OrderedAnswers:
    """Order by utterance and see that each has equally many answers and one reference."""
    true_ids = metrics.label_ids(answers.y_true, labels=labels)
    predicted = metrics.predicted_ids(answers.y_pred, labels=labels, n_utterances=len(true_ids))
    given = np.asarray(answers.ids)
    if given.shape != true_ids.shape:
        raise UndefinedMetricError(
            f"'{answers.name}' has {given.size} ids for {len(true_ids)} answers. Give the id of "
            f"the utterance of every answer."
        )
    ids, first, n_answers = np.unique(given, return_index=True, return_counts=True)
    if n_answers.min() != n_answers.max():
        raise UndefinedMetricError(
            f"'{answers.name}' answered some utterances {n_answers.min()} times and others "
            f"{n_answers.max()} times ('{ids[n_answers.argmax()]}'). Give every seed's answers "
            f"to every utterance."
        )
    order = given.argsort(kind="stable").reshape(len(ids), -1)
    clusters = None
    if answers.clusters is not None:
        clusters = np.asarray(answers.clusters)
        find_groups(clusters, n_utterances=len(true_ids), what="cluster")
    for what, values in (("label", true_ids), ("cluster", clusters)):
        if values is not None and (values[order] != values[order[:, :1]]).any():
            row = int((values[order] != values[order[:, :1]]).any(axis=1).argmax())
            raise UndefinedMetricError(
                f"'{answers.name}' gives utterance '{ids[row]}' more than one {what}."
            )
    return OrderedAnswers(
        answers.name,
        ids,
        true_ids[first],
        predicted[order],
        None if clusters is None else clusters[first],
    )


def _refuse_unmatched(first: OrderedAnswers, second: OrderedAnswers) -> None:
    if not np.array_equal(first.ids, second.ids):
        only = [
            np.setdiff1d(one.ids, other.ids) for one, other in ((first, second), (second, first))
        ]
        examples = ", ".join(f"'{name}'" for name in np.concatenate(only)[:3].tolist())
        raise UndefinedMetricError(
            f"'{first.name}' and '{second.name}' were not tested on the same utterances: "
            f"{len(only[0])} only on the first, {len(only[1])} only on the second "
            f"({examples}). Compare systems on one split."
        )
    for what, one, other in (
        ("labels", first.true_ids, second.true_ids),
        ("clusters", first.clusters, second.clusters),
    ):
        if one is None or other is None:
            if one is not other:
                raise UndefinedMetricError(
                    f"Only one of '{first.name}' and '{second.name}' has {what}. Give both."
                )
        elif (one != other).any():
            row = int((one != other).argmax())
            raise UndefinedMetricError(
                f"'{first.name}' and '{second.name}' have other {what} for "
                f"{int((one != other).sum())} utterances, the first being '{first.ids[row]}'. "
                f"Compare systems on one manifest."
            )
