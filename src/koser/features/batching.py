"""Which utterances are computed together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def batches_by_length(lengths: np.ndarray | Sequence[int], limit: int) -> list[np.ndarray]:
    """Gather utterances of similar length in batches of a bounded padded length.

    Parameters
    ----------
    lengths : np.ndarray or Sequence[int] [shape=(n_utterances,)]
        Length of each, in any unit.
    limit : int > 0
        Largest padded length of a batch: its utterances times the longest of them. One
        utterance that is longer is a batch by itself.

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
    first, cuts = 0, []
    for place, position in enumerate(order.tolist()):
        # The order is ascending, so this utterance would be the longest of the batch.
        if place > first and (place + 1 - first) * int(lengths[position]) > limit:
            cuts.append(place)
            first = place
    return np.split(order, cuts) if len(order) else []
