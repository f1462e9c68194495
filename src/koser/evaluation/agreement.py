"""How far human raters agree, and what a system can therefore be expected to reach.

The input is how many raters gave each label to each utterance; who they were does not
matter, and utterances may have different numbers of raters.

`fleiss_kappa` and `krippendorff_alpha` say how far agreement exceeds chance: 1 is
perfect, 0 is chance. `human_ceiling` scores every rater as if it were a system, against
the majority of the others and against the corpus' own label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation.answers import AnswerScores, score_answers
from koser.evaluation.intervals import Intervals, cluster_intervals, find_groups
from koser.evaluation.noting import flat_notes
from koser.evaluation.scoring import Score, as_scores

_MEASURES = ("Fleiss' κ", "Krippendorff's α")  # in a sentence


@dataclass(frozen=True)
class Agreement:
    """Agreement beyond chance, with 95 % intervals over clusters.

    Attributes
    ----------
    fleiss_kappa, krippendorff_alpha : Score
        In [-1, 1].
    n_utterances : int
        Utterances with at least two raters.
    n_votes : int
        Their votes.
    n_clusters : int or None
        None where clusters are unknown.
    notes : tuple[str, ...]
        Why one has no interval.
    """

    fleiss_kappa: Score
    krippendorff_alpha: Score
    n_utterances: int
    n_votes: int
    n_clusters: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class HumanCeiling:
    """Raters scored as if each were a system.

    Attributes
    ----------
    against_others : AnswerScores or None
        Every vote against the most frequent of the other raters' votes; None where no
        utterance has a vote and a most frequent one among at least two others.
    against_label : AnswerScores
        Every vote against the corpus' label. Where that label is the raters' own majority,
        each rater helped to decide it, and the score is too high.
    n_tied : int
        Votes left out of `against_others`, because the others have no most frequent label.
    """

    against_others: AnswerScores | None
    against_label: AnswerScores
    n_tied: int


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa: agreement of several raters on categories, corrected for chance [1]_.

    Utterances may have different numbers of raters: agreement is averaged over those with
    at least two, and chance over the shares of labels in all [2]_. With equal numbers it
    is Fleiss' own formula.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_utterances, n_classes)]
        How many raters gave each label to each utterance. The raters need not be the same
        people.

    Returns
    -------
    float
        1 for perfect agreement, 0 for chance.

    Raises
    ------
    UndefinedMetricError
        If no utterance has two raters, or all votes are for one label.

    References
    ----------
    .. [1] Fleiss, "Measuring nominal scale agreement among many raters", Psychological
       Bulletin 76(5), 1971.
    .. [2] Gwet, "Handbook of Inter-Rater Reliability", 4th edition, Advanced Analytics, 2014,
       section 2.5.

    Examples
    --------
    >>> fleiss_kappa(np.array([[3, 0], [0, 3]]))
    1.0
    """
    sums = _agreement_sums(_checked(counts, "Fleiss' kappa"))
    return float(_agreement(sums.sum(axis=0, keepdims=True))[0, 0])


def krippendorff_alpha(counts: np.ndarray) -> float:
    """Krippendorff's alpha for nominal data: one minus disagreement over that by chance [1]_.

    Unlike Fleiss' kappa it weighs votes, not utterances, and corrects for few of them.
    Utterances with a single vote say nothing and are left out.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_utterances, n_classes)]
        As in `fleiss_kappa`.

    Returns
    -------
    float
        1 for perfect agreement, 0 for chance.

    Raises
    ------
    UndefinedMetricError
        As `fleiss_kappa`.

    References
    ----------
    .. [1] Krippendorff, "Content Analysis", 3rd edition, Sage, 2013, chapter 12.

    Examples
    --------
    >>> round(krippendorff_alpha(np.array([[3, 0], [0, 3]])), 4)
    1.0
    """
    sums = _agreement_sums(_checked(counts, "Krippendorff's alpha"))
    return float(_agreement(sums.sum(axis=0, keepdims=True))[0, 1])


def evaluate_agreement(
    counts: np.ndarray, *, clusters: ArrayLike | None = None, cluster_kind: str | None = None
) -> Agreement:
    """Both measures with intervals over clusters.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_utterances, n_classes)]
        As in `fleiss_kappa`.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one; without it there are no intervals.
    cluster_kind : str, optional
        What a cluster is.

    Returns
    -------
    Agreement
        Kappa, alpha, and what they rest on.

    Raises
    ------
    UndefinedMetricError
        As `fleiss_kappa`; also if an utterance has no cluster.
    """
    checked = _checked(counts, "agreement")
    sums = _agreement_sums(checked)
    intervals: Intervals | None = None
    n_clusters, notes = None, []
    is_rated = checked.sum(axis=1) >= 2
    if clusters is not None:
        groups = find_groups(clusters, n_utterances=len(checked), what="cluster")
        n_clusters = len(groups.names)
        if n_clusters > 1:
            per_cluster = np.zeros((n_clusters, sums.shape[1]))
            np.add.at(per_cluster, groups.ids, sums)
            votes = np.bincount(groups.ids, weights=checked.sum(axis=1))
            intervals = cluster_intervals(
                per_cluster,
                _agreement,
                weights=np.column_stack([votes, votes]),
                scales=["difference", "difference"],
            )
            notes = flat_notes(intervals, _MEASURES, cluster_kind)
    kappa, alpha = as_scores(_agreement(sums.sum(axis=0, keepdims=True))[0], intervals)
    n_votes = int(checked[is_rated].sum())
    return Agreement(kappa, alpha, int(is_rated.sum()), n_votes, n_clusters, tuple(notes))


