"""The temperature against SciPy's minimiser, and when none is fitted."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from koser.errors import UndefinedMetricError
from koser.evaluation.calibration import apply_temperature, log_losses
from koser.evaluation.temperature import (
    MIN_OF_EACH,
    MIN_UTTERANCES,
    TEMPERATURE_RANGE,
    choose_temperature,
    fit_temperature,
)


def draw(seed, *, n_utterances=400, sharpness=3.0, signal=1.5):
    """Probabilities that are `sharpness` times too sure, and the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n_utterances, 4))
    true_ids = rng.integers(4, size=n_utterances)
    logits[np.arange(n_utterances), true_ids] += signal
    # Labels drawn from the logits themselves would be calibrated at `sharpness` exactly.
    return true_ids, scipy.special.softmax(sharpness * logits, axis=1)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_where_scipy_finds_the_least_loss(seed, sharpness):
    true_ids, probabilities = draw(seed, sharpness=sharpness)
    logits = np.log(np.maximum(probabilities, np.finfo(float).tiny))

    def loss(log_temperature):
        scaled = logits / np.exp(log_temperature)
        chosen = scaled[np.arange(len(true_ids)), true_ids]
        return np.mean(scipy.special.logsumexp(scaled, axis=1) - chosen)

    found = scipy.optimize.minimize_scalar(
        loss, bounds=np.log(TEMPERATURE_RANGE), method="bounded", options={"xatol": 1e-9}
    )
    # Where the loss is flat to 1e-16, its place is known to 1e-8.
    fitted = fit_temperature(true_ids, probabilities)
    assert fitted == pytest.approx(min(np.exp(found.x), TEMPERATURE_RANGE[1]), rel=1e-5)


def test_labels_drawn_from_sharpened_probabilities_give_the_sharpness_back():
    rng = np.random.default_rng(0)
    believed = rng.dirichlet(np.ones(5), 20_000)
    true_ids = (believed.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    too_sure = apply_temperature(believed, 1 / 2.5)
    # 20,000 utterances know it to about 1 %.
    assert fit_temperature(true_ids, too_sure) == pytest.approx(2.5, rel=0.04)


def test_the_loss_never_grows_and_no_label_changes():
    for seed in range(20):
        true_ids, probabilities = draw(seed, n_utterances=60, sharpness=1 + seed)
        calibrated = apply_temperature(probabilities, fit_temperature(true_ids, probabilities))
        before, after = log_losses(true_ids, probabilities), log_losses(true_ids, calibrated)
        assert after.mean() <= before.mean() + 1e-12
        np.testing.assert_array_equal(calibrated.argmax(axis=1), probabilities.argmax(axis=1))


def test_a_likelihood_without_optimum_ends_at_the_ends_of_the_range():
    probabilities = np.tile([0.7, 0.3], (10, 1))
    assert fit_temperature(np.zeros(10, int), probabilities) == TEMPERATURE_RANGE[0]
    assert fit_temperature(np.ones(10, int), probabilities) == TEMPERATURE_RANGE[1]


def test_exact_zeros_are_no_obstacle():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.4]])
    fitted = fit_temperature(np.array([0, 1, 1, 0]), probabilities)
    assert np.isfinite(fitted)
    assert fitted > 1


@pytest.mark.parametrize("shape", [(0, 2), (3, 2), (2,)])
def test_labels_and_probabilities_that_do_not_fit_are_refused(shape):
    with pytest.raises(UndefinedMetricError, match=r"No temperature from"):
        fit_temperature(np.zeros(0 if shape == (0, 2) else 2, int), np.zeros(shape))


def test_enough_utterances_of_both_kinds_are_calibrated():
    true_ids, probabilities = draw(0, n_utterances=MIN_UTTERANCES)
    found = choose_temperature(true_ids, probabilities)
    assert found.value == fit_temperature(true_ids, probabilities)
    assert (found.n_utterances, found.reason) == (MIN_UTTERANCES, "")


@pytest.mark.parametrize(
    ("n_right", "n_wrong", "reason"),
    [
        (0, 0, "0 val utterances are fewer than 50"),
        (25, 24, "49 val utterances are fewer than 50"),
        (MIN_OF_EACH - 1, 60, "9 of 69 val utterances are right, fewer than 10"),
        (200, MIN_OF_EACH - 1, "9 of 209 val utterances are wrong, fewer than 10"),
    ],
)
def test_with_too_few_the_temperature_is_one_and_the_reason_is_given(n_right, n_wrong, reason):
    probabilities = np.tile([0.9, 0.1], (n_right + n_wrong, 1)).reshape(-1, 2)
    found = choose_temperature(np.repeat([0, 1], [n_right, n_wrong]), probabilities)
    assert (found.value, found.reason) == (1.0, reason)
