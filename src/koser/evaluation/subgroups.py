"""Scores by subgroup: men and women, ages, short and long utterances, whatever a table has.

Rules
-----
- Each subgroup has its accuracy. It has a UAR if it has utterances of every label that the whole
  has; otherwise the UARs of two subgroups would be over different labels.
- A subgroup with fewer than `MIN_UTTERANCES` utterances or `MIN_CLUSTERS` clusters is shown,
  and takes no part in the gap.
- Two subgroups without a common label have no gap: they did not do the same task.
- The gap is between the best and the worst of the others. Among many subgroups two are always far
  apart, so its interval is one that would hold for all pairs at once (Bonferroni's: at
  1 - 0.05 / pairs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation.answers import SCORE_NAMES, score_answers
from koser.evaluation.gap import Side, evaluate_gap
from koser.evaluation.intervals import CONFIDENCE, find_groups
from koser.evaluation.scoring import Score

MIN_UTTERANCES = 30
MIN_CLUSTERS = 2
MAX_LISTED = 5  # names in a note


@dataclass(frozen=True, eq=False)
class Answered:
    """Answers to test utterances, and who spoke them.

    Attributes
    ----------
    ids : array-like of str [shape=(n_answers,)]
        The utterance of each answer; with several seeds it is there once per seed.
    y_true, y_pred : array-like of str [shape=(n_answers,)]
        Reference and predicted label.
    clusters : array-like [shape=(n_answers,)], optional
        Speaker, or what stands for one.
    """

    ids: ArrayLike
    y_true: ArrayLike
    y_pred: ArrayLike
    clusters: ArrayLike | None = None

    def select(self, rows: np.ndarray) -> Answered:
        """Only some answers."""
        clusters = None if self.clusters is None else np.asarray(self.clusters)[rows]
        ids, y_true, y_pred = (np.asarray(e)[rows] for e in (self.ids, self.y_true, self.y_pred))
        return Answered(ids, y_true, y_pred, clusters)


@dataclass(frozen=True, eq=False)
class Subgroup:
    """Scores of one subgroup.

    Attributes
    ----------
    name : str
        Its value in the table.
    n_utterances : int
        Distinct utterances.
    n_clusters : int or None
        None where clusters are unknown.
    scores : dict[str, Score]
        ``uar`` and ``accuracy``; without interval where there is one cluster.
    labels_absent : tuple[str, ...]
        Labels of the whole that it lacks: it then has no UAR.
    is_small : bool
        Whether it is left out of the gap.
    """

    name: str
    n_utterances: int
    n_clusters: int | None
    scores: dict[str, Score]
    labels_absent: tuple[str, ...]
    is_small: bool

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """As JSON holds it."""
        return {
            "name": self.name,
            "n": self.n_utterances,
            "n_speakers": self.n_clusters,
            **{name: score.value for name, score in self.scores.items()},
            "ci95": {name: score.bounds for name, score in self.scores.items()},
            "labels_absent": list(self.labels_absent),
            "is_small": self.is_small,
        }


@dataclass(frozen=True)
class SubgroupGap:
    """How far the best subgroup is from the worst.

    Attributes
    ----------
    best, worst : str
        Names of the subgroups.
    difference : Score
        In [0, 1]; the interval holds for all pairs at once, with 95 %.
    n_pairs : int
        Pairs it was chosen from.
    """

    best: str
    worst: str
    difference: Score
    n_pairs: int

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """As JSON holds it."""
        return {
            "best": self.best,
            "worst": self.worst,
            "value": self.difference.value,
            "ci95": self.difference.bounds,
            "n_pairs": self.n_pairs,
        }


@dataclass(frozen=True, eq=False)
class SubgroupTable:
    """Scores by the values of one column.

    Attributes
    ----------
    column : str
        What the subgroups are by.
    subgroups : tuple[Subgroup, ...]
        In order.
    gaps : dict[str, SubgroupGap | None]
        Of ``uar`` and ``accuracy``; None where fewer than two subgroups can be compared.
    n_unknown : int
        Utterances without a value, in no subgroup.
    notes : tuple[str, ...]
        What belongs beside the table.
    """

    column: str
    subgroups: tuple[Subgroup, ...]
    gaps: dict[str, SubgroupGap | None]
    n_unknown: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """As JSON holds it."""
        return {
            "groups": [group.to_dict() for group in self.subgroups],
            "gap": {
                name: None if gap is None else gap.to_dict() for name, gap in self.gaps.items()
            },
            "n_unknown": self.n_unknown,
            "notes": list(self.notes),
        }


def evaluate_subgroups(
    answered: Answered,
    values: ArrayLike,
    *,
    column: str,
    labels: Sequence[str],
    cluster_kind: str | None = None,
    order: Sequence[str] | None = None,
) -> SubgroupTable:
    """Score every subgroup, and the gap between the best and the worst.

    Parameters
    ----------
    answered : Answered
        All test utterances.
    values : array-like of str or None [shape=(n_answers,)]
        The subgroup of each answer; None where it is unknown.
    column : str
        What the subgroups are by.
    labels : Sequence[str]
        All classes of the task.
    cluster_kind : str, optional
        What a cluster is.
    order : Sequence[str], optional
        Order of the subgroups; by name without it.

    Returns
    -------
    SubgroupTable
        The module says by which rules.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`.
    UndefinedMetricError
        If lengths differ, or no answer has a subgroup.
    """
    given = np.asarray(values, dtype=object)
    is_known = np.array([value is not None for value in given.tolist()])
    if not is_known.any():
        raise UndefinedMetricError(f"No test utterance has a value of '{column}'.")
    known = answered.select(is_known)
    groups = find_groups(given[is_known].astype(str), n_utterances=int(is_known.sum()), what=column)
    names = groups.names if order is None else [name for name in order if name in groups.names]
    members = {name: known.select(groups.ids == groups.names.index(name)) for name in names}
    expected = set(np.asarray(answered.y_true).tolist())
    scored = [_score(name, member, labels, expected) for name, member in members.items()]
    gaps = {name: _gap(name, scored, members, labels, cluster_kind) for name in SCORE_NAMES}
    n_unknown = len(np.unique(np.asarray(answered.ids)[~is_known]))
    return SubgroupTable(column, tuple(scored), gaps, n_unknown, tuple(_notes(scored, n_unknown)))


def _score(name: str, member: Answered, labels: Sequence[str], expected: set[str]) -> Subgroup:
    found = score_answers(member.y_true, member.y_pred, labels=labels, clusters=member.clusters)
    n_utterances = len(np.unique(np.asarray(member.ids)))
    absent = tuple(label for label in found.labels_absent if label in expected)
    scores = {**found.scores, **({"uar": Score(None)} if absent else {})}
    has_clusters = found.n_clusters is not None and found.n_clusters >= MIN_CLUSTERS
    is_small = n_utterances < MIN_UTTERANCES or not has_clusters
    return Subgroup(name, n_utterances, found.n_clusters, scores, absent, is_small)


def _gap(
    score_name: str,
    scored: Sequence[Subgroup],
    members: dict[str, Answered],
    labels: Sequence[str],
    cluster_kind: str | None,
) -> SubgroupGap | None:
    values = {
        group.name: value
        for group in scored
        if not group.is_small and (value := group.scores[score_name].value) is not None
    }
    if len(values) < 2:
        return None
    best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    if best == worst:  # all are equal: any two will do
        best, worst = list(values)[:2]
    n_pairs = len(values) * (len(values) - 1) // 2
    sides = [
        Side(name, members[name].y_true, members[name].y_pred, members[name].clusters)
        for name in (best, worst)
    ]
    if not set(np.asarray(sides[0].y_true).tolist()) & set(np.asarray(sides[1].y_true).tolist()):
        return None  # an accuracy on one set of labels, and another on another
    gap = evaluate_gap(
        *sides,
        labels=labels,
        cluster_kind=cluster_kind,
        confidence=1 - (1 - CONFIDENCE) / n_pairs,
    )
    return SubgroupGap(best, worst, gap.scores[score_name], n_pairs)


def _notes(scored: Sequence[Subgroup], n_unknown: int) -> list[str]:
    notes = []
    small = [group.name for group in scored if group.is_small]
    rule = f"fewer than {MIN_UTTERANCES} utterances or {MIN_CLUSTERS} clusters"
    if len(scored) - len(small) < 2:
        notes.append(f"No gap: {len(small)} of {len(scored)} subgroups have {rule}.")
    elif small:
        notes.append(f"Not in the gap: {_listed(small)} ({rule}).")
    lacking = [group.name for group in scored if group.labels_absent]
    if lacking:
        notes.append(f"No UAR of {_listed(lacking)}: not every label occurs there.")
    if n_unknown:
        notes.append(f"{n_unknown} utterances have no value.")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} others"
