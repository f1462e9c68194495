"""The reliability diagram's data."""

import numpy as np
import pytest

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.answers import score_answers
from koser.evaluation.calibration import adaptive_calibration_error
from koser.evaluation.reliability import reliability_bins

LABELS = ["angry", "neutral", "sadness"]


def draw(seed, n_utterances=307, n_speakers=8):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), n_utterances)
    true_ids = (probabilities.cumsum(axis=1) > rng.random((n_utterances, 1))).argmax(axis=1)
    return np.array(LABELS)[true_ids], probabilities, rng.integers(n_speakers, size=n_utterances)


def test_bins_are_equal_parts_of_the_sorted_confidences():
    y_true, probabilities, _ = draw(0)
    bins = reliability_bins(y_true, probabilities, labels=LABELS)
    confidences = probabilities.max(axis=1)
    is_right = np.array(LABELS)[probabilities.argmax(axis=1)] == y_true
    order = confidences.argsort()
    parts = np.split(order, np.ceil(np.arange(1, 10) * 307 / 10).astype(int))
    assert len(bins) == 10
    for part, found in zip(parts, bins, strict=True):
        assert found.n_answers == len(part)
        assert found.confidence == pytest.approx(confidences[part].mean())
        assert found.accuracy.value == pytest.approx(is_right[part].mean())
        assert (found.low, found.high) == (confidences[part].min(), confidences[part].max())
        assert found.accuracy.bounds is None


def test_its_area_is_the_adaptive_calibration_error():
    y_true, probabilities, _ = draw(1)
    bins = reliability_bins(y_true, probabilities, labels=LABELS, n_bins=15)
    area = sum(b.n_answers * abs(b.accuracy.value - b.confidence) for b in bins) / len(y_true)
    error = adaptive_calibration_error(y_true, probabilities, labels=LABELS)
    assert error == pytest.approx(area, abs=1e-12)


def test_the_interval_of_a_bin_is_that_of_its_utterances_alone():
    y_true, probabilities, speakers = draw(2, n_speakers=5)
    bins = reliability_bins(y_true, probabilities, labels=LABELS, clusters=speakers)
    confidences = probabilities.max(axis=1)
    y_pred = np.array(LABELS)[probabilities.argmax(axis=1)]
    for found in bins:
        rows = (confidences >= found.low) & (confidences <= found.high)
        assert len(np.unique(speakers[rows])) == 5  # else the jackknife's n would differ
        alone = score_answers(y_true[rows], y_pred[rows], labels=LABELS, clusters=speakers[rows])
        assert found.accuracy.bounds == pytest.approx(alone.scores["accuracy"].bounds)


def test_equal_confidences_share_a_bin_whatever_the_order():
    probabilities = np.array([[0.6, 0.4, 0.0]] * 7 + [[0.5, 0.4, 0.1]] * 3)
    y_true = np.array(["angry"] * 5 + ["neutral"] * 5)
    order = np.random.default_rng(0).permutation(10)
    bins = reliability_bins(y_true, probabilities, labels=LABELS, n_bins=5)
    assert [(b.n_answers, b.accuracy.value) for b in bins] == [(3, 0), (7, pytest.approx(5 / 7))]
    assert bins == reliability_bins(y_true[order], probabilities[order], labels=LABELS, n_bins=5)


def test_a_single_speaker_has_no_interval_and_no_bins_are_refused():
    y_true, probabilities, _ = draw(3)
    bins = reliability_bins(y_true, probabilities, labels=LABELS, clusters=["F1"] * len(y_true))
    assert {b.accuracy.bounds for b in bins} == {None}
    assert bins[0].to_dict()["ci95"] is None
    with pytest.raises(ConfigError, match="n_bins = 0"):
        reliability_bins(y_true, probabilities, labels=LABELS, n_bins=0)
    with pytest.raises(UndefinedMetricError, match="softmax"):
        reliability_bins(y_true, probabilities * 3, labels=LABELS)
