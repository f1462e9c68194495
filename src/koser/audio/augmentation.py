"""More voices from the same recordings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from pydantic import Field

from koser.audio.resampling import resample
from koser.config import Config
from koser.errors import ConfigError

SLOWEST, FASTEST = 0.5, 2.0  # beyond an octave nobody sounds human
_SNR_RANGE = 30.0  # dB from the lowest to the highest ratio: from disturbing to hardly heard


class AugmentOptions(Config):
    """How far a voice may be changed while a network learns; by default it is not."""

    speed: float = Field(0.0, ge=0, le=0.5)  # largest deviation from 1, such as 0.1
    gain_db: float = Field(0.0, ge=0, le=60)  # largest change of the level, up or down
    # Lowest ratio of signal to added white noise in dB; the ratio lies up to 30 dB above it.
    noise_snr_db: float | None = Field(None, ge=-60, le=120)  # None for no noise

    @property
    def is_on(self) -> bool:
        """Whether anything is changed at all."""
        return self.speed > 0 or self.gain_db > 0 or self.noise_snr_db is not None


def augment(waveform: np.ndarray, options: AugmentOptions, rng: np.random.Generator) -> np.ndarray:
    """Change speed, level and noise of a waveform at random.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono, at least one sample; left as it is.
    options : AugmentOptions
        How far. Speed factor, gain in dB and signal-to-noise ratio in dB are uniform
        within what it allows.
    rng : np.random.Generator
        Of every draw.

    Returns
    -------
    np.ndarray [shape=(round(n_samples / factor),)]
        float32; `waveform` itself where nothing is on. Samples may leave [-1, 1]. Silence
        stays silence, because noise is measured against the signal.
    """
    if options.speed > 0:
        waveform = change_speed(waveform, rng.uniform(1 - options.speed, 1 + options.speed))
    if options.gain_db > 0:
        gain = 10 ** (rng.uniform(-options.gain_db, options.gain_db) / 20)
        waveform = waveform * np.float32(gain)
    if options.noise_snr_db is not None:
        ratio = rng.uniform(options.noise_snr_db, options.noise_snr_db + _SNR_RANGE)
        level = np.sqrt(np.mean(np.square(waveform, dtype=np.float64))) * 10 ** (-ratio / 20)
        noise = rng.standard_normal(len(waveform), dtype=np.float32)
        waveform = waveform + noise * np.float32(level)
    return waveform


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
