"""The pool against SciPy, against the temperature it becomes with one system, and at its edges."""

import numpy as np
import pytest
from scipy.optimize import minimize

from koser.errors import UndefinedMetricError
from koser.evaluation.pooling import FLOOR, Pool, fit_pool
from koser.evaluation.temperature import TEMPERATURE_RANGE, fit_temperature


def invent(seed, *, skills=(1.5, 0.5, 0.0), n_rows=150, n_labels=4):
    """Targets, and systems that know as much of them as their skill says."""
    rng = np.random.default_rng(seed)
    targets = np.eye(n_labels)[rng.integers(n_labels, size=n_rows)]
    logits = [skill * targets + rng.normal(size=targets.shape) for skill in skills]
    exponents = np.exp(logits)
    return targets, exponents / exponents.sum(axis=2, keepdims=True)


def log_loss(coefficients, targets, probabilities):
    scaled = np.tensordot(coefficients, np.log(probabilities), 1)
    normaliser = np.log(np.exp(scaled).sum(axis=1))
    return (normaliser - (targets * scaled).sum(axis=1)).mean()


@pytest.mark.parametrize("seed", range(4))
def test_weights_and_temperature_are_the_optimum_that_scipy_finds(seed):
    targets, probabilities = invent(seed)
    pool = fit_pool(targets, probabilities)
    found = minimize(
        log_loss,
        np.full(3, 1 / 3),
        (targets, probabilities),
        method="L-BFGS-B",
        bounds=[(0, 20)] * 3,
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    coefficients = np.array(pool.weights) / pool.temperature
    np.testing.assert_allclose(coefficients, found.x, atol=1e-4)
    assert log_loss(coefficients, targets, probabilities) <= found.fun + 1e-12
    assert sum(pool.weights) == pytest.approx(1)


def test_the_raters_distribution_is_a_target_too():
    _, probabilities = invent(0)
    shares = np.random.default_rng(1).dirichlet(np.ones(4), size=150)
    pool = fit_pool(shares, probabilities)
    coefficients = np.array(pool.weights) / pool.temperature
    best = log_loss(coefficients, shares, probabilities)
    for place in range(3):
        moved = coefficients.copy()
        moved[place] += 0.01
        assert log_loss(moved, shares, probabilities) > best


def test_with_one_system_the_pool_is_its_temperature():
    targets, probabilities = invent(2, skills=(1.0,))
    pool = fit_pool(targets, 0.9 * probabilities + 0.025)
    expected = fit_temperature(targets.argmax(1), 0.9 * probabilities[0] + 0.025)
    assert pool.weights == (1.0,)
    assert pool.temperature == pytest.approx(expected, rel=1e-6)


def test_a_system_that_misleads_gets_no_weight_and_no_negative_one():
    targets, probabilities = invent(3, skills=(1.0, -1.0))
    assert fit_pool(targets, probabilities).weights == (1.0, 0.0)


def test_systems_that_always_say_the_same_count_alike():
    targets, (first,) = invent(4, skills=(1.0,))
    pool = fit_pool(targets, np.stack([first, first]))
    assert pool.weights == pytest.approx((0.5, 0.5))


def test_where_all_mislead_the_answer_is_all_but_even():
    targets, probabilities = invent(5, skills=(-2.0, -2.0))
    pool = fit_pool(targets, probabilities)
    assert pool.weights == (0.5, 0.5)
    assert pool.temperature == TEMPERATURE_RANGE[1]


def test_without_an_error_the_coefficients_stay_finite():
    targets = np.eye(3)[[0, 1, 2, 0]]
    sure = np.where(targets == 1, 0.8, 0.1)
    pool = fit_pool(targets, np.stack([sure, sure]))
    answer = pool.combine(np.stack([sure, sure]))
    assert np.isfinite(answer).all()
    assert (answer.argmax(1) == targets.argmax(1)).all()


def test_a_system_that_rules_a_label_out_does_not_overrule_all_others():
    certain, other = np.array([[1.0, 0.0]]), np.array([[1e-3, 1 - 1e-3]])
    answer = Pool((0.5, 0.5), 1.0).combine(np.stack([certain, other]))
    expected = np.sqrt([1e-3, FLOOR * (1 - 1e-3)])
    np.testing.assert_allclose(answer[0], expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3), (0, 4), (2, 5, 4)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(UndefinedMetricError, match="a row for each target"):
        fit_pool(np.zeros((0 if shape[0] == 0 else 4, 4)), np.ones(shape))
