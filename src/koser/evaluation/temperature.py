"""The one number that makes a system's probabilities believable.

It is fitted on utterances that the system was not trained on, and applied by
`koser.evaluation.calibration.apply_temperature`. It never changes a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koser.errors import UndefinedMetricError

# Where a temperature is looked for. Beyond, probabilities are all but equal, or 0 and 1.
TEMPERATURE_RANGE = (0.05, 20.0)
# With fewer, or nearly all right or nearly all wrong, the likelihood has no optimum to speak
# of: one error more or less would move it by half.
MIN_UTTERANCES = 50
MIN_OF_EACH = 10


@dataclass(frozen=True)
class Temperature:
    """A temperature and how it came about.

    Attributes
    ----------
    value : float
        1 where none could be fitted.
    n_utterances : int
        Utterances that there were to fit it on.
    reason : str
        Why none was fitted; empty where one was.
    """

    value: float
    n_utterances: int
    reason: str = ""


def choose_temperature(
    true_ids: np.ndarray, probabilities: np.ndarray, *, shares: np.ndarray | None = None
) -> Temperature:
    """Fit a temperature if there is enough to fit it on.

    Parameters
    ----------
    true_ids : np.ndarray [shape=(n_utterances,)]
        Column of each reference label, of utterances that were not trained on; may be none.
    probabilities : np.ndarray [shape=(n_utterances, n_classes)]
        Before any temperature.
    shares : np.ndarray [shape=(n_utterances, n_classes)], optional
        What the probabilities should be where it is not the label: the raters' distribution.

    Returns
    -------
    Temperature
        1, with the reason, with fewer than `MIN_UTTERANCES`, or fewer than `MIN_OF_EACH`
        right or wrong ones among them.
    """
    n_utterances = len(true_ids)
    if n_utterances < MIN_UTTERANCES:
        reason = f"{n_utterances} val utterances are fewer than {MIN_UTTERANCES}"
        return Temperature(1.0, n_utterances, reason)
    n_right = int((probabilities.argmax(axis=1) == true_ids).sum())
    for count, what in ((n_right, "right"), (n_utterances - n_right, "wrong")):
        if count < MIN_OF_EACH:
            reason = (
                f"{count} of {n_utterances} val utterances are {what}, fewer than {MIN_OF_EACH}"
            )
            return Temperature(1.0, n_utterances, reason)
    value = fit_temperature(true_ids, probabilities, shares=shares)
    return Temperature(value, n_utterances)


def fit_temperature(
    true_ids: np.ndarray, probabilities: np.ndarray, *, shares: np.ndarray | None = None
) -> float:
    """The temperature under which known labels, or votes, are most likely [1]_.

    In the inverse temperature the negative log-likelihood is convex, so its slope has one
    root, found by Newton's method between bounds that are halved where it would leave
    them.

    Parameters
    ----------
    true_ids : np.ndarray [shape=(n_utterances,)]
        Column of each reference label, of utterances that were not trained on.
    probabilities : np.ndarray [shape=(n_utterances, n_classes)]
        Before any temperature.
    shares : np.ndarray [shape=(n_utterances, n_classes)], optional
        The raters' distribution, in place of `true_ids`: the cross-entropy to it is least.

    Returns
    -------
    float
        In `TEMPERATURE_RANGE`; at its ends where the likelihood still grows there, as when
        no utterance is wrong.

    Raises
    ------
    UndefinedMetricError
        If there is no utterance, or the shapes do not fit.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks",
       ICML 2017, section 4.2.

    Examples
    --------
    >>> from koser.evaluation.calibration import apply_temperature
    >>> sure = np.array([[0.99, 0.01]] * 4)
    >>> fitted = fit_temperature(np.array([0, 0, 0, 1]), sure)
    >>> apply_temperature(sure[0], fitted).round(4).tolist()
    [0.75, 0.25]
    """
    if probabilities.ndim != 2 or not len(true_ids) or len(true_ids) != len(probabilities):
        raise UndefinedMetricError(
            f"No temperature from {len(true_ids)} labels and probabilities of shape "
            f"{probabilities.shape}: one row for each label is needed, and at least one."
        )
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    if shares is None:
        of_reference = logits[np.arange(len(true_ids)), true_ids].mean()
    else:
        of_reference = (shares * logits).sum(axis=1).mean()

    def slope_and_curvature(inverse: float) -> tuple[float, float]:
        """First and second derivative of the NLL in the inverse temperature."""
        scaled = inverse * logits
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        means = (weights * logits).sum(axis=1)
        variances = (weights * (logits - means[:, np.newaxis]) ** 2).sum(axis=1)
        return float(means.mean() - of_reference), float(variances.mean())

    coldest, hottest = TEMPERATURE_RANGE
    low, high = 1 / hottest, 1 / coldest
    if slope_and_curvature(low)[0] >= 0:
        return hottest
    if slope_and_curvature(high)[0] <= 0:
        return coldest
    inverse = 1.0
    for _ in range(100):
        slope, curvature = slope_and_curvature(inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return 1 / inverse
