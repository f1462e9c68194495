"""How close predicted probabilities come to what the raters said.

Conventions
-----------
`shares` are the raters' distribution, `probabilities` the system's; both have a column per
label, in the same order. Where raters disagree no single label is the truth, so a system is
held against all of them.

Metrics
-------
``js``: Jensen-Shannon divergence [1]_, base 2: 0 where both are equal, 1 where they share no label.
``kl``: Kullback-Leibler divergence of the system from the raters, in nats; defined where the
system gives every label that a rater chose more than 0.
``cross_entropy``: of the probabilities under the shares, in nats: `kl` plus the raters' own
entropy.
``top1_in_set``: how often the system's answer is among the raters' most frequent labels.

References
----------
.. [1] Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information
   Theory 37(1), 1991.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import UndefinedMetricError
from koser.evaluation.calibration import PROBABILITY_FLOOR, SUM_TOLERANCE
from koser.evaluation.intervals import Intervals, Scale, cluster_intervals, find_groups
from koser.evaluation.noting import MIN_CLUSTERS
from koser.evaluation.scoring import Score, as_scores

SCORE_NAMES = ("js", "kl", "cross_entropy", "top1_in_set")
_SCALES: tuple[Scale, ...] = ("share", "loss", "loss", "share")
# How far the raters of an utterance agree, from the least on. A single vote agrees with itself
# and says nothing, so it has a level of its own.
LEVELS = ("tied", "no majority", "majority", "unanimous", "one vote")
_TOLERANCE = 1e-6  # of shares that count as equal


@dataclass(frozen=True, eq=False)
class DistributionScores:
    """How close a system comes to its raters.

    Attributes
    ----------
    scores : dict[str, Score]
        ``js``, ``kl``, ``cross_entropy`` and ``top1_in_set``, means over utterances.
    n_utterances : int
        Utterances scored.
    n_without_kl : int
        Of them, those where ``kl`` is not defined; its mean is over the others.
    n_clusters : int or None
        None where clusters are unknown.
    notes : tuple[str, ...]
        What belongs beside the numbers.
    """

    scores: dict[str, Score]
    n_utterances: int
    n_without_kl: int
    n_clusters: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:  # Any: what JSON can hold
        """The form of ``metrics.json``."""
        return {
            **{name: score.value for name, score in self.scores.items()},
            "ci95": {name: score.bounds for name, score in self.scores.items()},
            "n": self.n_utterances,
            "n_without_kl": self.n_without_kl,
            "n_speakers": self.n_clusters,
            "notes": list(self.notes),
        }


def jensen_shannon(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence, base 2, of each row [shape=(n,)], in [0, 1].

    It is the divergence; `scipy.spatial.distance.jensenshannon` is its square root.

    Examples
    --------
    >>> jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).tolist()
    [1.0]
    """
    middle = (shares + probabilities) / 2
    both = _kullback_leibler(shares, middle) + _kullback_leibler(probabilities, middle)
    divergence: np.ndarray = np.clip(both / (2 * np.log(2)), 0.0, 1.0)
    return divergence


def top_sets(shares: np.ndarray) -> np.ndarray:
    """Which labels most raters chose: several of a tie [shape=(n, n_labels), dtype=bool]."""
    is_top: np.ndarray = shares >= shares.max(axis=1, keepdims=True) - _TOLERANCE
    return is_top


def agreement_levels(shares: np.ndarray, n_votes: np.ndarray | None = None) -> np.ndarray:
    """How far the raters of each utterance agree.

    Parameters
    ----------
    shares : np.ndarray [shape=(n_utterances, n_labels)]
        The raters' distribution.
    n_votes : np.ndarray [shape=(n_utterances,)], optional
        Votes that it rests on, where they are known.

    Returns
    -------
    np.ndarray of str [shape=(n_utterances,)]
        One of `LEVELS`. ``majority``: more than half, not all; ``no majority``: a most frequent
        label with half or less; ``tied``: no single most frequent label.

    Examples
    --------
    >>> shares = np.array([[0.5, 0.5, 0], [0.4, 0.3, 0.3], [0.6, 0.4, 0], [0, 1, 0]])
    >>> agreement_levels(shares).tolist()
    ['tied', 'no majority', 'majority', 'unanimous']
    """
    top = shares.max(axis=1)
    levels = np.select(
        [top_sets(shares).sum(axis=1) > 1, top >= 1 - _TOLERANCE, top > 0.5 + _TOLERANCE],
        ["tied", "unanimous", "majority"],
        "no majority",
    )
    if n_votes is not None:
        levels = np.where(n_votes == 1, "one vote", levels)
    return levels


