"""More voices from the same recordings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from koser.audio.resampling import resample
from koser.errors import ConfigError

SLOWEST, FASTEST = 0.5, 2.0  # beyond an octave nobody sounds human


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Play `waveform` faster or slower: tempo, pitch and formants change together.

    This is Kaldi's speed perturbation [1]_, usually with factors 0.9, 1.0 and 1.1. A
    changed voice is in effect another speaker, and pitch and tempo are cues to emotion:
    augment training data only, and gently.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono.
    factor : float in [0.5, 2.0]
        1.1 is 10 % faster, shorter and higher. Taken to the nearest fraction with a
        denominator of at most 1000.

    Returns
    -------
    np.ndarray [shape=(round(n_samples / factor),)]
        float32; at factor 1 it is `waveform` itself, unchanged.

    Raises
    ------
    ConfigError
        If `factor` is out of range.

    References
    ----------
    .. [1] Ko, Peddinti, Povey & Khudanpur, "Audio augmentation for speech recognition",
       Interspeech 2015.

    Examples
    --------
    >>> change_speed(np.zeros(16_000, np.float32), 1.25).shape
    (12800,)
    """
    if not SLOWEST <= factor <= FASTEST:
        raise ConfigError(
            f"Speed factor {factor} is out of range. Give one from {SLOWEST} to {FASTEST}, "
            f"such as 0.9 or 1.1."
        )
    ratio = Fraction(factor).limit_denominator(1000)
    if ratio == 1:
        return waveform
    # Faster by 11/10 is: as if recorded at 11 kHz and wanted at 10 kHz.
    changed = resample(waveform, ratio.numerator, ratio.denominator)
    return changed[: round(len(waveform) / ratio)]
