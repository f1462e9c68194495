"""The cluster bootstrap: its arithmetic and its rules."""

import numpy as np
import pytest

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation import bootstrap
from koser.evaluation.bootstrap import bootstrap_intervals, draw_counts


def mean_of(sums):
    return sums[:, :1] / sums[:, 1:]


def test_drawn_counts_are_draws_with_replacement():
    counts = draw_counts(np.random.default_rng(3), n_resamples=4000, n_clusters=5)
    drawn = np.random.default_rng(3).integers(5, size=(4000, 5))
    np.testing.assert_array_equal(counts, [np.bincount(row, minlength=5) for row in drawn])
    # Each count is Binomial(5, 1/5): mean 1, variance 0.8, so its mean has an error of 0.014.
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)
    assert counts.var(axis=0).mean() == pytest.approx(0.8, abs=0.05)


def test_chunks_change_nothing(monkeypatch):
    # Whole numbers: sums of them are exact, however BLAS orders them.
    sums = np.random.default_rng(0).integers(1, 100, size=(40, 2)).astype(float)
    whole = bootstrap_intervals(sums, mean_of, n_resamples=500, seed=5)
    monkeypatch.setattr(bootstrap, "_CHUNK_ENTRIES", 40 * 7)
    chunked = bootstrap_intervals(sums, mean_of, n_resamples=500, seed=5)
    np.testing.assert_array_equal([whole.low, whole.high], [chunked.low, chunked.high])


def test_only_a_bounded_part_of_the_resamples_is_held_at_once():
    sizes = []

    def spy(sums):
        sizes.append(len(sums))
        return mean_of(sums)

    sums = np.random.default_rng(0).random((10_000, 2)) + 1
    bootstrap_intervals(sums, spy, n_resamples=250, seed=0)
    assert sizes == [100, 100, 100]


@pytest.mark.parametrize("chunk_entries", [1_000_000, 4 * 3, 4])
def test_undefined_resamples_are_drawn_again_and_counted(monkeypatch, chunk_entries):
    monkeypatch.setattr(bootstrap, "_CHUNK_ENTRIES", chunk_entries)
    # The second sum comes from the first of four clusters alone.
    sums = np.array([[1.0, 2.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])

    def score(resampled):
        scores = resampled[:, :1] / 10
        return np.where(resampled[:, 1:] > 0, scores, np.nan)

    found = bootstrap_intervals(sums, score, n_resamples=300, seed=11)
    rng, kept, n_redrawn = np.random.default_rng(11), [], 0
    while len(kept) < 300:
        drawn = rng.integers(4, size=4)
        if 0 in drawn:
            kept.append(sums[drawn, 0].sum() / 10)
        else:
            n_redrawn += 1
    low, high = np.quantile(kept, [0.025, 0.975])
    assert (found.low[0], found.high[0], found.n_redrawn) == (low, high, n_redrawn)
    assert n_redrawn > 50


def test_a_score_that_is_hardly_ever_defined_is_given_up():
    sums = np.ones((30, 1))
    with pytest.raises(UndefinedMetricError, match="only 0 of 500 resamples of the 30 clusters"):
        bootstrap_intervals(sums, lambda sums: sums * np.nan, n_resamples=10, seed=0)


@pytest.mark.parametrize("n_clusters", [0, 1])
def test_fewer_than_two_clusters_have_no_interval(n_clusters):
    with pytest.raises(UndefinedMetricError, match=f"at least 2 .* there is {n_clusters}"):
        bootstrap_intervals(np.ones((n_clusters, 2)), mean_of, n_resamples=10, seed=0)


def test_an_interval_without_resamples_is_refused():
    with pytest.raises(ConfigError, match="n_resamples = 0"):
        bootstrap_intervals(np.ones((5, 2)), mean_of, n_resamples=0, seed=0)
