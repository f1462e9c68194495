"""Percentile intervals of whole clusters drawn with replacement.

What is drawn are not utterances but speakers, or whatever stands for them [1]_ [2]_. A
resample is a vector of how often each cluster was drawn, and all resamples together are
one matrix product with the sums per cluster, whose cost does not depend on the number of
utterances.

With few clusters these intervals are too narrow, see `koser.evaluation.intervals`. They
stand beside the others where two systems are compared, for whoever expects a paired
bootstrap.

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

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.intervals import CONFIDENCE

# Draws per resample that is wanted, before a sample counts as too thin to resample.
MAX_DRAWS = 50
# Entries of the matrix of drawn clusters that are held at once: 8 MB.
_CHUNK_ENTRIES = 1_000_000


@dataclass(frozen=True, eq=False)
class Percentiles:
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


def bootstrap_intervals(
    sums: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    n_resamples: int,
    seed: int,
) -> Percentiles:
    """95 % percentile intervals, resampling whole clusters with replacement.

    A resample on which any score is NaN (a label that the sample has is absent from it)
    is drawn again, so the intervals hold given that every label occurs.

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
    Percentiles
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
    return Percentiles(low=low, high=high, n_redrawn=n_drawn - n_kept)


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
