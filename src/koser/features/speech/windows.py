"""Long recordings in windows that an encoder can take."""

from __future__ import annotations

import numpy as np


def split_windows(waveform: np.ndarray, max_samples: int) -> np.ndarray:
    """Cut a waveform into as few equally long windows as its length allows.

    Equal lengths, so that no window is a short rest which says little, and all windows
    of one utterance have the same number of frames. They cover everything; two
    neighbours share at most as many samples as there are windows.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        The sound.
    max_samples : int
        Longest window.

    Returns
    -------
    np.ndarray [shape=(n_windows, n_window_samples)]
        One row, the waveform itself, where it is short enough.

    Examples
    --------
    >>> split_windows(np.arange(7), 3)
    array([[0, 1, 2],
           [2, 3, 4],
           [4, 5, 6]])
    """
    n_samples = len(waveform)
    n_windows = -(-n_samples // max_samples)
    if n_windows <= 1:
        return waveform[None]
    length = -(-n_samples // n_windows)
    starts = np.arange(n_windows) * (n_samples - length) // (n_windows - 1)
    return np.stack([waveform[start : start + length] for start in starts.tolist()])
