"""How far predicted probabilities can be believed.

Conventions
-----------
`probabilities` has one row per utterance and one column per class, in the order of
`labels`. Rows must sum to 1 within `SUM_TOLERANCE`; they are scored as they are.

Temperature
-----------
`apply_temperature` softens or sharpens probabilities by one number, and keeps their order.

Metrics
-------
`negative_log_likelihood` and `expected_calibration_error`. Both are means over
utterances; the terms (`log_losses`, `confidence_gaps`) are public for whoever sums them
in other groups, such as bootstrap clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.metrics import label_ids

# A softmax in half precision is off by some 1e-4; logits are off by far more than this.
SUM_TOLERANCE = 1e-3
# One certain and wrong utterance costs -log(1e-12) = 27.6 nats instead of infinity.
PROBABILITY_FLOOR = 1e-12
N_BINS = 15  # as Guo et al. (2017)


def negative_log_likelihood(
    y_true: ArrayLike, probabilities: ArrayLike, *, labels: Sequence[str]
) -> float:
    """Mean negative log-likelihood (NLL) of the reference labels.

    Also called log loss or cross-entropy: a strictly proper score [1]_, so only the true
    probabilities minimise it. Probabilities below `PROBABILITY_FLOOR` = 1e-12 count as
    1e-12. Knowing nothing scores ``log(n_classes)``.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    probabilities : array-like of float [shape=(n_utterances, n_classes)]
        Predicted probabilities, columns in the order of `labels`.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    float
        NLL in nats, in [0, 27.7].

    Raises
    ------
    LabelError
        If a reference label is not in `labels`, or `labels` repeats one.
    UndefinedMetricError
        If shapes differ, or the rows of `probabilities` are no probabilities.

    References
    ----------
    .. [1] Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and
       Estimation", JASA 102(477), 2007.

    Examples
    --------
    >>> y_true, probabilities = ["angry", "neutral"], [[0.5, 0.5], [0.5, 0.5]]
    >>> round(negative_log_likelihood(y_true, probabilities, labels=["angry", "neutral"]), 4)
    0.6931
    """
    true_ids = label_ids(y_true, labels=labels)
    checked = checked_probabilities(probabilities, n_utterances=len(true_ids), labels=labels)
    return float(log_losses(true_ids, checked).mean())


def expected_calibration_error(
    y_true: ArrayLike, probabilities: ArrayLike, *, labels: Sequence[str], n_bins: int = N_BINS
) -> float:
    """Top-label expected calibration error (ECE) over bins of equal width.

    Utterances are binned by the probability of their predicted label, bin m holding
    ((m - 1) / n_bins, m / n_bins]; ECE is the mean over utterances of their bin's
    |accuracy - mean confidence| [1]_. Few utterances per bin bias it upwards, so compare
    it between systems on the same utterances only.

    Parameters
    ----------
    y_true : array-like of str [shape=(n_utterances,)]
        Reference label of each utterance.
    probabilities : array-like of float [shape=(n_utterances, n_classes)]
        Predicted probabilities, columns in the order of `labels`.
    labels : Sequence[str]
        All classes of the task.
    n_bins : int > 0
        Number of bins.

    Returns
    -------
    float
        ECE in [0, 1].

    Raises
    ------
    ConfigError
        If `n_bins` is not positive.
    LabelError, UndefinedMetricError
        As `negative_log_likelihood`.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks",
       ICML 2017.

    Examples
    --------
    >>> y_true, probabilities = ["angry", "neutral"], [[0.75, 0.25], [0.75, 0.25]]
    >>> expected_calibration_error(y_true, probabilities, labels=["angry", "neutral"])
    0.25
    """
    if n_bins < 1:
        raise ConfigError(f"n_bins = {n_bins}: an ECE needs at least one bin.")
    true_ids = label_ids(y_true, labels=labels)
    checked = checked_probabilities(probabilities, n_utterances=len(true_ids), labels=labels)
    bins = confidence_bins(checked, n_bins=n_bins)
    gaps = np.bincount(bins, weights=confidence_gaps(true_ids, checked), minlength=n_bins)
    return float(np.abs(gaps).sum() / len(true_ids))


def apply_temperature(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Probabilities as if the logits behind them had been divided by `temperature`.

    ``softmax(logits / t)`` is the normalised power ``p ** (1 / t)`` of ``p = softmax(logits)``
    [1]_, so no logits are needed. Above 1 it softens, below 1 it sharpens; the order of the
    classes stays.

    Parameters
    ----------
    probabilities : array-like of float [shape=(..., n_classes)]
        Not negative; each row has something above 0.
    temperature : float > 0
        1 leaves the probabilities as they are, up to rounding.

    Returns
    -------
    np.ndarray [shape=(..., n_classes), dtype=float64]
        Rows that sum to 1.

    Raises
    ------
    ConfigError
        If `temperature` is not a positive number.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks",
       ICML 2017.

    Examples
    --------
    >>> apply_temperature([0.8, 0.2], 2.0).round(4).tolist()
    [0.6667, 0.3333]
    """
    if not 0 < temperature < np.inf:
        raise ConfigError(f"temperature = {temperature}: give a number above 0; 1 changes nothing.")
    array = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(array) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return result


