"""NLL against scikit-learn, ECE against its definition, and what is no probability."""

import math

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.calibration import (
    adaptive_calibration_error,
    apply_temperature,
    expected_calibration_error,
    negative_log_likelihood,
)

LABELS = ["angry", "neutral", "sadness"]


def draw_predictions(seed, n_utterances=300):
    rng = np.random.default_rng(seed)
    return rng.choice(LABELS, n_utterances), rng.dirichlet(np.ones(len(LABELS)), n_utterances)


def ece_by_definition(y_true, probabilities, n_bins):
    """Equation 3 of Guo et al. (2017), one utterance at a time."""
    total = 0.0
    for m in range(1, n_bins + 1):
        members = [
            (max(row), LABELS[int(np.argmax(row))] == label)
            for label, row in zip(y_true, probabilities, strict=True)
            if (m - 1) / n_bins < max(row) <= m / n_bins
        ]
        if members:
            confidences, hits = zip(*members, strict=True)
            gap = abs(sum(hits) / len(hits) - sum(confidences) / len(confidences))
            total += len(members) / len(y_true) * gap
    return total


@pytest.mark.parametrize("seed", range(5))
def test_nll_agrees_with_scikit_learn(seed):
    y_true, probabilities = draw_predictions(seed)
    expected = sklearn.metrics.log_loss(y_true, probabilities, labels=LABELS)
    nll = negative_log_likelihood(y_true, probabilities, labels=LABELS)
    assert nll == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize("seed", range(3))
def test_ece_agrees_with_its_definition(seed, n_bins):
    y_true, probabilities = draw_predictions(seed)
    ece = expected_calibration_error(y_true, probabilities, labels=LABELS, n_bins=n_bins)
    assert ece == pytest.approx(ece_by_definition(y_true, probabilities, n_bins), abs=1e-12)


def test_ece_bins_hold_their_upper_edge():
    # 0.5 is in (0.25, 0.5] together with 0.4: |1/2 - 0.45|. Apart: (0.6 + 0.5) / 2 = 0.55.
    probabilities = [[0.5, 0.3, 0.2], [0.4, 0.3, 0.3]]
    ece = expected_calibration_error(["neutral", "angry"], probabilities, labels=LABELS, n_bins=4)
    assert ece == pytest.approx(0.05)


def test_a_certain_and_right_prediction_has_no_loss_and_no_calibration_error():
    probabilities = np.eye(3)
    assert negative_log_likelihood(LABELS, probabilities, labels=LABELS) == 0
    assert expected_calibration_error(LABELS, probabilities, labels=LABELS) == 0


def test_a_certain_and_wrong_prediction_costs_the_logarithm_of_the_floor():
    probabilities = [[1.0, 0.0, 0.0]]
    nll = negative_log_likelihood(["sadness"], probabilities, labels=LABELS)
    assert nll == pytest.approx(-math.log(1e-12))
    assert expected_calibration_error(["sadness"], probabilities, labels=LABELS) == 1


def test_columns_permuted_together_with_labels_change_nothing():
    y_true, probabilities = draw_predictions(7)
    order = [2, 0, 1]
    permuted = probabilities[:, order], [LABELS[i] for i in order]
    for score in (negative_log_likelihood, expected_calibration_error):
        expected = score(y_true, probabilities, labels=LABELS)
        assert score(y_true, permuted[0], labels=permuted[1]) == expected


def test_probabilities_in_half_precision_are_accepted():
    y_true, probabilities = draw_predictions(1)
    nll = negative_log_likelihood(y_true, probabilities.astype(np.float16), labels=LABELS)
    # Half precision keeps 11 bits: relative errors of 2**-11 are absolute ones of the logarithm.
    expected = negative_log_likelihood(y_true, probabilities, labels=LABELS)
    assert nll == pytest.approx(expected, abs=2**-11)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ([2.0, -1.0, 0.0], r"1 of 2 rows .* row 1: \[2.0, -1.0, 0.0\]. Logits need a softmax"),
        ([0.5, 0.5, 0.1], "1 of 2 rows"),
        ([0.5, 0.5, -0.0011], "1 of 2 rows"),
        ([math.nan, 0.5, 0.5], "1 of 2 rows"),
        ([math.inf, 0.5, 0.5], "1 of 2 rows"),
    ],
)
@pytest.mark.parametrize("score", [negative_log_likelihood, expected_calibration_error])
def test_rows_that_are_no_probabilities_are_refused(score, row, match):
    with pytest.raises(UndefinedMetricError, match=match):
        score(["angry", "angry"], [[1.0, 0.0, 0.0], row], labels=LABELS)


