"""Consecutive periods of the voice: how much their lengths and amplitudes differ.

Periods are found by waveform matching, which is the more robust to noise than picking
peaks [1]_: from a period's middle one goes on by the lag, near the known pitch, at which the
waveform resembles itself most. It starts in the middle of a voiced segment, on a pulse, and
goes both ways [3]_: before the first pulse there may be silence, and after the last one the
vocal tract rings on.

References
----------
.. [1] Boersma, "Should jitter be measured by peak picking or by waveform matching?", Folia
   Phoniatrica et Logopaedica 61, 2009.
.. [2] Horii, "Fundamental frequency perturbation observed in sustained phonation", Journal of
   Speech and Hearing Research 22, 1979; "Vocal shimmer in sustained phonation", 23, 1980.
.. [3] Praat's manual, "Sound & Pitch: To PointProcess (cc)".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.features.prosody.frames import HOP_LENGTH
from koser.features.prosody.pitch import Pitch

# The next period is looked for between these shares of the one that the pitch tells.
_SHORTEST, _LONGEST = 0.8, 1.25
# Below it two stretches of sound are not taken for two periods of one voice.
_MIN_CORRELATION = 0.5
# Larger ratios of neighbours are errors of the marks, not perturbations of a voice: the
# "maximum period factor" and "maximum amplitude factor" that Praat's manual gives.
_MAX_PERIOD_RATIO = 1.3
_MAX_AMPLITUDE_RATIO = 1.6


@dataclass(frozen=True)
class Perturbations:
    """How consecutive periods differ.

    Attributes
    ----------
    jitter : np.ndarray [shape=(n_pairs,)]
        Difference of two consecutive periods over their mean, %; local jitter [2]_ is its mean.
    shimmer : np.ndarray [shape=(n_pairs,)]
        Difference of the peak-to-peak amplitudes of two consecutive periods, dB [2]_.
    """

    jitter: np.ndarray
    shimmer: np.ndarray


def measure_perturbations(waveform: np.ndarray, pitch: Pitch) -> Perturbations:
    """Jitter and shimmer of every two consecutive periods.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    pitch : Pitch
        Of it.
    """
    samples = waveform.astype(np.float64)
    jitter: list[np.ndarray] = []
    shimmer: list[np.ndarray] = []
    for segment in pitch.segments:
        for marks in mark_periods(samples, pitch.hertz, segment):
            periods = np.diff(marks)
            ratios = periods[1:] / periods[:-1]
            keep = np.maximum(ratios, 1 / ratios) <= _MAX_PERIOD_RATIO
            jitter.append(
                200.0 * np.abs(np.diff(periods))[keep] / (periods[1:] + periods[:-1])[keep]
            )
            amplitudes = _amplitudes(samples, marks)
            ratios = amplitudes[1:] / amplitudes[:-1]
            ratios = ratios[np.maximum(ratios, 1 / ratios) <= _MAX_AMPLITUDE_RATIO]
            shimmer.append(np.abs(20.0 * np.log10(ratios)))
    nothing = np.zeros(0)
    return Perturbations(np.concatenate([nothing, *jitter]), np.concatenate([nothing, *shimmer]))


def mark_periods(samples: np.ndarray, hertz: np.ndarray, segment: slice) -> list[np.ndarray]:
    """The middles of consecutive periods in a voiced segment.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,)]
        float64.
    hertz : np.ndarray [shape=(n_frames,)]
        The pitch; a number in every frame of `segment`.
    segment : slice
        Frames.

    Returns
    -------
    list[np.ndarray] [shape=(n_marks,)]
        Chains of three marks or more, in samples and fractions of them. A chain ends where the
        waveform does not go on resembling itself.
    """
    first = max(0, segment.start * HOP_LENGTH - HOP_LENGTH // 2)
    last = min(len(samples), (segment.stop - 1) * HOP_LENGTH + HOP_LENGTH // 2)
    lengths = SAMPLING_RATE / hertz[segment]
    centres = np.arange(segment.start, segment.stop) * HOP_LENGTH

    def period_at(place: float) -> float:
        return float(np.interp(place, centres, lengths))

    middle, end = (first + last - 1) // 2, len(samples) - 1
    start = _climb(samples, middle, period_at(middle), first, last)
    after = _follow(samples, start, last, period_at)
    # Backwards is forwards through the mirrored wave.
    before = _follow(
        samples[::-1], end - start, len(samples) - first, lambda place: period_at(end - place)
    )
    chains = [[end - mark for mark in chain[::-1]] for chain in before[::-1]]
    chains[-1] += after[0][1:]
    return [np.array(chain) for chain in chains + after[1:] if len(chain) > 2]


def _follow(
    samples: np.ndarray, start: int, last: int, period_at: Callable[[float], float]
) -> list[list[float]]:
    """Chains of marks from `start` on to `last`; the first one begins with `start`."""
    mark = float(start)
    chains = [[mark]]
    while mark + period_at(mark) < last:
        period = period_at(mark)
        lag = _matching_lag(samples, round(mark), period)
        if lag is None:
            behind = round(mark + period / 2)
            mark = float(_climb(samples, int(mark + period), period, behind, last))
            chains.append([mark])
        else:
            mark += lag
            chains[-1].append(mark)
    return chains


def _climb(samples: np.ndarray, place: int, period: float, first: int, last: int) -> int:
    """From a place to one within `first` to `last` that no sample half a period around exceeds.

    A chain that begins there has the pulses in its periods' middles, not the ringing between.
    """
    half = round(period / 2)
    while True:
        near = max(first, place - half)
        top = near + int(np.abs(samples[near : min(last, place + half + 1)]).argmax())
        if abs(samples[top]) <= abs(samples[place]):
            return place
        place = top


def _matching_lag(samples: np.ndarray, mark: int, period: float) -> float | None:
    """How far on the period around a mark comes again; None where it does not."""
    half = round(period / 2)
    shortest, longest = int(_SHORTEST * period), round(_LONGEST * period) + 1
    start, stop = mark - half, mark + half + 1
    if start < 0 or stop + longest > len(samples):
        return None
    pattern = samples[start:stop]
    region = samples[start + shortest : stop + longest]
    sums = np.concatenate([[0.0], np.cumsum(np.square(region))])
    energies = (sums[len(pattern) :] - sums[: -len(pattern)]) * np.square(pattern).sum()
    similarity = np.correlate(region, pattern, "valid") / np.sqrt(np.maximum(energies, 1e-30))
    best = int(similarity.argmax())
    if similarity[best] < _MIN_CORRELATION or best in (0, len(similarity) - 1):
        return None
    return shortest + best + peak_offset(*similarity[best - 1 : best + 2])


def peak_offset(left: float, middle: float, right: float) -> float:
    """Where the parabola through three neighbours is highest, from the middle one.

    Examples
    --------
    >>> peak_offset(0.0, 1.0, 0.5)
    0.16666666666666666
    """
    bend = left - 2.0 * middle + right
    return 0.0 if bend >= 0 else 0.5 * (left - right) / bend


def _amplitudes(samples: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Peak-to-peak amplitude of the period around each mark but the last.

    It reaches half-way to both neighbours: the first one back as far as ahead.
    """
    middles = (marks[:-1] + marks[1:]) / 2
    edges = np.round(np.concatenate([[max(2 * marks[0] - middles[0], 0.0)], middles])).astype(int)
    periods = [samples[start:stop] for start, stop in pairwise(edges.tolist())]
    return np.array([max(float(np.ptp(each)), 1e-30) for each in periods])
