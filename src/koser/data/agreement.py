"""How far raters agree beyond chance."""

from __future__ import annotations

import numpy as np

from koser.errors import UndefinedMetricError


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa: agreement of several raters on categories, corrected for chance [1]_.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_utterances, n_classes)]
        How many raters gave each label to each utterance; every row adds up to the same
        number of raters, at least 2. The raters need not be the same people.

    Returns
    -------
    float
        1 for perfect agreement, 0 for chance.

    Raises
    ------
    UndefinedMetricError
        If there is no row, rows differ in their number of raters, there is only one rater,
        or all raters always gave the same one label.

    References
    ----------
    .. [1] Fleiss, "Measuring nominal scale agreement among many raters", Psychological
       Bulletin 76(5), 1971.

    Examples
    --------
    >>> fleiss_kappa(np.array([[3, 0], [0, 3]]))
    1.0
    """
    n_raters = counts.sum(axis=1)
    if not len(counts) or n_raters.min() != n_raters.max() or n_raters[0] < 2:
        raise UndefinedMetricError(
            f"Fleiss' kappa is undefined for {len(counts)} utterances with "
            f"{sorted(set(n_raters.tolist()))} raters: all need the same number, at least 2."
        )
    n = n_raters[0]
    observed = ((counts**2).sum(axis=1) - n) / (n * (n - 1))
    by_chance = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    if by_chance == 1:  # exactly: one column holds all votes
        raise UndefinedMetricError(
            "Fleiss' kappa is undefined: every rater gave every utterance the same label."
        )
    return float((observed.mean() - by_chance) / (1 - by_chance))