@pytest.mark.parametrize(
    ("probabilities", "match"),
    [
        ([[1.0, 0.0]], r"shape \(1, 2\), not \(1, 3\)"),
        (np.ones((2, 3)) / 3, r"shape \(2, 3\), not \(1, 3\)"),
        ([1.0, 0.0, 0.0], r"shape \(3,\)"),
        ([["a", "b", "c"]], "no matrix of numbers"),
    ],
)
def test_probabilities_of_another_shape_are_refused(probabilities, match):
    with pytest.raises(UndefinedMetricError, match=match):
        negative_log_likelihood(["angry"], probabilities, labels=LABELS)


def test_an_ece_without_bins_is_refused():
    with pytest.raises(ConfigError, match="n_bins = 0"):
        expected_calibration_error(["angry"], [[1.0, 0.0, 0.0]], labels=LABELS, n_bins=0)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(0).normal(size=(5, 4, 7)) * 20
    expected = scipy.special.softmax(logits / temperature, axis=-1)
    actual = apply_temperature(scipy.special.softmax(logits, axis=-1), temperature)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_a_temperature_leaves_what_is_impossible_impossible():
    assert apply_temperature([1.0, 0.0], 5.0).tolist() == [1.0, 0.0]
    assert apply_temperature([1e-300, 1e-305], 0.5).tolist() == pytest.approx([1.0, 1e-10])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ConfigError, match="above 0"):
        apply_temperature([0.5, 0.5], temperature)


@pytest.mark.parametrize("n_bins", [1, 7, 15])
@pytest.mark.parametrize("seed", range(3))
def test_adaptive_error_agrees_with_its_definition_where_no_confidences_are_equal(seed, n_bins):
    y_true, probabilities = draw_predictions(seed, n_utterances=15 * 14)
    order = probabilities.max(axis=1).argsort()
    is_right = np.array(LABELS)[probabilities.argmax(axis=1)] == y_true
    parts = np.array_split(order, n_bins)
    gaps = [abs(np.sum(is_right[part] - probabilities[part].max(axis=1))) for part in parts]
    error = adaptive_calibration_error(y_true, probabilities, labels=LABELS, n_bins=n_bins)
    assert error == pytest.approx(sum(gaps) / len(y_true), abs=1e-12)


def test_equal_confidences_share_a_bin_of_the_adaptive_error():
    # Half right at a confidence of 0.5: nothing is wrong, however the rows are ordered.
    probabilities = np.tile([0.5, 0.3, 0.2], (20, 1))
    for y_true in (["angry", "neutral"] * 10, ["angry"] * 10 + ["neutral"] * 10):
        assert adaptive_calibration_error(y_true, probabilities, labels=LABELS) == pytest.approx(0)
    with pytest.raises(ConfigError, match="n_bins = 0"):
        adaptive_calibration_error(["angry"] * 20, probabilities, labels=LABELS, n_bins=0)


def test_a_temperature_of_one_returns_the_same_bits():
    _, probabilities = draw_predictions(0)
    np.testing.assert_array_equal(apply_temperature(probabilities, 1.0), probabilities)


def test_a_temperature_never_changes_the_label():
    """Not even where two probabilities are neighbouring floats, and would become equal."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0.1, 0.4, 5000)
    probabilities = np.column_stack([low, np.nextafter(low, 1), 1 - low - np.nextafter(low, 1)])
    probabilities = probabilities[probabilities.argmax(axis=1) == 1]
    assert len(probabilities) > 100
    for temperature in (0.07, 0.5, 3.0, 20.0):
        calibrated = apply_temperature(probabilities, temperature)
        assert (calibrated.argmax(axis=1) == 1).all()
        np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-12)