def evaluate_distributions(
    shares: ArrayLike, probabilities: ArrayLike, *, clusters: ArrayLike | None = None
) -> DistributionScores:
    """Score probabilities against the raters' distributions.

    Parameters
    ----------
    shares, probabilities : array-like of float [shape=(n_utterances, n_labels)]
        What the raters said, and the system. Each row adds up to 1.
    clusters : array-like [shape=(n_utterances,)], optional
        Speaker, or what stands for one; without it there are no intervals.

    Returns
    -------
    DistributionScores
        Means over utterances, with 95 % intervals over clusters.

    Raises
    ------
    UndefinedMetricError
        If shapes differ, a row is no distribution, or an utterance has no cluster.
    """
    p, q = _checked(shares, "shares"), _checked(probabilities, "probabilities")
    if p.shape != q.shape:
        raise UndefinedMetricError(
            f"`shares` have shape {p.shape} and `probabilities` {q.shape}: one row of each is "
            f"needed for every utterance, over the same labels."
        )
    divergence = _kullback_leibler(p, q)
    has_kl = np.isfinite(divergence)
    columns = [
        np.ones(len(p)),
        jensen_shannon(p, q),
        has_kl,
        np.where(has_kl, divergence, 0.0),
        -(p * np.log(np.clip(q, PROBABILITY_FLOOR, 1))).sum(
            axis=1
        ),  # as the NLL bounds a probability of 0
        top_sets(p)[np.arange(len(p)), q.argmax(axis=1)],
    ]
    values = np.column_stack(columns).astype(np.float64)
    intervals, n_clusters, notes = _intervals(values, clusters)
    scores = as_scores(_scores(values.sum(axis=0, keepdims=True))[0], intervals)
    named = dict(zip(SCORE_NAMES, scores, strict=True))
    n_without = int((~has_kl).sum())
    if n_without:
        notes.append(
            f"KL is not defined for {n_without} of {len(p)} utterances, where the system gives 0 "
            f"to a label that a rater chose; its mean is over the others."
        )
    if n_without == len(p):
        named["kl"] = Score(None)
    return DistributionScores(named, len(p), n_without, n_clusters, tuple(notes))


def _intervals(
    values: np.ndarray, clusters: ArrayLike | None
) -> tuple[Intervals | None, int | None, list[str]]:
    """Intervals over clusters, how many there are, and what to know of them."""
    if clusters is None:
        return None, None, ["No intervals: the speakers are unknown."]
    groups = find_groups(clusters, n_utterances=len(values), what="cluster")
    n_clusters = len(groups.names)
    if n_clusters < 2:
        return None, n_clusters, ["No intervals: all utterances are of one cluster."]
    sums = np.zeros((n_clusters, values.shape[1]))
    np.add.at(sums, groups.ids, values)
    weights = sums[:, [0, 2, 0, 0]]
    notes = [f"Only {n_clusters} clusters: the intervals are wide."] * (n_clusters < MIN_CLUSTERS)
    return (
        cluster_intervals(sums, _scores, weights=weights, scales=_SCALES),
        n_clusters,
        notes,
    )


def _scores(sums: np.ndarray) -> np.ndarray:
    """`SCORE_NAMES` of summed columns [n, 4]; NaN where nothing is defined."""
    n, js, n_kl, kl, cross_entropy, hits = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.column_stack([js / n, kl / n_kl, cross_entropy / n, hits / n])


def _kullback_leibler(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) of each row in nats; infinite where `q` lacks what `p` has."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    divergence: np.ndarray = np.maximum(terms.sum(axis=1), 0.0)
    return divergence


def _checked(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array):
        raise UndefinedMetricError(
            f"`{name}` has shape {array.shape}: a row for every utterance is needed, and one at "
            f"least."
        )
    is_wrong = (array.min(axis=1) < 0) | ~(np.abs(array.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if is_wrong.any():
        raise UndefinedMetricError(
            f"{int(is_wrong.sum())} of {len(array)} rows of `{name}` are no distribution "
            f"(negative, or no sum of 1), the first: {array[is_wrong][0].tolist()}."
        )
    return array
