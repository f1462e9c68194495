"""Whether one system is better than another on the same utterances.

Both sides have answered the same utterances, so what is compared are pairs: an utterance
that is easy for one is mostly easy for the other, and cancels out. Utterances of one
speaker are not independent, so whole speakers are the units of the intervals, and whole
speakers are what the permutation test swaps between the systems [1]_ [2]_.

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

from koser.errors import UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.bootstrap import Percentiles, bootstrap_intervals
from koser.evaluation.intervals import (
    Groups,
    Intervals,
    balanced_weights,
    cluster_intervals,
    find_groups,
    sums_per_group,
)
from koser.evaluation.noting import flat_notes, interval_notes, permutation_notes
from koser.evaluation.pairing import Answers, OrderedAnswers, pair
from koser.evaluation.scoring import (
    INTERVAL_METHOD,
    Score,
    as_scores,
)
from koser.evaluation.significance import (
    N_PERMUTATIONS,
    McNemar,
    PermutationTest,
    holm,
    mcnemar,
    permutation_test,
)

SCORE_NAMES = ("uar", "accuracy", "macro_f1")
SCORE_TITLES = ("UAR", "accuracy", "macro-F1")  # in a sentence
N_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of the first system minus those of the second.

    Attributes
    ----------
    first, second : str
        Names of the systems.
    differences : dict[str, Score]
        ``uar``, ``accuracy`` and ``macro_f1``: in [-1, 1], with 95 % intervals.
    bootstrap : dict[str, Score]
        The same with the percentiles of a paired bootstrap over clusters instead.
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
    interval_method : str or None
        How `differences` got their intervals; None where they have none.
    notes : tuple[str, ...]
        What belongs beside the numbers, one sentence each.
    """

    first: str
    second: str
    differences: dict[str, Score]
    bootstrap: dict[str, Score]
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
    interval_method: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """As JSON holds it: flat names, intervals under ``ci95``, tests under ``p``."""
        return {
            "first": self.first,
            "second": self.second,
            **{name: score.value for name, score in self.differences.items()},
            "ci95": {name: score.bounds for name, score in self.differences.items()},
            "ci95_bootstrap": {name: score.bounds for name, score in self.bootstrap.items()},
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
            "interval_method": self.interval_method,
            "notes": list(self.notes),
        }


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
    sides = pair(first, second, labels=labels)
    groups = _groups(sides[0])
    sums = _ClusterSums.of(sides, groups, len(labels))
    values = sums.differences(sums.both.sum(axis=0, keepdims=True))[0]
    intervals: Intervals | None = None
    percentiles: Percentiles | None = None
    test: PermutationTest | None = None
    notes: list[str] = []
    if groups is None:
        notes.append("Neither intervals nor permutation test: the speakers are unknown.")
    else:
        test = permutation_test(
            sums.first, sums.second, sums.scores, n_permutations=n_permutations, seed=seed
        )
        intervals, percentiles, notes = _intervals(sums, labels, cluster_kind, seed)
        notes += permutation_notes(test.n_informative, cluster_kind)
    p_values = [None] * len(SCORE_NAMES) if test is None else test.p_values.tolist()
    by_name = dict(zip(SCORE_NAMES, p_values, strict=True))
    return Comparison(
        first=first.name,
        second=second.name,
        differences=dict(zip(SCORE_NAMES, as_scores(values, intervals), strict=True)),
        bootstrap=dict(zip(SCORE_NAMES, as_scores(values, percentiles), strict=True)),
        p_values=by_name,
        p_adjusted=by_name,
        n_permutations=0 if test is None else test.n_permutations,
        is_exact=test is not None and test.is_exact,
        mcnemar=_mcnemar(*sides),
        n_utterances=len(sides[0].ids),
        n_seeds=(sides[0].n_seeds, sides[1].n_seeds),
        n_clusters=None if groups is None else len(groups.names),
        cluster_kind=cluster_kind,
        labels_scored=tuple(np.array(labels)[sums.is_present].tolist()),
        interval_method=None if intervals is None else INTERVAL_METHOD,
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


def _groups(side: OrderedAnswers) -> Groups | None:
    if side.clusters is None:
        return None
    return find_groups(side.clusters, n_utterances=len(side.ids), what="cluster")


@dataclass(frozen=True, eq=False)
class _ClusterSums:
    """Confusion counts per cluster of two sides, averaged over their seeds.

    `first` and `second` are [n_clusters, n_classes * (n_classes + 1)]; `n_true`
    [n_clusters, n_classes] counts the reference utterances of either.
    """

    first: np.ndarray
    second: np.ndarray
    n_true: np.ndarray

    @classmethod
    def of(
        cls, sides: tuple[OrderedAnswers, OrderedAnswers], groups: Groups | None, n_classes: int
    ) -> _ClusterSums:
        ids = np.zeros(len(sides[0].ids), np.int64) if groups is None else groups.ids
        n_groups, n_columns = int(ids.max()) + 1, n_classes + 1
        counts = []
        for side in sides:
            cells = side.true_ids[:, np.newaxis] * n_columns + side.predicted
            of_answer = np.repeat(ids, side.n_seeds)
            sums = sums_per_group(
                of_answer, cells.ravel(), n_groups=n_groups, n_ids=n_classes * n_columns
            )
            counts.append(sums / side.n_seeds)
        n_true = sums_per_group(ids, sides[0].true_ids, n_groups=n_groups, n_ids=n_classes)
        return cls(counts[0], counts[1], n_true)

    @property
    def both(self) -> np.ndarray:
        return np.hstack([self.first, self.second])

    @property
    def is_present(self) -> np.ndarray:
        is_present: np.ndarray = self.n_true.sum(axis=0) > 0
        return is_present

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """`SCORE_NAMES` of counts of one side [n, 3]."""
        return _scores(counts, self.is_present)

    def differences(self, counts: np.ndarray) -> np.ndarray:
        """First minus second side of counts of both [n, 3]."""
        first, second = np.hsplit(counts, 2)
        differences: np.ndarray = self.scores(first) - self.scores(second)
        return differences


def _intervals(
    sums: _ClusterSums, labels: Sequence[str], cluster_kind: str | None, seed: int
) -> tuple[Intervals | None, Percentiles | None, list[str]]:
    """Of the differences, in both ways, and what belongs beside them."""
    balanced = balanced_weights(sums.n_true[:, sums.is_present])
    of_all = sums.n_true.sum(axis=1)
    weights = np.column_stack([balanced, of_all, balanced])  # as SCORE_NAMES
    try:
        intervals = cluster_intervals(
            sums.both, sums.differences, weights=weights, scales=["difference"] * len(SCORE_NAMES)
        )
    except UndefinedMetricError as error:
        return None, None, [f"No intervals: {error}."]
    n_with_label = (sums.n_true > 0).sum(axis=0)
    notes = interval_notes(len(sums.n_true), n_with_label, labels, cluster_kind)
    notes += flat_notes(intervals, SCORE_TITLES, cluster_kind)
    try:
        percentiles = bootstrap_intervals(
            sums.both, sums.differences, n_resamples=N_RESAMPLES, seed=seed
        )
    except UndefinedMetricError as error:
        return intervals, None, [*notes, f"No bootstrap: {error}."]
    low, high = (
        np.where(intervals.is_flat, np.nan, each) for each in (percentiles.low, percentiles.high)
    )
    return intervals, replace(percentiles, low=low, high=high), notes


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


def _mcnemar(first: OrderedAnswers, second: OrderedAnswers) -> McNemar | None:
    if first.n_seeds > 1 or second.n_seeds > 1:
        return None
    is_right = [side.predicted[:, 0] == side.true_ids for side in (first, second)]
    return mcnemar(*is_right)
