"""More voices from the same recordings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from pydantic import Field

from koser.audio.mel import hertz_to_mel, mel_to_hertz
from koser.audio.reading import SAMPLING_RATE
from koser.audio.resampling import resample
from koser.config import Config
from koser.errors import ConfigError

SLOWEST, FASTEST = 0.5, 2.0  # beyond an octave nobody sounds human
_SNR_RANGE = 30.0  # dB from the lowest to the highest ratio: from disturbing to hardly heard
_N_MASKS = 2  # of each kind, as in SpecAugment's policies
_MOST_MASKED = 0.2  # of an utterance, by one silence: SpecAugment's p
_HIGHEST_MEL = hertz_to_mel(np.array(SAMPLING_RATE / 2))


class AugmentOptions(Config):
    """How far a voice may be changed while a network learns; by default it is not."""

    speed: float = Field(0.0, ge=0, le=0.5)  # largest deviation from 1, such as 0.1
    gain_db: float = Field(0.0, ge=0, le=60)  # largest change of the level, up or down
    # Lowest ratio of signal to added white noise in dB; the ratio lies up to 30 dB above it.
    noise_snr_db: float | None = Field(None, ge=-60, le=120)  # None for no noise
    # SpecAugment on the sound itself, for encoders that hear waveforms, twice each: the longest
    # stretch that is silenced, in seconds; the widest band taken out, as a share of the mel scale.
    time_mask: float = Field(0.0, ge=0, le=10)
    band_mask: float = Field(0.0, ge=0, le=0.5)

    @property
    def is_on(self) -> bool:
        """Whether anything is changed at all."""
        return self.noise_snr_db is not None or any(
            (self.speed, self.gain_db, self.time_mask, self.band_mask)
        )


def augment(waveform: np.ndarray, options: AugmentOptions, rng: np.random.Generator) -> np.ndarray:
    """Change speed, level and noise of a waveform at random, and take parts of it away.

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
    for _ in range(_N_MASKS if options.band_mask > 0 else 0):
        waveform = mask_band(waveform, options.band_mask, rng)
    for _ in range(_N_MASKS if options.time_mask > 0 else 0):
        waveform = mask_time(waveform, options.time_mask, rng)
    return waveform


def mask_time(waveform: np.ndarray, longest: float, rng: np.random.Generator) -> np.ndarray:
    """Silence a random stretch: SpecAugment's time mask [1]_, on the sound itself.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono; left as it is.
    longest : float
        Seconds of the longest stretch; never more than a fifth of the sound. The length is
        uniform up to that, and so is the place.
    rng : np.random.Generator
        Of both draws.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        float32.

    References
    ----------
    .. [1] Park et al., "SpecAugment: a simple data augmentation method for automatic speech
       recognition", Interspeech 2019.
    """
    most = min(longest * SAMPLING_RATE, _MOST_MASKED * len(waveform))
    length = round(rng.uniform(0, most))
    start = round(rng.uniform(0, len(waveform) - length))
    masked: np.ndarray = waveform.astype(np.float32)
    masked[start : start + length] = 0
    return masked


def mask_band(waveform: np.ndarray, widest: float, rng: np.random.Generator) -> np.ndarray:
    """Take a random band of frequencies out: SpecAugment's frequency mask, on the sound itself.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono; left as it is.
    widest : float in [0, 1]
        The widest band, as a share of the mel scale from 0 to 8 kHz. The width is uniform up to
        that, and so is the place.
    rng : np.random.Generator
        Of both draws.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        float32.
    """
    width = rng.uniform(0, widest)
    lowest = rng.uniform(0, 1 - width)
    edges = mel_to_hertz(np.array([lowest, lowest + width]) * _HIGHEST_MEL)
    n_samples = len(waveform)
    spectrum = np.fft.rfft(waveform.astype(np.float32))
    first, last = np.ceil(edges * n_samples / SAMPLING_RATE).astype(int)
    spectrum[first:last] = 0
    masked: np.ndarray = np.fft.irfft(spectrum, n_samples)
    return masked


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
