"""How large a batch may be, and how processes share it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from koser.errors import ConfigError
from koser.features.batching import batches_by_length


@dataclass(frozen=True)
class Bound:
    """How large a batch may be.

    Attributes
    ----------
    size : int or None
        Utterances.
    length : int or None
        Padded length: the windows of all utterances times the longest window. An utterance
        that is longer by itself is a batch by itself.

    Raises
    ------
    ConfigError
        If neither is given.
    """

    size: int | None
    length: int | None

    def __post_init__(self) -> None:
        if self.size is None and self.length is None:
            raise ConfigError("A batch needs a bound. Give batch_size, batch_length or both.")

    def setting(self, lengths: np.ndarray) -> str:
        """The training setting that sets how many utterances of these `lengths` a batch has."""
        return "batch_size" if self.typical_size(lengths) == self.size else "batch_seconds"

    def cut(self, lengths: np.ndarray, n_windows: np.ndarray) -> list[np.ndarray]:
        """Cut utterances into batches.

        Parameters
        ----------
        lengths, n_windows : np.ndarray [both shape=(n_utterances,)]
            Of each, the length of all its windows, and how many they are.

        Returns
        -------
        list[np.ndarray] [shape=(n_utterances of the batch,)]
            Places in `lengths`, the shortest first.
        """
        if self.length is not None:
            windows = window_lengths(lengths, n_windows)
            return batches_by_length(windows, self.length, n_windows=n_windows, max_size=self.size)
        order, size = np.argsort(lengths, kind="stable"), self.size or 1
        return [order[first : first + size] for first in range(0, len(order), size)]

    def shares(self, lengths: np.ndarray, n_windows: np.ndarray, n_ranks: int) -> list[np.ndarray]:
        """Places in one batch, which is in the order of `cut`, shared among ranks."""
        if self.size is not None:
            return [np.arange(rank, len(lengths), n_ranks) for rank in range(n_ranks)]
        windows = window_lengths(lengths, n_windows)
        return share_by_length(windows, n_ranks, n_windows=n_windows)

    def typical_size(self, lengths: np.ndarray) -> int:
        """About how many utterances a batch has; at least one."""
        if self.length is None:
            return self.size or 1
        size = max(1, round(self.length / float(lengths.mean())))
        return size if self.size is None else min(size, self.size)


def window_lengths(lengths: np.ndarray, n_windows: np.ndarray) -> np.ndarray:
    """Length of one window of each utterance, from that of all and how many they are.

    Examples
    --------
    >>> window_lengths(np.array([7, 9]), np.array([1, 2]))
    array([7, 5])
    """
    lengths_of_one: np.ndarray = -(-lengths // n_windows)
    return lengths_of_one


def padded_length(lengths: np.ndarray, n_windows: np.ndarray) -> int:
    """Length of a batch side by side: the windows of all times the longest.

    Examples
    --------
    >>> padded_length(np.array([7, 9]), np.array([1, 2]))
    21
    """
    return int(n_windows.sum()) * int(window_lengths(lengths, n_windows).max())


def deal(costs: Sequence[int], n_ranks: int) -> list[list[int]]:
    """Deal pieces of work so that none has much more of it than another.

    The dearest first, each to who has least so far [1]_.

    Parameters
    ----------
    costs : Sequence[int]
        Of each piece.
    n_ranks : int
        Among how many.

    Returns
    -------
    list[list[int]]
        For each rank, its places in `costs`, ascending.

    References
    ----------
    .. [1] Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969.

    Examples
    --------
    >>> deal([5, 4, 3, 3, 3], 2)
    [[0, 3], [1, 2, 4]]
    """
    shares: list[list[int]] = [[] for _ in range(n_ranks)]
    loads = [(0, rank) for rank in range(n_ranks)]
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        load, rank = heapq.heappop(loads)
        shares[rank].append(place)
        heapq.heappush(loads, (load + costs[place], rank))
    return [sorted(share) for share in shares]


def share_by_length(
    lengths: np.ndarray, n_ranks: int, *, n_windows: np.ndarray
) -> list[np.ndarray]:
    """Share a batch so that the largest padded length of a share is as small as it can be.

    Parameters
    ----------
    lengths : np.ndarray [shape=(n_utterances,)]
        Of one window of each; integers > 0.
    n_ranks : int
        Shares.
    n_windows : np.ndarray [shape=(n_utterances,)]
        How many windows each has.

    Returns
    -------
    list[np.ndarray] [shape=(n_utterances of the share,)]
        Places in `lengths`, neighbours in length together; empty where fewer shares do.
    """
    low, high = int((n_windows * lengths).max()), int(n_windows.sum()) * int(lengths.max())
    while low < high:
        middle = (low + high) // 2
        if len(batches_by_length(lengths, middle, n_windows=n_windows)) <= n_ranks:
            high = middle
        else:
            low = middle + 1
    shares = batches_by_length(lengths, low, n_windows=n_windows)
    return shares + [np.zeros(0, np.int64)] * (n_ranks - len(shares))
