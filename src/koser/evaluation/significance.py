"""Tests of whether two systems differ, and the correction for making many of them.

`permutation_test` swaps what two systems answered for whole clusters; `mcnemar` counts
the utterances that only one of them has right; `holm` corrects p-values for their number.
No p-value is ever 0: what was observed is itself one of the possible swaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from koser.errors import ConfigError, UndefinedMetricError

# Up to this many swaps (16 clusters) all are tried; beyond, as many random ones.
MAX_EXACT = 2**16
N_PERMUTATIONS = 10_000
# Sums of the same terms in another order differ in their last digits.
_TIE_TOLERANCE = 1e-12
# Entries of the matrix of swaps that are held at once: 8 MB.
_CHUNK_ENTRIES = 1_000_000


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Two-sided p-values of the differences between two systems.

    Attributes
    ----------
    p_values : np.ndarray [shape=(n_scores,)]
        In (0, 1]: the share of swaps whose difference is at least as large.
    n_permutations : int
        Swaps tried, the one observed included.
    is_exact : bool
        Whether these are all that exist.
    n_informative : int
        Clusters on which the sides differ at all. The smallest p-value possible is
        ``2 / 2**n_informative``.
    """

    p_values: np.ndarray
    n_permutations: int
    is_exact: bool
    n_informative: int


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether utterances that only one side has right fall evenly.

    Attributes
    ----------
    n_only_first, n_only_second : int
        Utterances that only this side has right.
    p_exact : float
        Two-sided binomial test of these two counts.
    p_corrected : float
        From chi-squared with one degree of freedom, with Edwards' continuity correction.
    """

    n_only_first: int
    n_only_second: int
    p_exact: float
    p_corrected: float


def permutation_test(
    first: np.ndarray,
    second: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> PermutationTest:
    """Test differences by swapping the two sides' results for whole clusters.

    If the systems were equally good, it would be chance which of them gave which of a
    cluster's two sets of answers [1]_. With at most `MAX_EXACT` swaps all are tried; else
    `n_permutations` random ones beside the observed, which counts as one of them so that
    the p-value is valid and never 0 [2]_.

    Parameters
    ----------
    first, second : np.ndarray [shape=(n_clusters, n_sums)]
        What the scores are functions of, summed over the utterances of each cluster.
    score : Callable
        Maps sums (n, n_sums) to scores (n, n_scores).
    n_permutations : int > 0
        Random swaps, where not all are tried.
    seed : int
        Of the random swaps.

    Returns
    -------
    PermutationTest
        One p-value per score.

    Raises
    ------
    ConfigError
        If `n_permutations` is not positive.
    UndefinedMetricError
        If there are no clusters.

    References
    ----------
    .. [1] Noreen, "Computer-Intensive Methods for Testing Hypotheses", Wiley, 1989.
    .. [2] Phipson & Smyth, "Permutation P-values Should Never Be Zero", Stat. Appl. Genet.
       Mol. Biol. 9(1), 2010.
    """
    if n_permutations < 1:
        raise ConfigError(f"n_permutations = {n_permutations}: a test needs at least one swap.")
    if not len(first):
        raise UndefinedMetricError("there is no cluster to swap")
    shift = second - first
    # A cluster with equal results on both sides changes nothing when it is swapped.
    shift = shift[np.abs(shift).max(axis=1) > _TIE_TOLERANCE]
    start, total = first.sum(axis=0), first.sum(axis=0) + second.sum(axis=0)

    def differences(swaps: np.ndarray) -> np.ndarray:
        of_first = start + swaps @ shift
        gained: np.ndarray = score(of_first) - score(total - of_first)
        return gained

    n_informative = len(shift)
    observed = np.abs(differences(np.zeros((1, n_informative)))[0]) - _TIE_TOLERANCE
    is_exact = 2**n_informative <= MAX_EXACT
    if is_exact:
        swaps = _all_swaps(n_informative)
    else:
        swaps = _random_swaps(n_informative, n_permutations, np.random.default_rng(seed))
    n_reached = sum((np.abs(differences(each)) >= observed).sum(axis=0) for each in swaps)
    if is_exact:
        # Swapping all clusters turns only the sign: half of the swaps stand for all.
        n_tried = max(1, 2 ** (n_informative - 1)) if n_informative else 1
        return PermutationTest(n_reached / n_tried, 2**n_informative, True, n_informative)
    p_values = (1 + n_reached) / (1 + n_permutations)
    return PermutationTest(p_values, 1 + n_permutations, False, n_informative)


def _all_swaps(n_clusters: int) -> Iterator[np.ndarray]:
    """Every choice of clusters without the first one, in chunks [n, n_clusters] of 0 and 1."""
    n_swaps = 2 ** max(0, n_clusters - 1)
    chunk = max(1, _CHUNK_ENTRIES // max(1, n_clusters))
    for first in range(0, n_swaps, chunk):
        numbers = np.arange(first, min(first + chunk, n_swaps))
        bits = numbers[:, np.newaxis] >> np.arange(n_clusters)[::-1] & 1
        yield bits.astype(np.float64)


def _random_swaps(n_clusters: int, n_swaps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    chunk = max(1, _CHUNK_ENTRIES // n_clusters)
    for first in range(0, n_swaps, chunk):
        size = (min(chunk, n_swaps - first), n_clusters)
        yield rng.integers(2, size=size).astype(np.float64)


def mcnemar(is_right_first: np.ndarray, is_right_second: np.ndarray) -> McNemar:
    """Test whether two systems have equally many utterances right [1]_ [2]_.

    Utterances count as independent, which those of one speaker are not: between systems
    that differ from speaker to speaker the p-value is too small. Read it beside
    `permutation_test`, not instead of it.

    Parameters
    ----------
    is_right_first, is_right_second : np.ndarray [shape=(n_utterances,)]
        Whether each utterance was recognised.

    Returns
    -------
    McNemar
        Exact and continuity-corrected.

    Raises
    ------
    UndefinedMetricError
        If the shapes differ.

    References
    ----------
    .. [1] McNemar, "Note on the sampling error of the difference between correlated
       proportions or percentages", Psychometrika 12(2), 1947.
    .. [2] Edwards, "Note on the correction for continuity in testing the significance of the
       difference between correlated proportions", Psychometrika 13(3), 1948.

    Examples
    --------
    >>> test = mcnemar(np.array([True] * 9 + [False]), np.array([False] * 9 + [True]))
    >>> test.n_only_first, test.n_only_second, round(test.p_exact, 4)
    (9, 1, 0.0215)
    """
    if is_right_first.shape != is_right_second.shape:
        raise UndefinedMetricError(
            f"McNemar's test needs pairs, not {is_right_first.shape} and "
            f"{is_right_second.shape} answers."
        )
    n_first = int((is_right_first & ~is_right_second).sum())
    n_second = int((~is_right_first & is_right_second).sum())
    n_either = n_first + n_second
    if not n_either:
        return McNemar(0, 0, 1.0, 1.0)
    # In integers: for thousands of utterances 2**n exceeds any float.
    term = tail = 1
    for count in range(min(n_first, n_second)):
        term = term * (n_either - count) // (count + 1)
        tail += term
    p_exact = min(1.0, 2 * tail / 2**n_either) if n_first != n_second else 1.0
    statistic = max(0, abs(n_first - n_second) - 1) ** 2 / n_either
    return McNemar(n_first, n_second, p_exact, math.erfc(math.sqrt(statistic / 2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for being several, by Holm's step-down method [1]_.

    Parameters
    ----------
    p_values : Sequence[float]
        Of all tests that were made together, each in [0, 1].

    Returns
    -------
    list[float]
        Adjusted p-values, in the same order: below .05 for every difference that stands
        while the chance of any false one among them stays below 5 %.

    Raises
    ------
    ConfigError
        If one is not in [0, 1].

    References
    ----------
    .. [1] Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
       Journal of Statistics 6(2), 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ConfigError(f"p-values are between 0 and 1, not {list(p_values)}.")
    order = values.argsort(kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * values[order]))
    result: list[float] = adjusted.tolist()
    return result
