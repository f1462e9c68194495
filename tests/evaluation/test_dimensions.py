"""Scores of values, held against audmetric, SciPy and scikit-learn."""

import audmetric
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koser.errors import UndefinedMetricError
from koser.evaluation.dimensions import SCORE_NAMES, concordance_correlation, evaluate_values


def invented(seed=0, n=120):
    rng = np.random.default_rng(seed)
    y_true = rng.uniform(1, 5, n)
    return y_true, 0.6 * y_true + rng.normal(1.5, 0.7, n), np.arange(n) % 8


@pytest.mark.parametrize("seed", range(4))
def test_scores_agree_with_independent_implementations(seed):
    y_true, y_pred, _ = invented(seed)
    scores = evaluate_values(y_true, y_pred).scores
    assert scores["ccc"].value == pytest.approx(audmetric.concordance_cc(y_true, y_pred), abs=1e-12)
    assert scores["pearson"].value == pytest.approx(
        scipy.stats.pearsonr(y_true, y_pred).statistic, abs=1e-12
    )
    expected = sklearn.metrics.root_mean_squared_error(y_true, y_pred)
    assert scores["rmse"].value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(
        st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20, unique=True
    )
)
def test_concordance_is_symmetric_and_never_above_pearson(values):
    y_true, y_pred = np.array(values).T
    if y_true.std() < 1e-3 or y_pred.std() < 1e-3:
        return
    scores = evaluate_values(y_true, y_pred).scores
    assert abs(scores["ccc"].value) <= abs(scores["pearson"].value) + 1e-9
    assert concordance_correlation(y_pred, y_true) == pytest.approx(scores["ccc"].value, abs=1e-9)


def test_a_shift_and_a_scale_cost_concordance_but_no_correlation():
    y_true, _, _ = invented()
    assert concordance_correlation(y_true, y_true) == pytest.approx(1)
    for moved in (y_true + 1, 2 * y_true):
        scores = evaluate_values(y_true, moved).scores
        assert scores["pearson"].value == pytest.approx(1)
        assert scores["ccc"].value < 0.9
    constant = evaluate_values(y_true, np.full(120, y_true.mean())).scores
    assert constant["ccc"].value == pytest.approx(0, abs=1e-12)
    assert constant["pearson"].value is None


def test_intervals_are_over_speakers_and_values_far_from_zero_lose_no_digits():
    y_true, y_pred, clusters = invented()
    found = evaluate_values(y_true, y_pred, clusters=clusters)
    for score in found.scores.values():
        assert score.low < score.value < score.high
    again = evaluate_values(np.tile(y_true, 9), np.tile(y_pred, 9), clusters=np.tile(clusters, 9))
    far = evaluate_values(y_true + 1e6, y_pred + 1e6, clusters=clusters)
    for name in SCORE_NAMES:
        assert again.scores[name].bounds == pytest.approx(found.scores[name].bounds, abs=1e-9)
        assert far.scores[name].bounds == pytest.approx(found.scores[name].bounds, abs=1e-6)


def test_what_is_the_same_in_every_cluster_has_no_interval_and_says_why():
    y_true, _, clusters = invented()
    found = evaluate_values(y_true, y_true, clusters=clusters)
    assert [score.bounds for score in found.scores.values()] == [None] * 3
    assert found.notes == (
        "No interval of CCC, Pearson, RMSE: the same in every cluster (cluster), which says "
        "nothing about others.",
    )
    shifted = evaluate_values(y_true, y_true + 1, clusters=clusters)
    assert shifted.scores["ccc"].low < shifted.scores["ccc"].high
    assert "No interval of Pearson, RMSE: " in shifted.notes[0]


def test_values_that_cannot_be_scored_are_refused():
    with pytest.raises(UndefinedMetricError, match="1 of 2 values are not finite"):
        evaluate_values([1, np.nan], [1, 2])
    with pytest.raises(UndefinedMetricError, match="of two at least"):
        evaluate_values([1], [1])
    with pytest.raises(UndefinedMetricError, match="every value is the same"):
        concordance_correlation([2, 2], [2, 2])
