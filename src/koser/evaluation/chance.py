"""Is a score better than chance? For probes and canaries, which should not be.

Two questions, two tests. Whether predictions beat chance on other speakers than these is
asked of whole speakers (`uar_above_chance`); whether they know anything of labels that were
dealt at random within each speaker is asked of the deals (`permutation_p_value`), which is
exact however few speakers there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from koser.errors import UndefinedMetricError
from koser.evaluation.intervals import bootstrap_intervals, sums_per_group
from koser.evaluation.scoring import Score

# Cells of the matrix of shuffled labels that is held at once.
_CHUNK_ENTRIES = 2_000_000


@dataclass(frozen=True)
class AboveChance:
    """A UAR beside its chance level.

    Attributes
    ----------
    uar : Score
        With the 95 % interval over clusters; without one where clusters are unknown or few.
    chance : float
        1 / number of labels that have test utterances.
    p_value : float or None
        One-sided; None where too few clusters hold every label.
    n_utterances, n_clusters : int
        What it rests on.
    """

    uar: Score
    chance: float
    p_value: float | None
    n_utterances: int
    n_clusters: int


def uar_above_chance(
    label_ids: np.ndarray,
    credits: np.ndarray,
    cluster_ids: np.ndarray | None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> AboveChance:
    """UAR of graded hits, its interval, and whether whole clusters make it beat chance.

    The p-value is that of a one-sided t-test on each cluster's contribution to the UAR,
    linearised at the estimate, with as many degrees of freedom as the rarest label has
    clusters, less one.

    Parameters
    ----------
    label_ids : np.ndarray [shape=(n_utterances,)]
        Reference labels as numbers from 0.
    credits : np.ndarray [shape=(n_utterances,)]
        1 for a hit, 0 for a miss, 1 / k for a tie of k labels with the right one among them.
    cluster_ids : np.ndarray [shape=(n_utterances,)] or None
        Speakers as numbers from 0. None: each utterance counts as independent for the
        p-value, and there is no interval.
    n_resamples : int > 0
        Of the bootstrap.
    seed : int
        Of the bootstrap.

    Raises
    ------
    UndefinedMetricError
        If there is no utterance.
    """
    if not len(label_ids):
        raise UndefinedMetricError("There is no utterance to score.")
    present, label_ids = np.unique(label_ids, return_inverse=True)
    n_labels = len(present)
    clusters = np.arange(len(label_ids)) if cluster_ids is None else cluster_ids
    _, clusters = np.unique(clusters, return_inverse=True)
    n_clusters = int(clusters.max()) + 1
    sizes = {"n_groups": n_clusters, "n_ids": n_labels}
    counts = sums_per_group(clusters, label_ids, **sizes)
    hits = sums_per_group(clusters, label_ids, weights=credits, **sizes)
    total = counts.sum(axis=0)
    recall = hits.sum(axis=0) / total
    value = float(recall.mean())
    parts = ((hits - recall * counts) / total).mean(axis=1)
    error = math.sqrt(n_clusters / max(n_clusters - 1, 1) * float(np.square(parts).sum()))
    freedom = int((counts > 0).sum(axis=0).min()) - 1
    excess = value - 1 / n_labels
    p_value = None
    if freedom > 0:
        t = excess / error if error else math.copysign(math.inf, excess) if excess else 0.0
        p_value = student_t_tail(t, freedom)
    low = high = None
    if cluster_ids is not None:
        try:
            found = bootstrap_intervals(
                np.hstack([hits, counts]), _uar, n_resamples=n_resamples, seed=seed
            )
        except UndefinedMetricError:
            pass  # one cluster, or a label in too few of them: the score has no interval
        else:
            low, high = float(found.low[0]), float(found.high[0])
    return AboveChance(
        Score(value, low, high), 1 / n_labels, p_value, len(label_ids), n_clusters
    )


def student_t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t with a whole number of degrees of freedom [1]_.

    Parameters
    ----------
    t : float
        May be infinite.
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
    angle = math.atan2(t, math.sqrt(freedom)) if math.isfinite(t) else math.copysign(math.pi / 2, t)
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2
    term = cosine if is_odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if is_odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    # the probability of |T| <= t, with the sign of t
    within = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return min(1.0, max(0.0, (1 - within) / 2))


def permutation_p_value(
    label_ids: np.ndarray,
    predicted_ids: np.ndarray,
    cluster_ids: np.ndarray | None = None,
    *,
    n_permutations: int = 1999,
    seed: int = 0,
) -> float:
    """How often labels dealt anew within each cluster would score this UAR or more.

    Parameters
    ----------
    label_ids, predicted_ids : np.ndarray [shape=(n_utterances,)]
        Labels as numbers from 0.
    cluster_ids : np.ndarray [shape=(n_utterances,)], optional
        Within what labels are exchangeable; among all utterances by default.
    n_permutations : int > 0
        Deals; the smallest p-value is ``1 / (n_permutations + 1)``.
    seed : int
        Of the deals.

    Returns
    -------
    float
        In (0, 1]; the labels as they are count as one of the deals.
    """
    clusters = np.zeros(len(label_ids), np.int64) if cluster_ids is None else cluster_ids
    order = np.argsort(clusters, kind="stable")
    labels, predicted, clusters = label_ids[order], predicted_ids[order], clusters[order]
    weight = 1 / np.bincount(labels)[labels]  # each label weighs the same
    observed = weight[labels == predicted].sum()
    rng = np.random.default_rng(seed)
    n_reached = n_done = 0
    chunk = max(1, _CHUNK_ENTRIES // len(labels))
    while n_done < n_permutations:
        n_rows = min(chunk, n_permutations - n_done)
        keys = rng.random((n_rows, len(labels))) + clusters
        dealt = np.argsort(keys, axis=1)
        hits = labels[dealt] == predicted
        scores = (hits * weight[dealt]).sum(axis=1)
        n_reached += int((scores >= observed - 1e-12).sum())
        n_done += n_rows
    return (1 + n_reached) / (1 + n_permutations)


def _uar(sums: np.ndarray) -> np.ndarray:
    hits, counts = np.split(sums, 2, axis=1)
    recalls = np.full(hits.shape, np.nan)
    np.divide(hits, counts, out=recalls, where=counts > 0)
    means: np.ndarray = recalls.mean(axis=1, keepdims=True)
    return means
