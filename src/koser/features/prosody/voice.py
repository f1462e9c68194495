"""The voice in frames that have one: harmonics against noise, source and formants.

References
----------
.. [1] Boersma, "Accurate short-term analysis of the fundamental frequency and the
   harmonics-to-noise ratio of a sampled sound", Proceedings of the Institute of Phonetic
   Sciences 17, Amsterdam 1993.
.. [2] Hanson, "Glottal characteristics of female speakers: acoustic correlates", JASA 101, 1997.
.. [3] Markel & Gray, "Linear prediction of speech", Springer 1976.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.audio.resampling import resample
from koser.features.prosody.frames import HOP_LENGTH, decibels, iter_frames
from koser.features.prosody.pitch import Pitch

N_FORMANTS = 3

# Frames for harmonics: 60 ms, so that four periods of 75 Hz fit.
_LONG = 960  # samples
_N_FFT = 4096
_FINER = 2  # points of the autocorrelation per sample
_MAX_HNR = 50.0  # dB; interpolation leaves more in doubt
# The band that formants are looked for in: about five of them, as in a vocal tract of 16 cm.
_FORMANT_RATE = 11_000  # Hz
_ORDER = 12
_SHORT = 330  # samples at that rate, 30 ms
_PREEMPHASIS_HZ = 50.0  # from which the spectrum is raised by 6 dB per octave
# What lies lower, higher or is broader is the slope of the spectrum and no resonance.
_LOWEST_FORMANT, _HIGHEST_FORMANT, _BROADEST = 150.0, 5000.0, 700.0  # Hz


@dataclass(frozen=True)
class Formants:
    """Resonances of the vocal tract; NaN where there is none.

    Attributes
    ----------
    frequencies, bandwidths : np.ndarray [shape=(N_FORMANTS, n_frames)]
        Hz; bandwidths at half power.
    """

    frequencies: np.ndarray
    bandwidths: np.ndarray


@dataclass(frozen=True)
class Harmonics:
    """Periodicity and harmonics of every frame with a voice, each [shape=(n_frames,)], dB.

    Attributes
    ----------
    hnr : np.ndarray
        Energy of what repeats with the pitch over the energy of the rest [1]_.
    h1_h2 : np.ndarray
        First harmonic over the second [2]_.
    h1_a3 : np.ndarray
        First harmonic over the strongest one at the third formant [2]_.
    f1_level, f2_level : np.ndarray
        Strongest harmonic at the formant over the first harmonic.
    """

    hnr: np.ndarray
    h1_h2: np.ndarray
    h1_a3: np.ndarray
    f1_level: np.ndarray
    f2_level: np.ndarray


def describe_harmonics(waveform: np.ndarray, pitch: Pitch, formants: Formants) -> Harmonics:
    """Measure the harmonics of every frame that has a voice.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    pitch : Pitch
        Of it.
    formants : Formants
        Of it.
    """
    voiced = np.flatnonzero(pitch.is_voiced)
    values = np.full((5, len(pitch.hertz)), np.nan)
    # Symmetric about the middle sample, which is the frame's place.
    window = np.hanning(_LONG + 3)[1:-1]
    own = _autocorrelation(np.square(np.abs(np.fft.rfft(window, _N_FFT)))[None])
    for block, frames in iter_frames(waveform, len(window), voiced * HOP_LENGTH):
        chosen = voiced[block]
        hertz = pitch.hertz[chosen]
        centred = frames - (frames @ window / window.sum())[:, None]
        power = np.square(np.abs(np.fft.rfft(centred * window, _N_FFT)))
        values[0, chosen] = _harmonics_to_noise(_autocorrelation(power) / own, hertz)
        first = _peak_level(power, hertz, hertz)
        values[1, chosen] = first - _peak_level(power, 2 * hertz, hertz)
        for row, formant, sign in ((2, 2, 1), (3, 0, -1), (4, 1, -1)):
            level = _peak_level(power, formants.frequencies[formant, chosen], hertz)
            values[row, chosen] = sign * (first - level)
    return Harmonics(*values)


def _autocorrelation(power: np.ndarray) -> np.ndarray:
    """Autocorrelation at every half sample, 1 at lag 0 [shape=(n_frames, n_lags)].

    More points are an exact interpolation: the spectrum has nothing above half the rate.
    """
    lags = np.fft.irfft(power, _FINER * _N_FFT)[:, : _FINER * SAMPLING_RATE // 50 + 2]
    return np.asarray(lags / lags[:, :1])


def _harmonics_to_noise(correlation: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """HNR from the height of the autocorrelation's maximum at the period [1]_."""
    lags = np.arange(correlation.shape[1])
    periods = _FINER * SAMPLING_RATE / hertz[:, None]
    near = (lags >= 0.9 * periods) & (lags <= 1.1 * periods)
    best = np.clip(np.where(near, correlation, -np.inf).argmax(axis=1), 1, len(lags) - 2)
    rows = np.arange(len(correlation))
    left, middle, right = (correlation[rows, best + shift] for shift in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    # The height of the parabola through the three points.
    height = middle - np.square(left - right) / np.where(bend < 0, 8.0 * bend, -np.inf)
    height = np.clip(height, 1e-10, 1 - 1e-10)
    return np.asarray(np.clip(decibels(height / (1.0 - height)), -_MAX_HNR, _MAX_HNR))


def _peak_level(power: np.ndarray, frequencies: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Highest bin within half a pitch of a frequency: of one harmonic, dB; NaN stays NaN."""
    bins = np.arange(power.shape[1]) * SAMPLING_RATE / _N_FFT
    distance = np.abs(bins - np.nan_to_num(frequencies)[:, None])
    highest = np.where(distance <= hertz[:, None] / 2, power, 0.0).max(axis=1)
    levels = 10.0 * np.log10(np.maximum(highest, 1e-30))
    return np.where(np.isnan(frequencies), np.nan, levels)


def find_formants(waveform: np.ndarray, pitch: Pitch) -> Formants:
    """The first three formants of every frame that has a voice.

    Poles of a linear prediction by the autocorrelation method [3]_, at 11 kHz after
    pre-emphasis; in ascending order, without those that are no resonances.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    pitch : Pitch
        Of it.
    """
    voiced = np.flatnonzero(pitch.is_voiced)
    frequencies = np.full((N_FORMANTS, len(pitch.hertz)), np.nan)
    bandwidths = frequencies.copy()
    if not len(voiced):
        return Formants(frequencies, bandwidths)
    lower = resample(waveform, SAMPLING_RATE, _FORMANT_RATE).astype(np.float64)
    weight = np.exp(-2 * np.pi * _PREEMPHASIS_HZ / _FORMANT_RATE)
    raised = np.append(lower[:1], lower[1:] - weight * lower[:-1])
    window = np.hamming(_SHORT)
    places = np.round(voiced * HOP_LENGTH * _FORMANT_RATE / SAMPLING_RATE).astype(int)
    for block, frames in iter_frames(raised, _SHORT, places):
        poles = _poles(frames * window)
        found = np.abs(np.angle(poles)) * _FORMANT_RATE / (2 * np.pi)
        width = -np.log(np.maximum(np.abs(poles), 1e-10)) * _FORMANT_RATE / np.pi
        is_formant = (poles.imag > 0) & (width < _BROADEST)
        is_formant &= (found >= _LOWEST_FORMANT) & (found <= _HIGHEST_FORMANT)
        found = np.where(is_formant, found, np.nan)
        order = np.argsort(found, axis=1)[:, :N_FORMANTS]  # NaN comes last
        width = np.where(is_formant, width, np.nan)
        frequencies[:, voiced[block]] = np.take_along_axis(found, order, axis=1).T
        bandwidths[:, voiced[block]] = np.take_along_axis(width, order, axis=1).T
    return Formants(frequencies, bandwidths)


def _poles(frames: np.ndarray) -> np.ndarray:
    """Poles of each frame's linear prediction [shape=(n_frames, _ORDER)], complex."""
    coefficients = linear_prediction(frames, _ORDER)
    companion = np.zeros((len(frames), _ORDER, _ORDER))
    companion[:, 0] = -coefficients
    places = np.arange(_ORDER - 1)
    companion[:, places + 1, places] = 1.0
    poles: np.ndarray = np.linalg.eigvals(companion)
    return poles.astype(complex)


def linear_prediction(frames: np.ndarray, order: int) -> np.ndarray:
    """Linear prediction by the autocorrelation method and Levinson's recursion.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, length)]
        Windowed.
    order : int
        Of the prediction.

    Returns
    -------
    np.ndarray [shape=(n_frames, order)]
        ``a`` in ``x[n] + a[0] x[n-1] + ... + a[order-1] x[n-order] = error``.
    """
    n_fft = 2 ** int(np.ceil(np.log2(2 * frames.shape[1])))
    lags = np.fft.irfft(np.square(np.abs(np.fft.rfft(frames, n_fft))), n_fft)[:, : order + 1]
    # Noise 90 dB below the frame: a frame that can be predicted perfectly has no unique answer.
    error = np.maximum(lags[:, 0] * (1 + 1e-9), 1e-30)
    coefficients = np.zeros((len(frames), order))
    for step in range(order):
        known = coefficients[:, :step]
        ahead = lags[:, step + 1] + np.sum(known * lags[:, step:0:-1], axis=1)
        reflection = -ahead / error
        coefficients[:, :step] = known + reflection[:, None] * known[:, ::-1]
        coefficients[:, step] = reflection
        error = error * (1.0 - np.square(reflection))
    return coefficients
