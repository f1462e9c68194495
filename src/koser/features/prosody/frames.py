"""A waveform in overlapping frames, and what the spectrum of each says.

Frames are centred on multiples of `HOP_LENGTH` samples, with zeros beyond both ends: frame
k of every descriptor, and of the pitch detector, is about the same moment. What has no value
in a frame, such as a ratio of energies where there is no sound, is NaN within this package,
and never leaves it (`koser.features.prosody.functionals`).

References
----------
.. [1] Hermansky, "Perceptual linear predictive (PLP) analysis of speech", JASA 87, 1990.
.. [2] Sundberg & Nordenberg, "Effects of vocal loudness variation on spectrum balance as
   reflected by the alpha measure of long-term-average spectra of speech", JASA 120, 2006.
.. [3] Hammarberg et al., "Perceptual and acoustic correlates of abnormal voice qualities",
   Acta Oto-Laryngologica 90, 1980.
.. [4] Tamarit, Goudbeek & Scherer, "Spectral slope measurements in emotionally expressive
   speech", ISCA workshop on speech analysis and processing for knowledge discovery, 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from koser.audio.reading import SAMPLING_RATE

HOP_LENGTH = 256  # samples, 16 ms: the pitch detector's
FRAMES_PER_SECOND = SAMPLING_RATE / HOP_LENGTH
# Mean square of a frame below which it is digital silence: -100 dB of full scale.
SILENCE = 1e-10

_WIN_LENGTH = 400  # samples, 25 ms
_N_FFT = 512
_BLOCK = 512  # frames that are computed at once: memory does not grow with the clip


@dataclass(frozen=True)
class SpectralDescriptors:
    """What the short-term spectrum of every frame says, each [shape=(n_frames,)].

    Attributes
    ----------
    loudness : np.ndarray
        Sum over critical bands of the cube root of their energy, weighed by the ear's
        sensitivity [1]_; no unit, 0 in silence. An amplitude twice as large is 2^(2/3) as loud.
    flux : np.ndarray
        Distance between the magnitude spectra of this frame and the one before, each of
        length 1: 0 for equal ones, sqrt(2) for spectra without a common frequency.
    alpha_ratio : np.ndarray
        Energy in 50-1000 Hz over that in 1-5 kHz, dB [2]_.
    hammarberg_index : np.ndarray
        Highest peak in 0-2 kHz over that in 2-5 kHz, dB [3]_.
    slope_0_500, slope_500_1500 : np.ndarray
        Slope of the line through the power spectrum in these bands, dB per kHz [4]_.
    """

    loudness: np.ndarray
    flux: np.ndarray
    alpha_ratio: np.ndarray
    hammarberg_index: np.ndarray
    slope_0_500: np.ndarray
    slope_500_1500: np.ndarray


def count_frames(n_samples: int) -> int:
    """Frames of a clip; at least one."""
    return max(1, n_samples // HOP_LENGTH)


def iter_frames(
    waveform: np.ndarray, length: int, places: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Cut frames around given places, a block of them at a time.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        What is cut; zero beyond both ends.
    length : int
        Of a frame, in samples.
    places : np.ndarray [shape=(n_frames,)]
        Centres in samples, integers of at least 0.

    Yields
    ------
    block : slice
        Which of `places`.
    frames : np.ndarray [shape=(n_frames of the block, length)]
        The frames, float64.
    """
    padded = np.pad(waveform.astype(np.float64), (length // 2, length))
    views = np.lib.stride_tricks.sliding_window_view(padded, length)
    for first in range(0, len(places), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(places)))
        yield block, views[np.minimum(places[block], len(views) - 1)]


def describe_spectra(waveform: np.ndarray) -> SpectralDescriptors:
    """Spectral descriptors of every frame.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    """
    places = np.arange(count_frames(len(waveform))) * HOP_LENGTH
    window = np.hamming(_WIN_LENGTH)
    # So that the bins of a frame add up to its mean square.
    scale = 2.0 / (_N_FFT * np.sum(window**2))
    values = np.full((6, len(places)), np.nan)
    before = np.full((1, _N_FFT // 2 + 1), np.nan)  # nothing comes before the first frame
    for block, frames in iter_frames(waveform, _WIN_LENGTH, places):
        power = np.square(np.abs(np.fft.rfft(frames * window, _N_FFT))) * scale
        power[power.sum(axis=1) <= SILENCE] = np.nan
        units = np.sqrt(power / power.sum(axis=1, keepdims=True))
        together = np.concatenate([before, units])
        values[:, block] = [
            np.nan_to_num(_loudness(power)),
            np.sqrt(np.square(np.diff(together, axis=0)).sum(axis=1)),
            decibels(_band(power, 50, 1000).sum(axis=1) / _band(power, 1000, 5000).sum(axis=1)),
            decibels(_band(power, 0, 2000).max(axis=1) / _band(power, 2000, 5000).max(axis=1)),
            _slope(power, 0, 500),
            _slope(power, 500, 1500),
        ]
        before = units[-1:]
    return SpectralDescriptors(*values)


def decibels(ratios: np.ndarray) -> np.ndarray:
    """10 log10 of ratios of energies, within ±100 dB; NaN stays NaN."""
    return np.asarray(10.0 * np.log10(np.clip(ratios, 1e-10, 1e10)))


def mean_level(waveform: np.ndarray) -> float:
    """Level of the whole clip in dB of full scale; NaN in silence."""
    power = float(np.mean(np.square(waveform.astype(np.float64)))) if len(waveform) else 0.0
    return float(decibels(np.asarray(power))) if power > SILENCE else float("nan")


def _frequencies() -> np.ndarray:
    return np.arange(_N_FFT // 2 + 1) * SAMPLING_RATE / _N_FFT


def _band(power: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bins above `low` and up to `high` Hz; never the constant, which is no sound."""
    frequencies = _frequencies()
    band: np.ndarray = power[:, (frequencies > low) & (frequencies <= high)]
    return band


def _slope(power: np.ndarray, low: float, high: float) -> np.ndarray:
    """Slope of the least-squares line through a band, dB per kHz."""
    frequencies = _frequencies()
    kilohertz = frequencies[(frequencies > low) & (frequencies <= high)] / 1000.0
    centred = kilohertz - kilohertz.mean()
    # A bin without any energy is taken for 100 dB below the strongest one.
    band = _band(power, low, high)
    floor = 1e-10 * power.max(axis=1, keepdims=True)
    slopes: np.ndarray = decibels(np.maximum(band, floor) / (floor * 1e10)) @ centred
    return np.asarray(slopes / np.square(centred).sum())


def _loudness(power: np.ndarray) -> np.ndarray:
    """Loudness of power spectra [shape=(n_frames, n_bins)]."""
    sums: np.ndarray = np.cbrt(power @ _CRITICAL_BANDS.T).sum(axis=1)
    return sums


def _critical_bands() -> np.ndarray:
    """What each critical band takes of each bin [shape=(n_bands, n_bins)].

    Masking curves at every Bark, times the equal-loudness curve: equations 3 to 6 of [1]_.
    """
    frequencies = _frequencies()
    barks = 6.0 * np.arcsinh(frequencies / 600.0)
    distance = barks - np.arange(1.0, np.floor(barks[-1]) + 1)[:, None]
    curve = np.where(distance < -0.5, 10.0 ** (2.5 * (distance + 0.5)), 10.0 ** -(distance - 0.5))
    curve = np.where(np.abs(distance) <= 0.5, 1.0, curve)
    curve = np.where((distance >= -1.3) & (distance <= 2.5), curve, 0.0)
    squares = np.square(2 * np.pi * frequencies)
    sensitivity = (squares + 56.8e6) * squares**2 / ((squares + 6.3e6) ** 2 * (squares + 0.38e9))
    return np.asarray(curve * sensitivity)


_CRITICAL_BANDS = _critical_bands()
