"""Whether one system is better than another on the same utterances.

Both sides have answered the same utterances, so what is compared are pairs: an utterance
that is easy for one is mostly easy for the other, and cancels out. Utterances of one
speaker are not independent, so whole speakers are what is resampled, and whole speakers
are what the permutation test swaps between the systems [1]_ [2]_.

Every score is a function of confusion counts per cluster and side, as in
`koser.evaluation.gap`; several seeds of a system are several answers to one utterance,
and each counts.

References
----------
.. [1] Noreen, "Computer-Intensive Methods for Testing Hypotheses", Wiley, 1989: approximate
   randomization.
.. [2] Berg-Kirkpatrick, Burkett & Klein, "An Empirical Investigation of Statistical
   Significance in NLP", EMNLP 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.intervals import Groups, bootstrap_intervals, find_groups, sums_per_group
from koser.evaluation.scoring import Score, interval_notes
from koser.evaluation.significance import (
    N_PERMUTATIONS,
    McNemar,
    PermutationTest,
    holm,
    mcnemar,
    permutation_test,
)

SCORE_NAMES = ("uar", "accuracy", "macro_f1")
N_RESAMPLES = 2000


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
class Comparison:
    """Scores of the first system minus those of the second.

    Attributes
    ----------
    first, second : str
        Names of the systems.
    differences : dict[str, Score]
        ``uar``, ``accuracy`` and ``macro_f1``: in [-1, 1], with 95 % intervals.
    p_values : dict[str, float | None]
        Of each difference, two-sided, by the permutation test; None without clusters.
    p_adjusted : dict[str, float | None]
        The same after Holm's correction over all comparisons made together.
    n_permutations : int
        Swaps behind the p-values; 0 where there are none.
    is_exact : bool
        Whether these are all that exist.
    mcnemar : McNemar or None
        None where a side has several answers to an utterance.
    n_utterances : int
        Distinct utterances.
    n_seeds : tuple[int, int]
        Answers of either side to each utterance.
    n_clusters : int or None
        None where clusters are unknown.
    cluster_kind : str or None
        What a cluster is.
    labels_scored : tuple[str, ...]
        Those with reference utterances; UAR and macro-F1 are over these.
    n_resamples : int
        Resamples behind each interval; 0 where there are none.
    notes : tuple[str, ...]
        What belongs beside the numbers, one sentence each.
    """

    first: str
    second: str
    differences: dict[str, Score]
    p_values: dict[str, float | None]
    p_adjusted: dict[str, float | None]
    n_permutations: int
    is_exact: bool
    mcnemar: McNemar | None
    n_utterances: int
    n_seeds: tuple[int, int]
    n_clusters: int | None
    cluster_kind: str | None
    labels_scored: tuple[str, ...]
    n_resamples: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """As JSON holds it: flat names, intervals under ``ci95``, tests under ``p``."""
        return {
            "first": self.first,
            "second": self.second,
            **{name: score.value for name, score in self.differences.items()},
            "ci95": {name: score.bounds for name, score in self.differences.items()},
            "p": self.p_values,
            "p_holm": self.p_adjusted,
            "n_permutations": self.n_permutations,
            "is_exact": self.is_exact,
            "mcnemar": None if self.mcnemar is None else asdict(self.mcnemar),
            "n": self.n_utterances,
            "n_seeds": list(self.n_seeds),
            "n_speakers": self.n_clusters,
            "cluster_kind": self.cluster_kind,
            "labels_scored": list(self.labels_scored),
            "n_resamples": self.n_resamples,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class _Side:
    """Checked answers of one system, ordered by utterance."""

    name: str
    ids: np.ndarray  # (n_utterances,)
    true_ids: np.ndarray  # (n_utterances,)
    predicted: np.ndarray  # (n_utterances, n_seeds)
    clusters: np.ndarray | None  # (n_utterances,)

    @property
    def n_seeds(self) -> int:
        return int(self.predicted.shape[1])


def compare_systems(
    first: Answers,
    second: Answers,
    *,
    labels: Sequence[str],
    cluster_kind: str | None = None,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Score `first` minus `second` on the same utterances, with intervals and tests.

    UAR and macro-F1 are over the labels that have reference utterances. A side with
    several seeds has several answers to each utterance, and its score is over all of them.

    Parameters
    ----------
    first, second : Answers
        Of the two systems, in any order of rows.
    labels : Sequence[str]
        All classes of the task.
    cluster_kind : str, optional
        What a cluster is.
    n_permutations : int > 0
        Random swaps, where there are too many to try all.
    seed : int
        Of resamples and swaps.

    Returns
    -------
    Comparison
        Alone: `p_adjusted` equals `p_values`.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`.
    UndefinedMetricError
        If the sides have other utterances, references or clusters, or one has answered
        some utterances more often than others.
    """
    sides = [_checked(answers, labels) for answers in (first, second)]
    _refuse_unmatched(*sides)
    names = [side.name for side in sides]
    cells = [_cells(side, len(labels)) for side in sides]
    groups = _groups(sides[0])
    n_cells = len(labels) * (len(labels) + 1)
    sums = [_mean_counts(each, groups, n_cells) for each in cells]
    is_present = np.bincount(sides[0].true_ids, minlength=len(labels)) > 0

    def score(counts: np.ndarray) -> np.ndarray:
        return _scores(counts, is_present)

    def difference(counts: np.ndarray) -> np.ndarray:
        differences: np.ndarray = score(counts[:, :n_cells]) - score(counts[:, n_cells:])
        return differences

    both = np.hstack(sums)
    values = difference(both.sum(axis=0, keepdims=True))[0]
    scores = [Score(value) for value in values.tolist()]
    notes: list[str] = []
    test: PermutationTest | None = None
    n_resamples = 0
    if groups is None:
        notes.append("Neither intervals nor permutation test: the speakers are unknown.")
    else:
        test = permutation_test(sums[0], sums[1], score, n_permutations=n_permutations, seed=seed)
        notes += _test_notes(test, cluster_kind)
        try:
            intervals = bootstrap_intervals(both, difference, n_resamples=N_RESAMPLES, seed=seed)
        except UndefinedMetricError as error:
            notes.append(f"No intervals: {error}.")
        else:
            n_resamples = N_RESAMPLES
            bounds = zip(
                values.tolist(), intervals.low.tolist(), intervals.high.tolist(), strict=True
            )
            scores = [Score(*triple) for triple in bounds]
            notes += interval_notes(intervals, len(groups.names), cluster_kind, n_resamples)
    p_values = (
        dict.fromkeys(SCORE_NAMES)
        if test is None
        else dict(zip(SCORE_NAMES, test.p_values.tolist(), strict=True))
    )
    return Comparison(
        first=names[0],
        second=names[1],
        differences=dict(zip(SCORE_NAMES, scores, strict=True)),
        p_values=p_values,
        p_adjusted=p_values,
        n_permutations=0 if test is None else test.n_permutations,
        is_exact=test is not None and test.is_exact,
        mcnemar=_mcnemar(*sides),
        n_utterances=len(sides[0].ids),
        n_seeds=(sides[0].n_seeds, sides[1].n_seeds),
        n_clusters=None if groups is None else len(groups.names),
        cluster_kind=cluster_kind,
        labels_scored=tuple(np.array(labels)[is_present].tolist()),
        n_resamples=n_resamples,
        notes=tuple(notes),
    )


