"""The cluster bootstrap: its arithmetic, its rules, and whether its intervals cover."""

import numpy as np
import pytest

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation import intervals
from koser.evaluation.intervals import bootstrap_intervals, draw_counts, find_groups
from koser.evaluation.scoring import evaluate

LABELS = ("angry", "neutral", "sadness")


def mean_of(sums):
    return sums[:, :1] / sums[:, 1:]


def clustered_answers(seed, *, n_clusters, n_per_cluster=20):
    """References, probabilities and speakers; the expected accuracy is 0.6.

    How often a speaker is understood varies from speaker to speaker, as Beta(3, 2).
    """
    rng = np.random.default_rng(seed)
    skill = np.repeat(rng.beta(3, 2, n_clusters), n_per_cluster)
    true_ids = rng.integers(3, size=skill.size)
    is_right = rng.random(skill.size) < skill
    predicted = np.where(is_right, true_ids, (true_ids + rng.integers(1, 3, skill.size)) % 3)
    probabilities = np.full((skill.size, 3), 0.1)
    probabilities[np.arange(skill.size), predicted] = 0.8
    speakers = np.repeat(np.arange(n_clusters), n_per_cluster)
    return np.array(LABELS)[true_ids], probabilities, speakers


def coverage(*, of_speakers, n_replications):
    n_covered = 0
    for seed in range(n_replications):
        y_true, probabilities, speakers = clustered_answers(seed, n_clusters=30)
        clusters = speakers if of_speakers else np.arange(len(y_true))
        evaluation = evaluate(
            y_true, probabilities, labels=LABELS, clusters=clusters, n_resamples=200, seed=seed
        )
        score = evaluation.scores["accuracy"]
        n_covered += score.low <= 0.6 <= score.high
    return n_covered / n_replications


def test_intervals_over_speakers_cover_the_truth_about_95_percent_of_the_time():
    # Percentile intervals of 30 clusters cover 94 %; 300 replications have a
    # standard error of 1.4 points.
    assert 0.88 <= coverage(of_speakers=True, n_replications=300) <= 0.99


def test_intervals_over_utterances_of_speakers_miss_the_truth_far_too_often():
    # It is 65 %; the standard error of 80 replications is 5 points.
    assert coverage(of_speakers=False, n_replications=80) < 0.8


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
    monkeypatch.setattr(intervals, "_CHUNK_ENTRIES", 40 * 7)
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
    monkeypatch.setattr(intervals, "_CHUNK_ENTRIES", chunk_entries)
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


def test_groups_are_numbered_by_name_whatever_the_order_of_rows():
    groups = find_groups(["M2", "F1", "M2"], n_utterances=3, what="cluster")
    assert groups.names == ("F1", "M2")
    assert groups.ids.tolist() == [1, 0, 1]
    assert find_groups([7, 3], n_utterances=2, what="fold").names == ("3", "7")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["F1"], r"`clusters` has shape \(1,\), not \(3,\)"),
        (["F1", None, None], "2 of 3 utterances have no cluster"),
        ([1.0, np.nan, 2.0], "1 of 3 utterances have no cluster"),
    ],
)
def test_utterances_without_a_group_are_refused(values, match):
    with pytest.raises(UndefinedMetricError, match=match):
        find_groups(values, n_utterances=3, what="cluster")