def human_ceiling(
    counts: np.ndarray,
    y_true: ArrayLike,
    *,
    labels: Sequence[str],
    clusters: ArrayLike | None = None,
    cluster_kind: str | None = None,
) -> HumanCeiling:
    """Score the raters as if each vote were a system's answer.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_utterances, n_classes + n_others)]
        Votes per label, columns in the order of `labels`; one more column for each label
        outside of them, votes for which are wrong answers.
    y_true : array-like of str [shape=(n_utterances,)]
        The corpus' label of each utterance.
    labels : Sequence[str]
        All classes of the task.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one.
    cluster_kind : str, optional
        What a cluster is.

    Returns
    -------
    HumanCeiling
        UAR and accuracy of the votes, with intervals over clusters.

    Raises
    ------
    LabelError
        If a reference label is not in `labels`.
    UndefinedMetricError
        If there is no vote.
    """
    votes = np.asarray(counts, dtype=np.int64)
    if votes.ndim != 2 or not votes.sum():
        raise UndefinedMetricError(f"No human ceiling: counts of shape {votes.shape} hold no vote.")
    # Those outside of the labels have no name: whatever the reference is, they are wrong.
    names = np.array([*labels, *[""] * (votes.shape[1] - len(labels))])
    rows, columns = np.nonzero(votes)
    n_votes = votes[rows, columns]
    others = votes[rows]
    others[np.arange(len(rows)), columns] -= 1
    is_most = others == others.max(axis=1, keepdims=True)
    is_decided = (is_most.sum(axis=1) == 1) & (others.sum(axis=1) >= 2)
    majority = is_most.argmax(axis=1)
    is_scored = is_decided & (majority < len(labels))
    of_cluster = None if clusters is None else np.asarray(clusters)

    def score(kept: np.ndarray, references: np.ndarray) -> AnswerScores:
        taken = np.repeat(np.flatnonzero(kept), n_votes[kept])
        return score_answers(
            references[taken],
            names[columns[taken]],
            labels=labels,
            clusters=None if of_cluster is None else of_cluster[rows[taken]],
            cluster_kind=cluster_kind,
        )

    return HumanCeiling(
        against_others=score(is_scored, names[majority]) if is_scored.any() else None,
        against_label=score(np.ones(len(rows), dtype=bool), np.asarray(y_true)[rows]),
        n_tied=int(n_votes[~is_scored].sum()),
    )


def _checked(counts: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(counts, dtype=np.float64)
    if array.ndim != 2 or not (array.sum(axis=1) >= 2).any():
        raise UndefinedMetricError(
            f"{what} is undefined: of {len(array)} utterances none has two raters."
        )
    if (array.sum(axis=0) > 0).sum() == 1:
        raise UndefinedMetricError(
            f"{what} is undefined: every rater gave every utterance the same label."
        )
    return array


def _agreement_sums(counts: np.ndarray) -> np.ndarray:
    """What `_agreement` needs of each utterance [n_utterances, 4 + 2 * n_classes]."""
    n_raters = counts.sum(axis=1)
    is_rated = n_raters >= 2
    squares = (counts**2).sum(axis=1)
    pairs = np.where(is_rated, n_raters * (n_raters - 1), 1)
    agreed = np.where(is_rated, (squares - n_raters) / pairs, 0)
    disagreed = np.where(is_rated, (n_raters**2 - squares) / np.maximum(n_raters - 1, 1), 0)
    shares = counts / np.maximum(n_raters, 1)[:, np.newaxis]
    kept = counts * is_rated[:, np.newaxis]
    return np.column_stack([is_rated, n_raters > 0, agreed, disagreed, shares, kept])


def _agreement(sums: np.ndarray) -> np.ndarray:
    """Kappa and alpha of sums of `_agreement_sums` [n, 2]; NaN where undefined."""
    n_rated, n_voted, agreed, disagreed = sums[:, :4].T
    shares, kept = np.hsplit(sums[:, 4:], 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_chance = ((shares / n_voted[:, np.newaxis]) ** 2).sum(axis=1)
        kappa = (agreed / n_rated - by_chance) / (1 - by_chance)
        n_votes = kept.sum(axis=1)
        expected = (n_votes**2 - (kept**2).sum(axis=1)) / (n_votes - 1)
        alpha = 1 - disagreed / expected
    return np.column_stack([kappa, alpha])