def compare_all(
    systems: Sequence[Answers],
    *,
    labels: Sequence[str],
    cluster_kind: str | None = None,
    baseline: int | None = None,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare every two systems, or each with a baseline, and correct for their number.

    Parameters
    ----------
    systems : Sequence[Answers]
        At least two.
    labels, cluster_kind, n_permutations, seed
        As in `compare_systems`.
    baseline : int, optional
        Position of the system that all others are compared with; all pairs without it.

    Returns
    -------
    tuple[Comparison, ...]
        The later system minus the earlier one, or each system minus the baseline, in the
        order of `systems`. Holm's correction is over all of them, for each score apart.

    Raises
    ------
    LabelError, UndefinedMetricError
        As `compare_systems`.
    """
    if baseline is None:
        pairs = [(second, first) for first, second in combinations(range(len(systems)), 2)]
    else:
        pairs = [(other, baseline) for other in range(len(systems)) if other != baseline]
    made = [
        compare_systems(
            systems[first],
            systems[second],
            labels=labels,
            cluster_kind=cluster_kind,
            n_permutations=n_permutations,
            seed=seed,
        )
        for first, second in pairs
    ]
    return adjusted(made)


def adjusted(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with Holm's correction over all of them, for each score apart.

    Parameters
    ----------
    comparisons : Sequence[Comparison]
        All that are shown together.

    Returns
    -------
    tuple[Comparison, ...]
        In the same order; a comparison without p-values stays without, and uncounted.
    """
    corrected: list[dict[str, float | None]] = [{} for _ in comparisons]
    for name in SCORE_NAMES:
        known = [
            (place, value)
            for place, each in enumerate(comparisons)
            if (value := each.p_values[name]) is not None
        ]
        for place in range(len(comparisons)):
            corrected[place][name] = None
        for (place, _), value in zip(known, holm([value for _, value in known]), strict=True):
            corrected[place][name] = value
    return tuple(
        replace(each, p_adjusted=values)
        for each, values in zip(comparisons, corrected, strict=True)
    )


def _checked(answers: Answers, labels: Sequence[str]) -> _Side:
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
    return _Side(
        answers.name,
        ids,
        true_ids[first],
        predicted[order],
        None if clusters is None else clusters[first],
    )


def _refuse_unmatched(first: _Side, second: _Side) -> None:
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


def _groups(side: _Side) -> Groups | None:
    if side.clusters is None:
        return None
    return find_groups(side.clusters, n_utterances=len(side.ids), what="cluster")


def _cells(side: _Side, n_classes: int) -> np.ndarray:
    """Cell of each answer in a confusion matrix (n_classes, n_classes + 1)."""
    cells: np.ndarray = side.true_ids[:, np.newaxis] * (n_classes + 1) + side.predicted
    return cells


def _mean_counts(cells: np.ndarray, groups: Groups | None, n_cells: int) -> np.ndarray:
    """Confusion counts per cluster, averaged over seeds [n_clusters, n_cells]."""
    n_utterances, n_seeds = cells.shape
    ids = np.zeros(n_utterances, np.int64) if groups is None else groups.ids
    sums = sums_per_group(
        np.repeat(ids, n_seeds), cells.ravel(), n_groups=int(ids.max()) + 1, n_ids=n_cells
    )
    means: np.ndarray = sums / n_seeds
    return means


def _scores(counts: np.ndarray, is_present: np.ndarray) -> np.ndarray:
    """`SCORE_NAMES` of each row of counts [n, 3]."""
    confusion = counts.reshape(len(counts), len(is_present), -1)
    return np.column_stack(
        [
            metrics.recalls_from_confusion(confusion)[:, is_present].mean(axis=1),
            metrics.accuracy_from_confusion(confusion),
            metrics.f1_from_confusion(confusion)[:, is_present].mean(axis=1),
        ]
    )


def _mcnemar(first: _Side, second: _Side) -> McNemar | None:
    if first.n_seeds > 1 or second.n_seeds > 1:
        return None
    is_right = [side.predicted[:, 0] == side.true_ids for side in (first, second)]
    return mcnemar(*is_right)


def _test_notes(test: PermutationTest, cluster_kind: str | None) -> list[str]:
    smallest = 2 / 2**test.n_informative
    if smallest <= 0.05:
        return []
    return [
        f"The systems differ on {test.n_informative} clusters ({cluster_kind or 'cluster'}) only: "
        f"no permutation test can reach p < {smallest:g}."
    ]