def checked_probabilities(
    probabilities: ArrayLike, *, n_utterances: int, labels: Sequence[str]
) -> np.ndarray:
    """`probabilities` as float64, if that is what they are.

    Parameters
    ----------
    probabilities : array-like of float [shape=(n_utterances, n_classes)]
        What a model returned.
    n_utterances : int > 0
        Number of reference labels.
    labels : Sequence[str]
        All classes of the task.

    Returns
    -------
    np.ndarray [shape=(n_utterances, n_classes), dtype=float64]
        The same values: nothing is normalised.

    Raises
    ------
    UndefinedMetricError
        If the shape is another, or a row is not finite, negative somewhere, or does not
        sum to 1 within `SUM_TOLERANCE`.
    """
    try:
        array = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UndefinedMetricError(f"`probabilities` is no matrix of numbers: {error}.") from error
    if array.shape != (n_utterances, len(labels)):
        raise UndefinedMetricError(
            f"`probabilities` has shape {array.shape}, not {(n_utterances, len(labels))}: one row "
            f"per utterance and one column per label, in the order {list(labels)}."
        )
    is_bad = ~np.isfinite(array).all(axis=1)
    is_bad |= (array < 0).any(axis=1) | (np.abs(array.sum(axis=1) - 1) > SUM_TOLERANCE)
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise UndefinedMetricError(
            f"{is_bad.sum()} of {n_utterances} rows of `probabilities` are no probabilities "
            f"(finite, not negative, summing to 1 ± {SUM_TOLERANCE}); the first is row {row}: "
            f"{array[row].tolist()}. Logits need a softmax first."
        )
    return array


def log_losses(true_ids: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each utterance's reference label, in nats.

    Parameters
    ----------
    true_ids : np.ndarray [shape=(n_utterances,)]
        Column of each reference label.
    probabilities : np.ndarray [shape=(n_utterances, n_classes)]
        Checked probabilities.

    Returns
    -------
    np.ndarray [shape=(n_utterances,)]
        Losses in [0, 27.7].
    """
    of_reference = probabilities[np.arange(len(true_ids)), true_ids]
    # A sum within the tolerance may exceed 1; no loss is negative.
    losses: np.ndarray = -np.log(np.clip(of_reference, PROBABILITY_FLOOR, 1.0))
    return losses


def confidence_bins(probabilities: np.ndarray, *, n_bins: int = N_BINS) -> np.ndarray:
    """Bin of each utterance's top probability, bin m holding (m / n_bins, (m + 1) / n_bins].

    Parameters
    ----------
    probabilities : np.ndarray [shape=(n_utterances, n_classes)]
        Checked probabilities.
    n_bins : int > 0
        Number of bins.

    Returns
    -------
    np.ndarray [shape=(n_utterances,), dtype=int64]
        Values in [0, n_bins).
    """
    bins: np.ndarray = np.ceil(probabilities.max(axis=1) * n_bins).astype(np.int64) - 1
    return bins.clip(0, n_bins - 1)


def confidence_gaps(true_ids: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """1 if the top label is right, else 0, minus its probability, for each utterance.

    The sum over a bin is the bin's size times (accuracy - mean confidence).

    Parameters
    ----------
    true_ids : np.ndarray [shape=(n_utterances,)]
        Column of each reference label.
    probabilities : np.ndarray [shape=(n_utterances, n_classes)]
        Checked probabilities.

    Returns
    -------
    np.ndarray [shape=(n_utterances,)]
        Values in [-1, 1].
    """
    is_right: np.ndarray = probabilities.argmax(axis=1) == true_ids
    gaps: np.ndarray = is_right - probabilities.max(axis=1)
    return gaps
