"""Which utterances are computed together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def batches_by_length(
    lengths: np.ndarray | Sequence[int],
    limit: int,
    *,
    n_windows: np.ndarray | None = None,
    max_size: int | None = None,
) -> list[np.ndarray]:
    """Gather utterances of similar length in batches of a bounded padded length.

    Parameters
    ----------
    lengths : np.ndarray or Sequence[int] [shape=(n_utterances,)]
        Length of each, in any unit; where utterances are cut into windows, of one window.
    limit : int > 0
        Largest padded length of a batch: its windows times the longest of them. One
        utterance that is longer is a batch by itself.
    n_windows : np.ndarray, optional [shape=(n_utterances,)]
        Windows of each utterance; one unless given.
    max_size : int > 0, optional
        Most utterances of a batch.

    Returns
    -------
    list[np.ndarray] [shape=(n_utterances of the batch,)]
        Positions in `lengths`, each once, the shortest first.

    Examples
    --------
    >>> batches_by_length([5, 1, 2, 9], 6)
    [array([1, 2]), array([0]), array([3])]
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    first, n, cuts = 0, 0, []
    for place, position in enumerate(order.tolist()):
        n_own = 1 if n_windows is None else int(n_windows[position])
        n += n_own
        # The order is ascending, so this utterance would be the longest of the batch.
        is_too_long = n * int(lengths[position]) > limit
        if place > first and (is_too_long or place - first == max_size):
            cuts.append(place)
            first, n = place, n_own
    return np.split(order, cuts) if len(order) else []
