"""Confidence intervals that take whole clusters for the units of evidence.

Utterances of one speaker resemble each other, so an interval over utterances pretends to
more evidence than there is: with twenty utterances each, of speakers that differ as they
do in practice, a 95 % interval over utterances holds the truth 65 % of the time.

Every score of `koser.evaluation` is a function of sums over utterances: counts of a
confusion matrix, sums of losses. Those sums are taken once per cluster, so an interval
costs as little for a million utterances as for a hundred.

`cluster_intervals` is what every score has. `koser.evaluation.bootstrap`, the usual other
way, is too narrow for as few speakers as speech corpora have: of its 95 % intervals 79 to
83 % hold the truth with 5 speakers, 88 to 94 % with 24; of these 94 to 98 % do, with any
number (`benchmarks/25_interval_coverage.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError

CONFIDENCE = 0.95
# Equal shares of clusters of different size differ in their last digits.
_ROUNDING = 1e-12
_LEGENDRE = np.polynomial.legendre.leggauss(64)

# What a score is: a share in [0, 1], a loss above 0, or a difference of two shares.
Scale = Literal["share", "loss", "difference"]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of several scores.

    Attributes
    ----------
    low, high : np.ndarray [shape=(n_scores,)]
        Bounds; NaN where a score has no interval.
    degrees : np.ndarray [shape=(n_scores,)]
        Degrees of freedom of each.
    is_flat : np.ndarray [shape=(n_scores,), dtype=bool]
        Whether a score has no interval because it is the same in every cluster.
    """

    low: np.ndarray
    high: np.ndarray
    degrees: np.ndarray
    is_flat: np.ndarray


@dataclass(frozen=True, eq=False)
class Groups:
    """Utterances by the group they belong to.

    Attributes
    ----------
    names : tuple[str, ...]
        Distinct groups, ordered.
    ids : np.ndarray [shape=(n_utterances,), dtype=int64]
        Position in `names` of each utterance's group.
    """

    names: tuple[str, ...]
    ids: np.ndarray


def find_groups(values: ArrayLike, *, n_utterances: int, what: str) -> Groups:
    """Number the clusters or folds that utterances belong to.

    Parameters
    ----------
    values : array-like of str or int [shape=(n_utterances,)]
        Cluster or fold of each utterance.
    n_utterances : int > 0
        Number of scored utterances.
    what : str
        ``"cluster"`` or ``"fold"``, for messages.

    Returns
    -------
    Groups
        The same groups whatever the order of the rows.

    Raises
    ------
    UndefinedMetricError
        If the shape is another, or an utterance has no group.
    """
    array = np.asarray(values)
    if array.shape != (n_utterances,):
        raise UndefinedMetricError(
            f"`{what}s` has shape {array.shape}, not {(n_utterances,)}: "
            f"give the {what} of every scored utterance."
        )
    # NaN is what a missing value becomes on its way through a table of floats.
    n_missing = sum(value is None or value != value for value in array.tolist())
    if n_missing:
        raise UndefinedMetricError(
            f"{n_missing} of {n_utterances} utterances have no {what}. "
            f"Give them one, or leave these utterances out and report how many."
        )
    distinct, ids = np.unique(array, return_inverse=True)
    return Groups(tuple(str(name) for name in distinct.tolist()), ids)


