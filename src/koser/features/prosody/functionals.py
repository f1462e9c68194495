"""What is said of a whole utterance: statistics of descriptors, each with a name and a source.

The set is koser's own, after the Geneva minimalistic set [1]_: the same physical quantities
and the same kinds of statistics, computed by published definitions, not by openSMILE's code,
so values differ from eGeMAPS'. docs/prosody.md lists all of them.

A statistic may have no value: the mean pitch of an utterance without a voice. It is then
named undefined; `koser.models.imputing` says what a recogniser makes of that.

References
----------
.. [1] Eyben et al., "The Geneva minimalistic acoustic parameter set (GeMAPS) for voice
   research and affective computing", IEEE Transactions on Affective Computing 7(2), 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from koser.features.prosody.frames import FRAMES_PER_SECOND
from koser.features.prosody.pitch import Pitch, true_runs

_EYBEN = "Eyben et al. 2016"
# Rise and fall of the loudness around a peak, as a share of the loudest moment: a syllable's,
# not a ripple's.
_PEAK_SHARE = 0.1


@dataclass(frozen=True)
class Functional:
    """One number of an utterance.

    Attributes
    ----------
    name : str
        As in ``f0_mean``.
    unit : str
        ``1`` where it has none.
    definition : str
        In words.
    source : str
        Who defined the quantity.
    """

    name: str
    unit: str
    definition: str
    source: str


@dataclass(frozen=True)
class _Descriptor:
    """A quantity of frames, and which statistics of it are taken."""

    name: str
    unit: str
    what: str
    source: str
    statistics: str  # a key of _STATISTICS
    where: str = "voiced"  # frames: voiced, unvoiced, all; or pairs of periods


# A spread as a share of the mean is for quantities with a true zero. Decibels and semitones
# are logarithms: their standard deviation is that share already, and their mean may be 0.
_CONTOUR = ("p20", "p50", "p80", "p20_p80", "rise_mean", "rise_sd", "fall_mean", "fall_sd")
_STATISTICS = {
    "relative": ("mean", "cv"),
    "absolute": ("mean", "sd"),
    "mean": ("mean",),
    "relative contour": ("mean", "cv", *_CONTOUR),
    "absolute contour": ("mean", "sd", *_CONTOUR),
}
_IN_WORDS = {
    "mean": "mean of {}",
    "sd": "standard deviation of {}",
    "cv": "standard deviation over mean of {}",
    "p20": "20th percentile of {}",
    "p50": "median of {}",
    "p80": "80th percentile of {}",
    "p20_p80": "80th less 20th percentile of {}",
    "rise_mean": "mean slope of rising stretches of {}",
    "rise_sd": "standard deviation of the slope of rising stretches of {}",
    "fall_mean": "mean slope of falling stretches of {}, as a positive number",
    "fall_sd": "standard deviation of the slope of falling stretches of {}",
}
_BALANCE = (
    ("alpha_ratio", "dB", "energy in 50-1000 Hz over 1-5 kHz", "Sundberg & Nordenberg 2006"),
    ("hammarberg_index", "dB", "peak in 0-2 kHz over peak in 2-5 kHz", "Hammarberg et al. 1980"),
    ("slope_0_500", "dB/kHz", "slope of the spectrum in 0-500 Hz", "Tamarit et al. 2008"),
    ("slope_500_1500", "dB/kHz", "slope of the spectrum in 500-1500 Hz", "Tamarit et al. 2008"),
)
_FLUX = ("flux", "1", "distance between the unit spectra of neighbouring frames", _EYBEN)
DESCRIPTORS = (
    _Descriptor("f0", "semitone", "pitch above 27.5 Hz", _EYBEN, "absolute contour"),
    _Descriptor("loudness", "1", "loudness", "Hermansky 1990", "relative contour", "all"),
    _Descriptor(
        "jitter", "%", "difference of consecutive periods", "Horii 1979", "relative", "periods"
    ),
    _Descriptor(
        "shimmer",
        "dB",
        "difference of consecutive periods' amplitudes",
        "Horii 1980",
        "relative",
        "periods",
    ),
    _Descriptor("hnr", "dB", "harmonics over noise", "Boersma 1993", "absolute"),
    _Descriptor("h1_h2", "dB", "first over second harmonic", "Hanson 1997", "absolute"),
    _Descriptor(
        "h1_a3", "dB", "first harmonic over that at the third formant", "Hanson 1997", "absolute"
    ),
    *(
        _Descriptor(f"f{n}", "Hz", f"frequency of formant {n}", "Markel & Gray 1976", "relative")
        for n in (1, 2, 3)
    ),
    *(
        _Descriptor(
            f"f{n}_bandwidth", "Hz", f"bandwidth of formant {n}", "Markel & Gray 1976", "relative"
        )
        for n in (1, 2, 3)
    ),
    *(
        _Descriptor(
            f"f{n}_level", "dB", f"harmonic at formant {n} over the first one", _EYBEN, "absolute"
        )
        for n in (1, 2)
    ),
    *(_Descriptor(*each, "absolute") for each in _BALANCE),
    _Descriptor(*_FLUX, "relative"),
    *(_Descriptor(*each, "mean", "unvoiced") for each in (*_BALANCE, _FLUX)),
)
_RHYTHM = (
    Functional("loudness_peaks", "1/s", "peaks of loudness per second", _EYBEN),
    Functional("voiced_segments", "1/s", "voiced segments per second", _EYBEN),
    Functional("voiced_length_mean", "s", "mean length of voiced segments", _EYBEN),
    Functional("voiced_length_sd", "s", "standard deviation of the same", _EYBEN),
    Functional("unvoiced_length_mean", "s", "mean length of what lies between and around", _EYBEN),
    Functional("unvoiced_length_sd", "s", "standard deviation of the same", _EYBEN),
    Functional("voiced_share", "1", "share of frames with a voice", "koser"),
    Functional("level", "dB", "mean energy of the clip, of full scale", _EYBEN),
    Functional("no_voiced_frame", "1", "1 where nothing is voiced, else 0", "koser"),
    Functional("no_sound", "1", "1 where all is digital silence, else 0", "koser"),
)


def _functionals() -> Iterator[Functional]:
    for each in DESCRIPTORS:
        where = {"all": "", "periods": ""}.get(each.where, f", {each.where} frames")
        for statistic in _STATISTICS[each.statistics]:
            unit = "1" if statistic == "cv" else each.unit
            if statistic.startswith(("rise", "fall")):
                unit = "1/s" if unit == "1" else f"{unit}/s"
            definition = _IN_WORDS[statistic].format(each.what) + where
            yield Functional(_name(each, statistic), unit, definition, each.source)
    yield from _RHYTHM


def _name(descriptor: _Descriptor, statistic: str) -> str:
    unvoiced = "_unvoiced" if descriptor.where == "unvoiced" else ""
    return f"{descriptor.name}{unvoiced}_{statistic}"


FUNCTIONALS = tuple(_functionals())


def summarise(
    frames: Mapping[str, np.ndarray], pairs: Mapping[str, np.ndarray], pitch: Pitch, level: float
) -> np.ndarray:
    """All functionals of an utterance, in the order of `FUNCTIONALS`.

    Parameters
    ----------
    frames : Mapping[str, np.ndarray] [shape=(n_frames,)]
        Descriptors by name; NaN where one has no value.
    pairs : Mapping[str, np.ndarray] [shape=(n_pairs,)]
        Descriptors of pairs of periods, by name.
    pitch : Pitch
        Which frames have a voice.
    level : float
        Of the clip in dB; NaN in silence.

    Returns
    -------
    np.ndarray [shape=(n_functionals,)]
        float64; NaN where one has no value.
    """
    voiced = pitch.is_voiced
    chosen = {"voiced": voiced, "unvoiced": ~voiced, "all": np.ones_like(voiced)}
    contours = {"f0": pitch.segments, "loudness": (slice(0, len(voiced)),)}
    values: list[float] = []
    for each in DESCRIPTORS:
        if each.where == "periods":
            known = pairs[each.name]
        else:
            known = frames[each.name][chosen[each.where]]
            known = known[~np.isnan(known)]
        wanted = _STATISTICS[each.statistics]
        values += _moments(known, wanted[1:2])
        if len(wanted) > 2:
            values += _percentiles(known)
            values += _slopes(frames[each.name], contours[each.name])
    return np.array([*values, *_rhythm(frames["loudness"], pitch, level)])


def _moments(values: np.ndarray, spread: Sequence[str]) -> list[float]:
    """The mean, and a spread if one is wanted: the standard deviation, or it over the mean."""
    mean = float(values.mean()) if len(values) else np.nan
    if not spread:
        return [mean]
    deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    if spread[0] == "cv":
        deviation = deviation / mean if mean > 0 else np.nan
    return [mean, deviation]


def _percentiles(values: np.ndarray) -> list[float]:
    if not len(values):
        return [np.nan] * 4
    low, middle, high = np.percentile(values, [20, 50, 80]).tolist()
    return [low, middle, high, high - low]


def _slopes(contour: np.ndarray, segments: Sequence[slice]) -> list[float]:
    """Mean and standard deviation of how steeply a contour rises and falls, per second.

    Each segment is smoothed over three frames and cut where it turns; a stretch's slope is
    from its first value to its last.
    """
    slopes: list[float] = []
    for segment in segments:
        smooth = _smoothed(contour[segment])
        signs = np.sign(np.diff(smooth))
        for direction in (1, -1):
            for run in true_runs(signs == direction):
                seconds = (run.stop - run.start) / FRAMES_PER_SECOND
                slopes.append(float(smooth[run.stop] - smooth[run.start]) / seconds)
    every = np.array(slopes)
    return [*_moments(every[every > 0], ("sd",)), *_moments(-every[every < 0], ("sd",))]


def _smoothed(contour: np.ndarray) -> np.ndarray:
    """Mean over three frames; over what there is at both ends."""
    if len(contour) < 3:
        return contour
    counts = np.convolve(np.ones(len(contour)), np.ones(3), "same")
    return np.asarray(np.convolve(contour, np.ones(3), "same") / counts)


def count_peaks(contour: np.ndarray, height: float) -> int:
    """Peaks that rise from the valleys beside them by `height` or more.

    Examples
    --------
    >>> count_peaks(np.array([0.0, 3.0, 2.9, 3.1, 0.0, 1.0, 0.2]), 0.5)
    2
    """
    n_peaks, is_rising = 0, False
    lowest = highest = float(contour[0])
    for value in contour.tolist():
        if is_rising:
            highest = max(highest, value)
            if value <= highest - height:
                n_peaks, is_rising, lowest = n_peaks + 1, False, value
        else:
            lowest = min(lowest, value)
            if value >= lowest + height:
                is_rising, highest = True, value
    return n_peaks


def _rhythm(loudness: np.ndarray, pitch: Pitch, level: float) -> list[float]:
    """The values of `_RHYTHM`."""
    voiced = pitch.is_voiced
    seconds = len(voiced) / FRAMES_PER_SECOND
    smooth = _smoothed(loudness)
    loudest = float(smooth.max())
    n_peaks = count_peaks(smooth, _PEAK_SHARE * loudest) if loudest > 0 else 0
    lengths = [
        np.array([(run.stop - run.start) / FRAMES_PER_SECOND for run in runs])
        for runs in (pitch.segments, true_runs(~voiced))
    ]
    return [
        n_peaks / seconds,
        len(pitch.segments) / seconds,
        *_moments(lengths[0], ("sd",)),
        *_moments(lengths[1], ("sd",)),
        float(voiced.mean()),
        level,
        float(not voiced.any()),
        float(np.isnan(level)),
    ]
