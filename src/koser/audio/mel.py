"""Slaney's mel scale: linear below 1 kHz (3 mel per 200 Hz), 27 steps per factor 6.4 above.

References
----------
.. [1] Slaney, "Auditory Toolbox", Interval Research technical report 1998-010.
"""

from __future__ import annotations

import numpy as np

_KNEE_HZ = 1000.0
_HZ_PER_MEL = 200.0 / 3.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def hertz_to_mel(hertz: np.ndarray) -> np.ndarray:
    """Mel of frequencies in Hz."""
    logarithmic = _KNEE_MEL + np.log(np.maximum(hertz, 1e-9) / _KNEE_HZ) / _LOG_STEP
    return np.where(hertz < _KNEE_HZ, hertz / _HZ_PER_MEL, logarithmic)


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """Frequencies in Hz of mel."""
    exponential = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, exponential)