def sums_per_group(
    group_ids: np.ndarray,
    ids: np.ndarray,
    *,
    n_groups: int,
    n_ids: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Count utterances by group and by some other number; or sum weights instead.

    Parameters
    ----------
    group_ids : np.ndarray [shape=(n_utterances,)]
        Values in [0, n_groups).
    ids : np.ndarray [shape=(n_utterances,)]
        Values in [0, n_ids), such as cells of a confusion matrix.
    n_groups, n_ids : int > 0
        Size of the result.
    weights : np.ndarray [shape=(n_utterances,)], optional
        What an utterance adds; 1 by default.

    Returns
    -------
    np.ndarray [shape=(n_groups, n_ids), dtype=float64]
        Sums, as `cluster_intervals` takes them.
    """
    cells = np.bincount(group_ids * n_ids + ids, weights, minlength=n_groups * n_ids)
    return cells.reshape(n_groups, n_ids).astype(np.float64)


def cluster_intervals(
    sums: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    weights: np.ndarray,
    scales: Sequence[Scale],
    confidence: float = CONFIDENCE,
) -> Intervals:
    """Intervals by a jackknife over whole clusters.

    Every score is also taken without each of the n clusters in turn; its squared standard
    error is (n - 1) / n times the sum of squares of these values about their mean [1]_ [2]_.
    Shares are taken to the logit scale and losses to the logarithm, so that an interval ends
    where the score does. Student's t has n - 1 degrees of freedom if the clusters weigh the
    same; else their effective number, Kish's ``sum(w)² / sum(w²)`` [3]_, takes the place of n.
    That n itself is too many is known [4]_; that this is enough was found by simulation, not
    proven.

    A score that is the same in every cluster has no interval, a difference of 0 neither: that few
    agree by chance says nothing about others. Only a share of exactly 0 or 1 has a bound then.
    Where all n clusters are without an error, a cluster has one with a probability of
    ``1 - tail ** (1 / n)`` at most (`tail` being half of ``1 - confidence``), and the bound is
    as if it then were all wrong.

    Parameters
    ----------
    sums : np.ndarray [shape=(n_clusters, n_sums)]
        What the scores are functions of, summed over the utterances of each cluster.
    score : Callable
        Maps sums (n, n_sums) to scores (n, n_scores), NaN where undefined.
    weights : np.ndarray [shape=(n_clusters, n_scores)]
        Weight of each cluster in each score, such as its number of utterances; 0 where it
        says nothing about it.
    scales : Sequence[Scale]
        What each score is.
    confidence : float
        In (0, 1).

    Returns
    -------
    Intervals
        One per score; none for a score that is undefined without one of the clusters, or flat.

    Raises
    ------
    UndefinedMetricError
        If there are fewer than two clusters.

    References
    ----------
    .. [1] Efron & Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993,
       chapter 11.
    .. [2] MacKinnon, Nielsen & Webb, "Fast and reliable jackknife and bootstrap methods for
       cluster-robust inference", Journal of Applied Econometrics 38(5), 2023.
    .. [3] Kish, "Survey Sampling", Wiley, 1965, section 11.7.
    .. [4] Carter, Schnepel & Steigerwald, "Asymptotic Behavior of a t-Test Robust to Cluster
       Heterogeneity", Review of Economics and Statistics 99(4), 2017.
    """
    n_clusters = len(sums)
    if n_clusters < 2:
        raise UndefinedMetricError(
            f"an interval over whole clusters needs at least 2 of them, and there is {n_clusters}"
        )
    total = sums.sum(axis=0)
    values = score(total[np.newaxis])[0]
    without = score(total - sums)
    squares = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    errors = np.sqrt((n_clusters - 1) / n_clusters * squares)
    # Two clusters of very different weight would have less than 1.
    degrees = np.maximum(effective_number(weights) - 1, 1.0)
    tail = (1 - confidence) / 2
    distinct, places = np.unique(degrees, return_inverse=True)
    quantiles = np.array([student_t_quantile(1 - tail, each) for each in distinct.tolist()])
    low, high = _bounds(values, errors * quantiles[places], np.array(scales))
    farthest = tail ** (1 / np.maximum((weights > 0).sum(axis=0), 1))
    is_share = np.array(scales) == "share"
    # Quotients of equal counts are 1 exactly.
    low = np.where(is_share & (values == 1), farthest, low)
    high = np.where(is_share & (values == 0), 1 - farthest, high)
    is_end = is_share & ((values == 0) | (values == 1))
    # A difference near 0 has no size of its own.
    size = np.where(np.array(scales) == "difference", 1.0, np.abs(values))
    is_flat = (errors <= _ROUNDING * size) & ~is_end
    is_defined = np.isfinite(errors) & np.isfinite(low) & np.isfinite(high) & ~is_flat
    low, high = (np.where(is_defined, bound, np.nan) for bound in (low, high))
    return Intervals(low, high, degrees, is_flat)


def effective_number(weights: np.ndarray) -> np.ndarray:
    """How many clusters of equal weight say as much as these: Kish's sum(w)² / sum(w²).

    Parameters
    ----------
    weights : np.ndarray [shape=(n_clusters, ...)]
        Not negative.

    Returns
    -------
    np.ndarray [shape=(...)]
        In [1, n_clusters]; 0 where all weights are.
    """
    squares = (weights**2).sum(axis=0)
    number: np.ndarray = weights.sum(axis=0) ** 2 / np.where(squares > 0, squares, 1)
    return number


def balanced_weights(n_true: np.ndarray) -> np.ndarray:
    """Weight of each cluster in a mean over classes: its shares of all classes, summed.

    Parameters
    ----------
    n_true : np.ndarray [shape=(n_clusters, n_classes)]
        Reference utterances of each cluster; every class has some.

    Returns
    -------
    np.ndarray [shape=(n_clusters,)]
        As `cluster_intervals` takes them.
    """
    weights: np.ndarray = (n_true / n_true.sum(axis=0)).sum(axis=1)
    return weights


def student_t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t distribution.

    With t = sqrt(degrees) * tan(angle), the density of the angle is proportional to
    cos(angle) ** (degrees - 1); it is integrated by Gauss-Legendre quadrature and the
    quantile found by bisection.

    Parameters
    ----------
    probability : float
        In [0.5, 1).
    degrees : float >= 1
        Degrees of freedom, not only whole numbers.

    Returns
    -------
    float
        Accurate to 1e-8 of its size up to a probability of 0.999.

    Examples
    --------
    >>> round(student_t_quantile(0.975, 4), 4)
    2.7764
    """
    nodes, node_weights = _LEGENDRE
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(math.pi) / 2
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        angles = angle / 2 * (nodes + 1)
        density = np.exp(log_scale + (degrees - 1) * np.log(np.cos(angles)))
        if 0.5 + angle / 2 * float(node_weights @ density) < probability:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan(low)


def _bounds(
    values: np.ndarray, margins: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values ± margins (both on the score's own scale) on the scale that suits the score."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logits, logs = np.log(values / (1 - values)), np.log(values)
        sides = []
        for sign in (-1, 1):
            as_share = 1 / (1 + np.exp(-logits - sign * margins / (values * (1 - values))))
            as_loss = np.exp(logs + sign * margins / values)
            as_difference = np.clip(values + sign * margins, -1, 1)
            is_boundary = (values == 0) | (values == 1)
            as_share = np.where(is_boundary, values, as_share)
            chosen = np.where(scales == "loss", as_loss, as_difference)
            sides.append(np.where(scales == "share", as_share, chosen))
    return sides[0], sides[1]
