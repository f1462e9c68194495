"""How well emotions are found in time: the emotion diarization error.

Conventions
-----------
A stretch is ``(start, end, label)`` in seconds. Stretches of one side do not overlap; where
there is none, nothing is heard. A recognizer that abstains says nothing there either: its
label is None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from koser.errors import UndefinedMetricError

Stretch = tuple[float, float, str | None]


@dataclass(frozen=True)
class DiarizationError:
    """Seconds of each kind of error, which add up over recordings.

    Attributes
    ----------
    false_alarm : float
        An emotion is reported where there is none.
    missed : float
        None is reported where there is one.
    confusion : float
        Another one is reported than there is.
    duration : float
        Of the recordings.
    """

    false_alarm: float
    missed: float
    confusion: float
    duration: float

    @property
    def rate(self) -> float:
        """Emotion diarization error rate (EDER) in [0, 1]: the share of time that is wrong."""
        return (self.false_alarm + self.missed + self.confusion) / self.duration

    def __add__(self, other: DiarizationError) -> DiarizationError:
        return DiarizationError(
            self.false_alarm + other.false_alarm,
            self.missed + other.missed,
            self.confusion + other.confusion,
            self.duration + other.duration,
        )


def emotion_diarization_error(
    reference: Sequence[Stretch],
    hypothesis: Sequence[Stretch],
    *,
    duration: float,
    background: Collection[str] = (),
) -> DiarizationError:
    """Compare what is heard when with what was there.

    Time is cut at every border of either side, and each piece is right or one kind of
    error [1]_. The denominator is the whole recording, silence included.

    Parameters
    ----------
    reference, hypothesis : Sequence[tuple[float, float, str or None]]
        Stretches in seconds, in any order.
    duration : float > 0
        Of the recording, in seconds; both sides lie within it.
    background : Collection[str]
        Labels that count as no emotion. The paper's is neutral, which it does not tell from
        silence; by default silence alone is.

    Returns
    -------
    DiarizationError
        In seconds, and as `rate`.

    Raises
    ------
    UndefinedMetricError
        If a side overlaps itself, runs backwards or leaves the recording, or `duration` is
        not positive.

    References
    ----------
    .. [1] Wang, Ravanelli & Yacoubi, "Speech Emotion Diarization: Which Emotion Appears
       When?", ASRU 2023.

    Examples
    --------
    >>> reference, hypothesis = [(0.0, 2.0, "angry")], [(1.0, 3.0, "angry")]
    >>> error = emotion_diarization_error(reference, hypothesis, duration=4.0)
    >>> error.missed, error.false_alarm, error.rate
    (1.0, 1.0, 0.5)
    """
    if not 0 < duration < math.inf:
        raise UndefinedMetricError(f"A recording of {duration} s has no error rate.")
    sides = [
        _checked(stretches, duration, name)
        for stretches, name in ((reference, "reference"), (hypothesis, "hypothesis"))
    ]
    borders = sorted({0.0, duration, *(t for side in sides for s in side for t in s[:2])})
    seconds = {"false_alarm": 0.0, "missed": 0.0, "confusion": 0.0}
    places = [0, 0]
    for start, end in itertools.pairwise(borders):
        heard: list[str | None] = []
        for which, side in enumerate(sides):
            while places[which] < len(side) and side[places[which]][1] <= start:
                places[which] += 1
            covers = places[which] < len(side) and side[places[which]][0] <= start
            label = side[places[which]][2] if covers else None
            heard.append(None if label in background else label)
        kind = _kind(*heard)
        if kind:
            seconds[kind] += end - start
    return DiarizationError(**seconds, duration=duration)


def _kind(true: str | None, found: str | None) -> str:
    if true == found:
        return ""
    if true is None:
        return "false_alarm"
    return "missed" if found is None else "confusion"


def _checked(stretches: Sequence[Stretch], duration: float, name: str) -> list[Stretch]:
    ordered = sorted(stretches, key=lambda stretch: stretch[:2])
    position = 0.0
    for start, end, _ in ordered:
        # A comparison with NaN is false.
        if not position <= start <= end <= duration:
            raise UndefinedMetricError(
                f"The {name} has a stretch from {start} to {end} s that begins before {position} s "
                f"(the end of the one before it), runs backwards or leaves the recording of "
                f"{duration} s. Cut overlaps first."
            )
        position = end
    return ordered
