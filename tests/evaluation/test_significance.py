"""Tests between two systems against SciPy, statsmodels and enumeration by hand."""

from itertools import product

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation import significance
from koser.evaluation.significance import holm, mcnemar, permutation_test


def means(sums):
    return sums[:, :1] / 10


def paired_sums(seed, n_clusters, *, shift=0.0):
    """Two systems' sums per cluster, whole numbers; the second is better by `shift`."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 8, (n_clusters, 1)).astype(float)
    return first, first + rng.integers(-3, 4, (n_clusters, 1)) + shift


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_clusters", [2, 5, 10])
def test_exact_p_values_agree_with_scipy(seed, n_clusters):
    first, second = paired_sums(seed, n_clusters, shift=1)
    found = permutation_test(first, second, means)
    expected = scipy.stats.permutation_test(
        (first[:, 0], second[:, 0]),
        lambda a, b, axis: np.abs(a.sum(axis=axis) - b.sum(axis=axis)),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert found.is_exact
    assert found.p_values[0] == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.n_permutations == 2**found.n_informative


def test_a_score_that_is_no_sum_is_swapped_by_cluster_as_by_hand():
    rng = np.random.default_rng(0)
    first, second = rng.integers(1, 9, (2, 6, 2)).astype(float)

    def ratios(sums):
        return sums[:, :1] / sums.sum(axis=1, keepdims=True)

    differences = []
    for swaps in product([False, True], repeat=6):
        swapped = np.array(swaps)[:, np.newaxis]
        one, other = np.where(swapped, second, first), np.where(swapped, first, second)
        one, other = one.sum(axis=0), other.sum(axis=0)
        differences.append(abs(one[0] / one.sum() - other[0] / other.sum()))
    expected = np.mean(np.array(differences) >= differences[0] - 1e-12)
    assert permutation_test(first, second, ratios).p_values[0] == pytest.approx(expected)


def test_random_swaps_come_near_the_exact_p_value():
    first, second = paired_sums(1, 14, shift=0.4)
    exact = permutation_test(first, second, means)
    assert exact.is_exact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "MAX_EXACT", 1)
        drawn = permutation_test(first, second, means, n_permutations=20_000)
    assert not drawn.is_exact
    # 20,000 swaps have a standard error of 0.0035 at most.
    assert drawn.p_values[0] == pytest.approx(exact.p_values[0], abs=0.015)


def test_no_p_value_is_zero_however_large_the_difference():
    first, second = np.zeros((30, 1)), np.full((30, 1), 10.0)
    found = permutation_test(first, second, means, n_permutations=999)
    assert found.p_values[0] == 1 / 1000
    assert found.n_permutations == 1000
    few = permutation_test(first[:5], second[:5], means)
    assert few.p_values[0] == 2 / 2**5


def test_equal_systems_have_a_p_value_of_one():
    first, _ = paired_sums(0, 8)
    found = permutation_test(first, first.copy(), means)
    assert (found.p_values[0], found.n_informative, found.is_exact) == (1, 0, True)


def test_clusters_on_which_the_systems_agree_neither_count_nor_matter():
    first, second = paired_sums(3, 9, shift=1)
    same = np.full((40, 1), 5.0)
    alone = permutation_test(first, second, means)
    among = permutation_test(np.vstack([first, same]), np.vstack([second, same]), means)
    assert among.is_exact
    assert among.p_values[0] == alone.p_values[0]
    assert among.n_informative == alone.n_informative


def test_the_seed_decides_the_swaps_and_chunks_do_not(monkeypatch):
    first, second = paired_sums(5, 25, shift=0.3)
    kwargs = {"n_permutations": 500}
    whole = permutation_test(first, second, means, seed=1, **kwargs)
    again = permutation_test(first, second, means, seed=1, **kwargs)
    other = permutation_test(first, second, means, seed=2, **kwargs)
    assert whole.p_values == again.p_values != other.p_values
    monkeypatch.setattr(significance, "_CHUNK_ENTRIES", 25 * 7)
    assert permutation_test(first, second, means, seed=1, **kwargs).p_values == whole.p_values


def test_chunks_of_exact_swaps_change_nothing(monkeypatch):
    first, second = paired_sums(6, 10, shift=1)
    whole = permutation_test(first, second, means).p_values
    monkeypatch.setattr(significance, "_CHUNK_ENTRIES", 10 * 3)
    assert permutation_test(first, second, means).p_values == whole


def test_the_test_alarms_about_5_percent_of_the_time_where_there_is_nothing():
    # Clusters of unequal size whose two sides are exchangeable; 12 of them: exact.
    n_alarms = 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(5, 60, 12)
        both = rng.binomial(sizes, rng.beta(3, 2, 12), (2, 12)).astype(float)[..., np.newaxis]
        n_alarms += permutation_test(both[0], both[1], means).p_values[0] <= 0.05
    # The standard error is 0.9 points.
    assert 0.03 <= n_alarms / 600 <= 0.07


def test_a_test_needs_swaps_and_clusters():
    first, second = paired_sums(0, 3)
    with pytest.raises(ConfigError, match="n_permutations = 0"):
        permutation_test(first, second, means, n_permutations=0)
    with pytest.raises(UndefinedMetricError, match="no cluster"):
        permutation_test(first[:0], second[:0], means)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_agrees_with_statsmodels_and_scipy(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random((2, 200)) < [[0.7], [0.6]]
    table = [[np.sum(one & other), np.sum(one & ~other)], [np.sum(~one & other), 0]]
    found = mcnemar(one, other)
    exact = contingency_tables.mcnemar(table, exact=True)
    corrected = contingency_tables.mcnemar(table, exact=False, correction=True)
    assert (found.n_only_first, found.n_only_second) == (table[0][1], table[1][0])
    assert found.p_exact == pytest.approx(exact.pvalue, rel=1e-9)
    assert found.p_corrected == pytest.approx(corrected.pvalue, rel=1e-9)
    n_either = found.n_only_first + found.n_only_second
    binomial = scipy.stats.binomtest(found.n_only_first, n_either).pvalue
    assert found.p_exact == pytest.approx(binomial, rel=1e-9)


def test_mcnemar_of_a_whole_corpus_does_not_overflow():
    one = np.arange(40_000) % 2 == 0
    other = one ^ (np.arange(40_000) < 39_000)
    other[:100] = one[:100]
    found = mcnemar(one, other)
    expected = scipy.stats.binomtest(found.n_only_first, 38_900).pvalue
    assert found.p_exact == pytest.approx(expected, rel=1e-6)


def test_mcnemar_of_systems_without_or_with_even_disagreement_is_one():
    same = np.array([True, False, True])
    assert mcnemar(same, same).p_exact == mcnemar(same, same).p_corrected == 1
    even = mcnemar(np.array([True, False]), np.array([False, True]))
    assert even.p_exact == even.p_corrected == 1
    with pytest.raises(UndefinedMetricError, match="pairs"):
        mcnemar(same, same[:2])


@pytest.mark.parametrize("n_tests", [1, 2, 3, 10, 45])
@pytest.mark.parametrize("seed", range(4))
def test_holm_agrees_with_statsmodels(seed, n_tests):
    # Two digits: some are equal.
    p_values = (np.random.default_rng(seed).random(n_tests) ** 3).round(2).tolist()
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected.tolist(), abs=1e-12)


def test_holm_refuses_what_is_no_p_value_and_takes_none():
    assert holm([]) == []
    with pytest.raises(ConfigError, match="between 0 and 1"):
        holm([0.5, 1.5])
