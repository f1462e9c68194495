"""Answering only when sure: how the error falls as fewer utterances are answered.

An utterance is answered if the confidence, the probability of the top label, reaches a
threshold [1]_ [2]_. `risk_coverage` shows what every threshold would give on the same
utterances; a threshold that is to be used is chosen on others (`threshold_for_coverage`,
`threshold_for_risk`, on val) and then tested (`evaluate_selection`).

References
----------
.. [1] El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification",
   JMLR 11, 2010.
.. [2] Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks", NIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.intervals import Intervals, cluster_intervals, find_groups, sums_per_group
from koser.evaluation.scoring import Score, as_scores

# A risk over fewer answers than this is chance.
MIN_ANSWERED = 30
# What a threshold may be wanted for.
COVERAGES = (0.9, 0.8, 0.7, 0.5)
RISKS = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk-coverage curve of one set of answers.

    Attributes
    ----------
    coverage : np.ndarray [shape=(n_thresholds,)]
        Share of the utterances that are answered, ascending, the last being 1.
    risk : np.ndarray [shape=(n_thresholds,)]
        Share of wrong ones among them.
    threshold : np.ndarray [shape=(n_thresholds,)]
        The confidence from which on they are answered, descending.
    aurc : float
        Area under the curve: the mean risk over all numbers of answered utterances.
    aurc_best, aurc_chance : float
        That of confidences which rank all wrong answers last, and of random ones, which is
        the error rate.
    """

    coverage: np.ndarray
    risk: np.ndarray
    threshold: np.ndarray
    aurc: float
    aurc_best: float
    aurc_chance: float

    def risk_at(self, coverage: float) -> float:
        """Risk when at least this share is answered, and no more than confidences allow."""
        return float(self.risk[np.searchsorted(self.coverage, coverage - 1e-12)])


@dataclass(frozen=True)
class Threshold:
    """A confidence from which on a system should answer, chosen on its val part.

    Attributes
    ----------
    aim : {'coverage', 'risk'}
        What was wanted.
    wanted : float
        Share of utterances to answer at least, or share of wrong answers at most.
    value : float or None
        The threshold; None where none reaches what was wanted.
    """

    aim: Literal["coverage", "risk"]
    wanted: float
    value: float | None


@dataclass(frozen=True)
class Selection:
    """What a threshold gives on utterances that it was not chosen on.

    Attributes
    ----------
    coverage : Score
        Share answered.
    accuracy : Score
        Share of right ones among the answered; None if nothing is answered.
    n_answered, n_answers : int
        Answered, and all.
    """

    coverage: Score
    accuracy: Score
    n_answered: int
    n_answers: int


def risk_coverage(confidences: ArrayLike, is_right: ArrayLike) -> RiskCoverage:
    """Risk at every coverage that thresholds on the confidence can reach.

    Equal confidences are answered together. Within them the area takes the errors as evenly
    spread, which is their mean over all orders, so that the order of rows does not matter.

    Parameters
    ----------
    confidences : array-like of float [shape=(n_answers,)]
        Higher is surer.
    is_right : array-like of bool [shape=(n_answers,)]
        Whether each answer is right.

    Returns
    -------
    RiskCoverage
        The curve and the area under it [1]_.

    Raises
    ------
    UndefinedMetricError
        If there is no answer, the shapes differ or a confidence is not finite.

    References
    ----------
    .. [1] Geifman, Uziel & El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
       Classifiers", ICLR 2019.

    Examples
    --------
    >>> curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    >>> curve.risk.round(3).tolist(), round(curve.aurc, 4)
    ([0.0, 0.0, 0.333, 0.25], 0.1458)
    """
    sure, right = _checked(confidences, is_right)
    n_answers = len(sure)
    distinct, places = np.unique(-sure, return_inverse=True)  # the surest first
    n_of = np.bincount(places)
    n_wrong = np.bincount(places, weights=~right)
    answered, wrong = np.cumsum(n_of), np.cumsum(n_wrong)
    # Errors after each single answer: straight between the ends of a group of equals.
    each = np.arange(1, n_answers + 1)
    wrong_after = np.interp(each, np.append(0, answered), np.append(0.0, wrong))
    n_right = int(right.sum())
    best = np.maximum(0, each - n_right) / each
    return RiskCoverage(
        coverage=answered / n_answers,
        risk=wrong / answered,
        threshold=-distinct,
        aurc=float((wrong_after / each).mean()),
        aurc_best=float(best.mean()),
        aurc_chance=1 - n_right / n_answers,
    )


def threshold_for_coverage(confidences: ArrayLike, coverage: float) -> float:
    """The highest threshold that answers at least a share of the utterances.

    Parameters
    ----------
    confidences : array-like of float [shape=(n_answers,)]
        Of utterances that are not the ones to be tested.
    coverage : float
        In (0, 1].

    Returns
    -------
    float
        One of the confidences.

    Raises
    ------
    ConfigError
        If `coverage` is outside (0, 1].
    UndefinedMetricError
        If there are no confidences.

    Examples
    --------
    >>> threshold_for_coverage([0.9, 0.8, 0.7, 0.6], 0.5)
    0.8
    """
    if not 0 < coverage <= 1:
        raise ConfigError(f"coverage = {coverage}: give a share above 0 and up to 1.")
    sure, _ = _checked(confidences, np.ones(np.shape(confidences), dtype=bool))
    n_answered = int(np.ceil(coverage * len(sure) - 1e-9))
    return float(np.sort(sure)[::-1][n_answered - 1])


