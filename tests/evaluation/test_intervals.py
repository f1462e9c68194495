"""Intervals over clusters: their arithmetic, their rules, and whether they cover."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import UndefinedMetricError
from koser.evaluation.bootstrap import bootstrap_intervals
from koser.evaluation.intervals import (
    cluster_intervals,
    effective_number,
    find_groups,
    student_t_quantile,
)
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


def unequal_clusters(rng, n_clusters):
    """Right answers and utterances per cluster; sizes differ tenfold. The truth is 0.6."""
    sizes = np.maximum(4, np.rint(30 * rng.lognormal(-0.3, 0.8, n_clusters))).astype(int)
    return np.column_stack([rng.binomial(sizes, rng.beta(3, 2, n_clusters)), sizes]).astype(float)


def share_interval(sums, scale="share"):
    found = cluster_intervals(sums, mean_of, weights=sums[:, 1:], scales=[scale])
    return found.low[0], found.high[0]


def coverage(interval, *, n_clusters, n_replications):
    """How often an interval of simulated clusters holds the truth."""
    n_covered = 0
    for seed in range(n_replications):
        low, high = interval(
            unequal_clusters(np.random.default_rng([n_clusters, seed]), n_clusters)
        )
        n_covered += low <= 0.6 <= high
    return n_covered / n_replications


@pytest.mark.parametrize("n_clusters", [5, 8, 15, 40])
def test_intervals_cover_the_truth_95_percent_of_the_time_however_few_and_unequal(n_clusters):
    # 93 to 97 % over many more replications; 600 have a standard error of 0.9 points.
    share = coverage(share_interval, n_clusters=n_clusters, n_replications=600)
    assert 0.925 <= share <= 0.985


def test_percentiles_of_a_bootstrap_are_too_narrow_with_few_clusters():
    def percentiles(sums):
        found = bootstrap_intervals(sums, mean_of, n_resamples=200, seed=0)
        return found.low[0], found.high[0]

    assert coverage(percentiles, n_clusters=5, n_replications=300) < 0.85


def test_intervals_over_utterances_of_speakers_miss_the_truth_far_too_often():
    n_covered = 0
    for seed in range(200):
        y_true, probabilities, speakers = clustered_answers(seed, n_clusters=30)
        evaluation = evaluate(
            y_true, probabilities, labels=LABELS, clusters=np.arange(len(speakers))
        )
        n_covered += evaluation.scores["accuracy"].low <= 0.6 <= evaluation.scores["accuracy"].high
    # It is 65 %; the standard error of 200 replications is 3 points.
    assert n_covered / 200 < 0.78


def test_of_equal_clusters_the_difference_scale_is_the_textbook_t_interval():
    rng = np.random.default_rng(0)
    means = rng.normal(0.1, 0.2, 7)
    sums = np.column_stack([means * 10, np.full(7, 10.0)])
    expected = scipy.stats.t.interval(0.95, 6, loc=means.mean(), scale=scipy.stats.sem(means))
    assert share_interval(sums, "difference") == pytest.approx(expected, rel=1e-9)


def test_shares_and_losses_have_their_interval_on_their_own_scale():
    sums = unequal_clusters(np.random.default_rng(1), 9)
    value = sums[:, 0].sum() / sums[:, 1].sum()
    without = (sums[:, 0].sum() - sums[:, 0]) / (sums[:, 1].sum() - sums[:, 1])
    error = np.sqrt(8 / 9 * np.sum((without - without.mean()) ** 2))
    n_effective = sums[:, 1].sum() ** 2 / np.sum(sums[:, 1] ** 2)
    margin = scipy.stats.t.ppf(0.975, n_effective - 1) * error
    logit = np.log(value / (1 - value)) + np.array([-1, 1]) * margin / (value * (1 - value))
    assert share_interval(sums) == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-8)
    as_loss = value * np.exp(np.array([-1, 1]) * margin / value)
    assert share_interval(sums, "loss") == pytest.approx(as_loss, rel=1e-8)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 20)).map(lambda pair: (min(pair), pair[1])),
        min_size=2,
        max_size=12,
    )
)
def test_the_interval_of_a_share_holds_it_and_stays_between_0_and_1(clusters):
    sums = np.array(clusters, dtype=float)
    low, high = share_interval(sums)
    value = sums[:, 0].sum() / sums[:, 1].sum()
    shares = sums[:, 0] / sums[:, 1]
    if np.isnan(low):  # the same in every cluster
        assert np.ptp(shares) < 1e-9
        assert 0 < value < 1
        return
    assert 0 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1


@pytest.mark.parametrize("n_clusters", [2, 5, 24])
def test_without_an_error_the_bound_is_that_of_clusters_without_an_error(n_clusters):
    sums = np.full((n_clusters, 2), 8.0)
    low, high = share_interval(sums)
    # Clopper & Pearson's bound of n successes in n trials, the trials being clusters.
    expected = scipy.stats.binomtest(n_clusters, n_clusters).proportion_ci(0.95).low
    assert (low, high) == (pytest.approx(expected), 1)
    sums[:, 0] = 0
    assert share_interval(sums) == (0, pytest.approx(1 - expected))


@pytest.mark.parametrize(
    ("scale", "value"), [("share", 1), ("loss", 1), ("difference", 1), ("difference", 0)]
)
def test_a_score_that_is_the_same_in_every_cluster_has_no_interval(scale, value):
    # Of these two to three nobody learns how others differ, be it by nothing.
    sums = np.array([[1.0, 3.0], [2.0, 6.0], [7.0, 21.0]]) * [value, 1]
    found = cluster_intervals(sums, mean_of, weights=sums[:, 1:], scales=[scale])
    assert np.isnan([found.low[0], found.high[0]]).all()
    assert found.is_flat.tolist() == [True]


def test_a_difference_of_nothing_but_rounding_is_flat():
    sums = np.array([[1e-17, 1.0], [-1e-17, 1.0], [2e-17, 1.0]])
    found = cluster_intervals(sums, mean_of, weights=sums[:, 1:], scales=["difference"])
    assert found.is_flat.tolist() == [True]


def test_a_score_that_depends_on_one_cluster_alone_has_no_interval_and_the_others_keep_theirs():
    sums = np.array([[3.0, 5.0, 2.0, 2.0], [4.0, 5.0, 0.0, 0.0], [1.0, 5.0, 0.0, 0.0]])

    def score(sums):
        with np.errstate(invalid="ignore"):
            return np.column_stack([sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]])

    found = cluster_intervals(sums, score, weights=sums[:, [1, 3]], scales=["share", "share"])
    assert found.low[0] < 8 / 15 < found.high[0]
    assert np.isnan([found.low[1], found.high[1]]).all()


def test_a_higher_confidence_is_a_wider_interval():
    sums = unequal_clusters(np.random.default_rng(2), 9)
    kwargs = {"weights": sums[:, 1:], "scales": ["share"]}
    wide = cluster_intervals(sums, mean_of, confidence=0.995, **kwargs)
    narrow = cluster_intervals(sums, mean_of, **kwargs)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("n_clusters", [0, 1])
def test_fewer_than_two_clusters_have_no_interval(n_clusters):
    sums = np.ones((n_clusters, 2))
    with pytest.raises(UndefinedMetricError, match=f"at least 2 .* there is {n_clusters}"):
        cluster_intervals(sums, mean_of, weights=sums[:, 1:], scales=["share"])


@pytest.mark.parametrize("degrees", [1, 1.7, 2, 3, 4.4, 9, 23, 59, 400, 44_000])
@pytest.mark.parametrize("probability", [0.5, 0.8, 0.975, 0.9975])
def test_quantiles_of_students_t_agree_with_scipy(probability, degrees):
    expected = scipy.stats.t.ppf(probability, degrees)
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20))
def test_unequal_clusters_count_as_fewer(weights):
    number = effective_number(np.array(weights))
    assert 1 - 1e-9 <= number <= len(weights) + 1e-9
    doubled = effective_number(np.array(weights + weights))
    assert doubled == pytest.approx(2 * number)


def test_clusters_without_weight_do_not_count():
    assert effective_number(np.array([2.0, 2.0, 0.0])) == 2
    assert effective_number(np.zeros(3)) == 0


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
