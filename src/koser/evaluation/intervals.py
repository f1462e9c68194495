"""Confidence intervals by a bootstrap over whole clusters.

Utterances of one speaker resemble each other, so resampling utterances pretends to more
evidence than there is. What is drawn with replacement here are whole speakers (or
whatever stands for them) [1]_ [2]_.

Every score of `koser.evaluation` is a function of sums over utterances: counts of a
confusion matrix, sums of losses. Those sums are taken once per cluster; a resample is
then a vector of how often each cluster was drawn, and all resamples together are one
matrix product, whose cost does not depend on the number of utterances.

References
----------
.. [1] Field & Welsh, "Bootstrapping clustered data", J. R. Statist. Soc. B 69(3), 2007.
.. [2] Davison & Hinkley, "Bootstrap Methods and their Application", Cambridge University
   Press, 1997, section 3.8: strategy 1, resampling of the top level only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import ConfigError, UndefinedMetricError

CONFIDENCE = 0.95
# Draws per resample that is wanted, before a sample counts as too thin to resample.
MAX_DRAWS = 50
# Entries of the matrix of drawn clusters that are held at once: 8 MB.
_CHUNK_ENTRIES = 1_000_000


@dataclass(frozen=True, eq=False)
class Intervals:
    """Percentile intervals of several scores.

    Attributes
    ----------
    low, high : np.ndarray [shape=(n_scores,)]
        The 2.5th and 97.5th percentile of each score over the resamples.
    n_redrawn : int
        Resamples that had to be drawn again because a score was undefined on them.
    """

    low: np.ndarray
    high: np.ndarray
    n_redrawn: int


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
        Sums, as `bootstrap_intervals` takes them.
    """
    cells = np.bincount(group_ids * n_ids + ids, weights, minlength=n_groups * n_ids)
    return cells.reshape(n_groups, n_ids).astype(np.float64)


def bootstrap_intervals(
    sums: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    n_resamples: int,
    seed: int,
) -> Intervals:
    """95 % percentile intervals, resampling whole clusters with replacement.

    A resample on which any score is NaN (a label that the sample has is absent from it)
    is drawn again, so the intervals hold given that every label occurs. Over few
    clusters a percentile interval is too narrow; `koser.evaluation.scoring` says when.

    Parameters
    ----------
    sums : np.ndarray [shape=(n_clusters, n_sums)]
        What the scores are functions of, summed over the utterances of each cluster.
    score : Callable
        Maps resampled sums (n, n_sums) to scores (n, n_scores), NaN where undefined.
    n_resamples : int > 0
        Number of resamples that the percentiles are taken over.
    seed : int
        The same seed on the same sums gives the same intervals.

    Returns
    -------
    Intervals
        One interval per score.

    Raises
    ------
    ConfigError
        If `n_resamples` is not positive.
    UndefinedMetricError
        If there are fewer than two clusters, or after `MAX_DRAWS` draws per wanted
        resample too many of them were undefined.
    """
    if n_resamples < 1:
        raise ConfigError(f"n_resamples = {n_resamples}: an interval needs at least one resample.")
    n_clusters = len(sums)
    if n_clusters < 2:
        raise UndefinedMetricError(
            f"resampling whole clusters needs at least 2 of them, and there is {n_clusters}"
        )
    rng = np.random.default_rng(seed)
    chunk = max(1, min(n_resamples, _CHUNK_ENTRIES // n_clusters))
    kept: list[np.ndarray] = []
    n_kept = n_drawn = 0
    while n_kept < n_resamples:
        if n_drawn >= MAX_DRAWS * n_resamples:
            raise UndefinedMetricError(
                f"only {n_kept} of {n_drawn} resamples of the {n_clusters} clusters have every "
                f"label: some labels occur in too few clusters"
            )
        scores = score(draw_counts(rng, n_resamples=chunk, n_clusters=n_clusters) @ sums)
        is_defined = np.isfinite(scores).all(axis=1)
        # Draws behind the last one that is needed are not used, so they are not counted.
        needed = np.flatnonzero(is_defined)[: n_resamples - n_kept]
        is_last = n_kept + len(needed) == n_resamples
        n_drawn += int(needed[-1]) + 1 if is_last else chunk
        n_kept += len(needed)
        kept.append(scores[needed])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(kept), [tail, 1 - tail], axis=0)
    return Intervals(low=low, high=high, n_redrawn=n_drawn - n_kept)


def draw_counts(rng: np.random.Generator, *, n_resamples: int, n_clusters: int) -> np.ndarray:
    """How often each resample holds each cluster.

    Parameters
    ----------
    rng : np.random.Generator
        Source of randomness.
    n_resamples, n_clusters : int > 0
        Size of what is drawn.

    Returns
    -------
    np.ndarray [shape=(n_resamples, n_clusters), dtype=float64]
        Non-negative whole numbers; every row sums to `n_clusters`. Floats, because only
        their matrix product runs in BLAS; whole numbers below 2**53 stay exact in it.
    """
    drawn = rng.integers(n_clusters, size=(n_resamples, n_clusters))
    drawn += np.arange(n_resamples)[:, np.newaxis] * n_clusters
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_clusters)
    return counts.reshape(n_resamples, n_clusters).astype(np.float64)
