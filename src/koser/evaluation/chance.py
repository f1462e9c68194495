"""Is a score better than chance? For probes and canaries, which should not be.

Two tests, because each is blind where the other sees. Whether predictions beat chance on
other speakers than these is asked of whole speakers, by a t-test on their contributions to
the UAR: it needs several speakers. Whether they know the labels within a speaker is asked by
dealing the labels of each speaker anew: exact however few speakers there are, but blind to
predictions that only tell speakers apart. Where beliefs are given beside the guesses it is
asked of them: a guess keeps only which label was likeliest, and most of what a weak hint says
is in by how much.

In a cross-validation both would be too sure. What two speakers have in common by chance then
counts twice, once when the one is tested and once when the other is, so the sum of all answers
has up to twice the variance that independent ones would have [1]_. With answers that are sums
of what each pair of utterances has in common, it is ``1 + c`` times as large, `c` being the
share of the pairs that are there both ways; both tests allow for that.

References
----------
.. [1] Bengio & Grandvalet, "No unbiased estimator of the variance of k-fold cross-validation",
   Journal of Machine Learning Research 5, 2004: the covariance between folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from koser.errors import UndefinedMetricError
from koser.evaluation.intervals import cluster_intervals, sums_per_group
from koser.evaluation.scoring import Score

# Up to so many utterances the labels are dealt; beyond, the normal limit is as good.
MAX_DEALT = 200
N_DEALS = 3_999
_NO_VARIANCE = 1e-18  # of a sum of recalls: rounding


@dataclass(frozen=True)
class AboveChance:
    """A UAR beside its chance level.

    Attributes
    ----------
    uar : Score
        With the 95 % interval over clusters; without one where clusters are unknown or few.
    chance : float
        1 / number of labels that have test utterances.
    p_value : float
        One-sided: twice the smaller one of the two tests, at most 1.
    n_utterances, n_clusters : int
        What it rests on.
    freedom : int
        Clusters of the rarest label, less one: the degrees of freedom of the t-test. At 0
        only the test within clusters was made.
    """

    uar: Score
    chance: float
    p_value: float
    n_utterances: int
    n_clusters: int
    freedom: int


def uar_above_chance(
    label_ids: np.ndarray,
    credits: np.ndarray,
    cluster_ids: np.ndarray | None,
    *,
    beliefs: np.ndarray | None = None,
    crossed: float = 0.0,
    seed: int = 0,
) -> AboveChance:
    """UAR of graded guesses, its interval, and whether it beats chance.

    Parameters
    ----------
    label_ids : np.ndarray [shape=(n_utterances,)]
        Reference labels as numbers in [0, n_labels).
    credits : np.ndarray [shape=(n_utterances, n_labels)]
        What each answer would earn: 1 for the label that was guessed; 1 / k for each of k
        labels that tie.
    cluster_ids : np.ndarray [shape=(n_utterances,)] or None
        Speakers as numbers from 0. None: each utterance counts as independent, and there is
        no interval.
    beliefs : np.ndarray [shape=(n_utterances, n_labels)], optional
        How likely each label is, every row adding up to 1; what `credits` were chosen from.
    crossed : float
        Share of the pairs of a tested utterance and one that was learnt from which are there
        the other way around too: 0 for a single test part, 1 for a cross-validation.
    seed : int
        Of the deals.

    Raises
    ------
    UndefinedMetricError
        If there is no utterance.
    """
    if not len(label_ids):
        raise UndefinedMetricError("There is no utterance to score.")
    present, labels = np.unique(label_ids, return_inverse=True)
    credits = credits[:, present]
    if cluster_ids is None:
        clusters = np.arange(len(labels))
    else:
        clusters = np.unique(cluster_ids, return_inverse=True)[1]
    tally = partial(
        sums_per_group, clusters, labels, n_groups=int(clusters.max()) + 1, n_ids=len(present)
    )
    counts, hits = tally(), tally(weights=credits[np.arange(len(labels)), labels])
    value = float((hits.sum(axis=0) / counts.sum(axis=0)).mean())
    chance = 1 / len(present)
    freedom = int((counts > 0).sum(axis=0).min()) - 1
    within = None if cluster_ids is None else clusters
    earned = credits if beliefs is None else beliefs[:, present]
    p_values = [permutation_p_value(labels, earned, within, crossed=crossed, seed=seed)]
    if freedom > 0:
        error = _standard_error(hits, counts) * math.sqrt(1 + crossed)
        p_values.append(student_t_tail((value - chance) / error, freedom))
    low, high = (None, None) if cluster_ids is None else _interval(hits, counts)
    return AboveChance(
        Score(value, low, high),
        chance,
        min(1.0, len(p_values) * min(p_values)),
        len(labels),
        len(counts),
        freedom,
    )


def permutation_p_value(
    label_ids: np.ndarray,
    credits: np.ndarray,
    cluster_ids: np.ndarray | None = None,
    *,
    crossed: float = 0.0,
    seed: int = 0,
) -> float:
    """How often labels dealt anew within each cluster would earn this UAR or more.

    Parameters
    ----------
    label_ids, credits
        As in `uar_above_chance`; of beliefs, what is earned is the mean belief in the label.
    cluster_ids : np.ndarray [shape=(n_utterances,)], optional
        Within what labels are exchangeable; among all utterances by default.
    crossed : float
        As in `uar_above_chance`: deals vary less than a cross-validation does, so what is
        earned beyond their mean is divided by the ratio of the standard deviations.
    seed : int
        Of the deals.

    Returns
    -------
    float
        In (0, 1]. Up to `MAX_DEALT` utterances from `N_DEALS` deals, the labels as they are
        being one more; beyond, from the normal limit of the deals' distribution [1]_.

    References
    ----------
    .. [1] Hoeffding, "A combinatorial central limit theorem", Annals of Mathematical
       Statistics 22(4), 1951.
    """
    clusters = np.zeros(len(label_ids), np.int64) if cluster_ids is None else cluster_ids
    order = np.argsort(clusters, kind="stable")
    labels, clusters = label_ids[order], clusters[order]
    # each label weighs the same
    earned = credits[order] / np.maximum(np.bincount(labels, minlength=credits.shape[1]), 1)
    observed = earned[np.arange(len(labels)), labels].sum()
    if len(labels) > MAX_DEALT:
        mean, variance = _moments(labels, earned, clusters)
        if variance < _NO_VARIANCE:  # every deal earns the same
            return 1.0
        return 0.5 * math.erfc((observed - mean) / math.sqrt(2 * variance * (1 + crossed)))
    rng = np.random.default_rng(seed)
    dealt = labels[np.argsort(rng.random((N_DEALS, len(labels))) + clusters, axis=1)]
    totals = earned[np.arange(len(labels)), dealt].sum(axis=1)
    if crossed:
        observed = totals.mean() + (observed - totals.mean()) / math.sqrt(1 + crossed)
    return float((1 + np.count_nonzero(totals >= observed - 1e-12)) / (1 + N_DEALS))


def student_t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t with a whole number of degrees of freedom [1]_.

    Parameters
    ----------
    t : float
        Any number.
    freedom : int > 0
        Degrees of freedom.

    References
    ----------
    .. [1] Abramowitz & Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.

    Examples
    --------
    >>> round(student_t_tail(4.2968, 9), 6), student_t_tail(0.0, 5)
    (0.001, 0.5)
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2
    term = cosine if is_odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if is_odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    # the probability of |T| <= |t|, with the sign of t
    within = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return min(1.0, max(0.0, (1 - within) / 2))


def _standard_error(hits: np.ndarray, counts: np.ndarray) -> float:
    """Of the UAR over clusters, linearised; never below that of independent utterances.

    A few clusters may agree by chance, and a perfect score has no spread at all: half a hit
    and half a miss are added to every label there.
    """
    total = counts.sum(axis=0)
    parts = ((hits - hits.sum(axis=0) / total * counts) / total).mean(axis=1)
    between = len(hits) / max(len(hits) - 1, 1) * float(np.square(parts).sum())
    recall = (hits.sum(axis=0) + 0.5) / (total + 1)
    within = float((recall * (1 - recall) / total).sum()) / len(total) ** 2
    return math.sqrt(max(between, within))


def _interval(hits: np.ndarray, counts: np.ndarray) -> tuple[float | None, float | None]:
    if len(counts) < 2:
        return None, None
    weights = counts.sum(axis=1, keepdims=True)
    sums = np.hstack([hits, counts])
    found = cluster_intervals(sums, _uar, weights=weights, scales=["share"])
    if not np.isfinite(found.low[0]):  # without one of the clusters a label is absent
        return None, None
    return float(found.low[0]), float(found.high[0])


def _uar(sums: np.ndarray) -> np.ndarray:
    hits, counts = np.split(sums, 2, axis=1)
    recalls = np.full(hits.shape, np.nan)
    np.divide(hits, counts, out=recalls, where=counts > 0)
    means: np.ndarray = recalls.mean(axis=1, keepdims=True)
    return means


def _moments(labels: np.ndarray, earned: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Mean and variance of what is earned when labels are dealt within ordered clusters."""
    n_labels = earned.shape[1]
    starts = np.flatnonzero(np.diff(clusters, prepend=clusters[0] - 1))
    size = np.diff(np.append(starts, len(labels))).astype(np.float64)
    owner = np.repeat(np.arange(len(size)), size.astype(np.int64))
    dealt = sums_per_group(owner, labels, n_groups=len(size), n_ids=n_labels)
    share = dealt / size[:, np.newaxis]
    column = np.add.reduceat(earned, starts, axis=0) / size[:, np.newaxis]  # mean over rows
    row = (earned * share[owner]).sum(axis=1)  # mean over the cluster's labels
    grand = (column * share).sum(axis=1)
    centred = earned - row[:, np.newaxis] - column[owner] + grand[owner, np.newaxis]
    squares = np.add.reduceat((np.square(centred) * dealt[owner]).sum(axis=1), starts)
    variance = np.divide(squares, size - 1, out=np.zeros_like(size), where=size > 1)
    return float((grand * size).sum()), float(variance.sum())
