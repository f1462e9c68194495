"""Several systems' probabilities made one: a logarithmic opinion pool with a temperature [1]_.

References
----------
.. [1] Heskes, "Selecting weighting factors in logarithmic opinion pools", NIPS 1997.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koser.errors import UndefinedMetricError
from koser.evaluation.temperature import TEMPERATURE_RANGE

# A system that is as sure as this is not believed to be surer: one that rules a label out
# would overrule all others.
FLOOR = 1e-6
_COLDEST, _HOTTEST = TEMPERATURE_RANGE
_MAX_STEPS = 200


@dataclass(frozen=True)
class Pool:
    """How far each system counts, and how sure they are together.

    Attributes
    ----------
    weights : tuple[float, ...]
        Of each system; none negative, their sum is 1.
    temperature : float
        What the weighted sum of log-probabilities is divided by.
    """

    weights: tuple[float, ...]
    temperature: float

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """One answer [shape=(n_rows, n_labels)] of several.

        Parameters
        ----------
        probabilities : np.ndarray [shape=(n_systems, n_rows, n_labels)]
            Of each system.
        """
        pooled = np.tensordot(np.array(self.weights), _logs(probabilities), 1) / self.temperature
        exponents = np.exp(pooled - pooled.max(axis=1, keepdims=True))
        answer: np.ndarray = exponents / exponents.sum(axis=1, keepdims=True)
        return answer


def fit_pool(targets: np.ndarray, probabilities: np.ndarray) -> Pool:
    """The pool under which known labels, or votes, are most likely.

    Weights over temperature are one coefficient a system, in which the negative
    log-likelihood is convex: there is one optimum, found by Newton's method, projected onto
    coefficients that are not negative. With one system it is `fit_temperature`.

    Parameters
    ----------
    targets : np.ndarray [shape=(n_rows, n_labels)]
        What should be recognised: ones and zeros, or the raters' distributions.
    probabilities : np.ndarray [shape=(n_systems, n_rows, n_labels)]
        Of each system, of utterances it was not trained on.

    Raises
    ------
    UndefinedMetricError
        If there is no utterance, or the shapes do not fit.
    """
    if probabilities.ndim != 3 or probabilities.shape[1:] != targets.shape or not len(targets):
        raise UndefinedMetricError(
            f"No pool from targets of shape {targets.shape} and probabilities of shape "
            f"{probabilities.shape}: a row for each target is needed of every system."
        )
    likelihood = _Likelihood(_logs(probabilities), targets)
    upper = 1 / _COLDEST
    chosen = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(_MAX_STEPS):
        slope, curvature = likelihood.derivatives(chosen)
        is_held = ((chosen <= 0) & (slope > 0)) | ((chosen >= upper) & (slope < 0))
        free = np.flatnonzero(~is_held)
        if not len(free) or np.abs(slope[free]).max() < 1e-10:
            break
        # The ridge decides between systems that always say the same.
        ridge = 1e-10 * (1 + np.trace(curvature)) * np.eye(len(free))
        step = np.zeros_like(chosen)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)] + ridge, slope[free])
        following = likelihood.descend(chosen, step, slope, upper)
        if np.array_equal(following, chosen):
            break
        chosen = following
    total = float(chosen.sum())
    if total <= 1 / _HOTTEST:  # none of them knows anything
        return Pool((1 / len(chosen),) * len(chosen), _HOTTEST)
    return Pool(tuple((chosen / total).tolist()), 1 / total)


@dataclass(frozen=True, eq=False)
class _Likelihood:
    """The mean negative log-likelihood of targets, in one coefficient a system."""

    logs: np.ndarray  # (n_systems, n_rows, n_labels)
    targets: np.ndarray

    def value(self, coefficients: np.ndarray) -> float:
        scaled = np.tensordot(coefficients, self.logs, 1)
        top = scaled.max(axis=1)
        normaliser = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
        total = self.targets.sum(axis=1) * normaliser - (self.targets * scaled).sum(axis=1)
        return float(total.mean())

    def derivatives(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slope [shape=(n_systems,)] and curvature [shape=(n_systems, n_systems)]."""
        scaled = np.tensordot(coefficients, self.logs, 1)
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        means = (weights * self.logs).sum(axis=2)
        slope = (means - (self.targets * self.logs).sum(axis=2)).mean(axis=1)
        spread = self.logs - means[:, :, None]
        curvature = np.einsum("nk,snk,tnk->st", weights, spread, spread) / len(weights)
        return slope, curvature

    def descend(
        self, start: np.ndarray, step: np.ndarray, slope: np.ndarray, upper: float
    ) -> np.ndarray:
        """`start` less as much of `step` as lowers the value; itself where nothing does."""
        before, share = self.value(start), 1.0
        while share > 1e-12:
            tried = np.clip(start - share * step, 0.0, upper)
            if self.value(tried) < before - 1e-4 * float(slope @ (start - tried)):
                return tried
            share /= 2
        return start


def _logs(probabilities: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(probabilities, FLOOR))
    return logs