def threshold_for_risk(confidences: ArrayLike, is_right: ArrayLike, risk: float) -> float | None:
    """The lowest threshold at which the share of wrong answers is at most `risk`.

    The risk on these utterances is taken as it is. It was chosen for being low, so that on
    others it is on average somewhat higher: test it.

    Parameters
    ----------
    confidences : array-like of float [shape=(n_answers,)]
        Of utterances that are not the ones to be tested.
    is_right : array-like of bool [shape=(n_answers,)]
        Whether each answer is right.
    risk : float
        In [0, 1).

    Returns
    -------
    float or None
        None if no threshold that answers at least `MIN_ANSWERED` utterances reaches it.

    Raises
    ------
    ConfigError
        If `risk` is outside [0, 1).
    UndefinedMetricError
        As `risk_coverage`.
    """
    if not 0 <= risk < 1:
        raise ConfigError(f"risk = {risk}: give a share from 0 to below 1.")
    curve = risk_coverage(confidences, is_right)
    n_answered = curve.coverage * len(np.asarray(confidences))
    reached = np.flatnonzero((curve.risk <= risk) & (n_answered >= MIN_ANSWERED - 1e-6))
    return float(curve.threshold[reached[-1]]) if reached.size else None


def choose_thresholds(confidences: ArrayLike, is_right: ArrayLike) -> tuple[Threshold, ...]:
    """A threshold for each of `COVERAGES`, then for each of `RISKS`.

    Parameters
    ----------
    confidences : array-like of float [shape=(n_answers,)]
        Of utterances that are not the ones to be tested; may be none.
    is_right : array-like of bool [shape=(n_answers,)]
        Whether each answer is right.

    Returns
    -------
    tuple[Threshold, ...]
        Without values where there are fewer than `MIN_ANSWERED` utterances.
    """
    has_enough = len(np.asarray(confidences)) >= MIN_ANSWERED
    coverages = [
        Threshold(
            "coverage", wanted, threshold_for_coverage(confidences, wanted) if has_enough else None
        )
        for wanted in COVERAGES
    ]
    risks = [
        Threshold(
            "risk",
            wanted,
            threshold_for_risk(confidences, is_right, wanted) if has_enough else None,
        )
        for wanted in RISKS
    ]
    return (*coverages, *risks)


def evaluate_selection(
    is_answered: ArrayLike, is_right: ArrayLike, *, clusters: ArrayLike | None = None
) -> Selection:
    """Coverage and selective accuracy, with intervals over clusters.

    Parameters
    ----------
    is_answered : array-like of bool [shape=(n_answers,)]
        Whether each utterance's confidence reaches the threshold.
    is_right : array-like of bool [shape=(n_answers,)]
        Whether its answer is right.
    clusters : array-like [shape=(n_answers,)], optional
        Speaker, or what stands for one; without it there are no intervals.

    Returns
    -------
    Selection
        The interval of a share that a single cluster decides is missing.

    Raises
    ------
    UndefinedMetricError
        If there is no answer, or the shapes differ.
    """
    answered = np.asarray(is_answered, dtype=bool)
    _, right = _checked(answered, is_right)
    ids, n_clusters = np.zeros(len(answered), np.int64), 1
    if clusters is not None:
        groups = find_groups(clusters, n_utterances=len(answered), what="cluster")
        ids, n_clusters = groups.ids, len(groups.names)
    kinds = answered.astype(np.int64) + (answered & right)  # 0 not, 1 wrong, 2 right
    sums = sums_per_group(ids, kinds, n_groups=n_clusters, n_ids=3)

    def score(some_sums: np.ndarray) -> np.ndarray:
        n_answered = some_sums[:, 1:].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = some_sums[:, 2] / n_answered
        return np.column_stack([n_answered / some_sums.sum(axis=1), accuracy])

    intervals: Intervals | None = None
    if n_clusters > 1:
        weights = np.column_stack([sums.sum(axis=1), sums[:, 1:].sum(axis=1)])
        intervals = cluster_intervals(sums, score, weights=weights, scales=["share", "share"])
    values = score(sums.sum(axis=0, keepdims=True))[0]
    coverage, accuracy = as_scores(values, intervals)
    n_answered = int(answered.sum())
    return Selection(coverage, accuracy if n_answered else Score(None), n_answered, len(answered))


def _checked(confidences: ArrayLike, is_right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    sure = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(is_right, dtype=bool)
    if sure.ndim != 1 or not sure.size or sure.shape != right.shape:
        raise UndefinedMetricError(
            f"confidences of shape {sure.shape} and answers of shape {right.shape}: one of each "
            f"is needed for every utterance, of at least one utterance."
        )
    if not np.isfinite(sure).all():
        raise UndefinedMetricError(
            f"{int((~np.isfinite(sure)).sum())} of {sure.size} confidences are not finite."
        )
    return sure, right
