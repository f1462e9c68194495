"""The emotion diarization error against counted milliseconds and a published value."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import UndefinedMetricError
from koser.evaluation.diarization import DiarizationError, emotion_diarization_error

LABELS = ["angry", "neutral", "sadness", None]


@st.composite
def stretches(draw, n_ticks):
    borders = sorted(draw(st.sets(st.integers(0, n_ticks), max_size=12)))
    found = [
        (start, end, draw(st.sampled_from(LABELS)))
        for start, end in itertools.pairwise(borders)
        if draw(st.booleans())
    ]
    return draw(st.permutations(found))


def by_counting(reference, hypothesis, n_ticks, background):
    """One tick after the other: what each side says, and whether that agrees."""

    def at(side, tick):
        labels = [label for start, end, label in side if start <= tick < end]
        assert len(labels) <= 1
        return labels[0] if labels and labels[0] not in background else None

    counts = {"false_alarm": 0, "missed": 0, "confusion": 0}
    for tick in range(n_ticks):
        true, found = at(reference, tick), at(hypothesis, tick)
        if true is None and found is not None:
            counts["false_alarm"] += 1
        elif true is not None and found is None:
            counts["missed"] += 1
        elif true != found:
            counts["confusion"] += 1
    return counts


@given(reference=stretches(60), hypothesis=stretches(60), has_background=st.booleans())
def test_every_kind_of_error_is_the_ticks_that_counting_finds(
    reference, hypothesis, has_background
):
    background = {"neutral"} if has_background else set()
    error = emotion_diarization_error(reference, hypothesis, duration=60, background=background)
    expected = by_counting(reference, hypothesis, 60, background)
    assert {kind: getattr(error, kind) for kind in expected} == expected
    assert error.rate == pytest.approx(sum(expected.values()) / 60)
    assert emotion_diarization_error(reference, reference, duration=60).rate == 0


def test_a_published_example_has_its_published_value():
    """The docstring of SpeechBrain's EDER, whose author wrote the paper; there n is silence too."""
    error = emotion_diarization_error(
        [(0.39, 1.10, "a")],
        [(0.0, 0.6, "n"), (0.6, 1.22, "a")],
        duration=1.22,
        background={"n"},
    )
    assert error.rate == pytest.approx(0.2704918032786885)


def test_recordings_add_up_by_their_length():
    whole = DiarizationError(0.0, 1.0, 0.0, 10.0) + DiarizationError(2.0, 0.0, 3.0, 30.0)
    assert whole == DiarizationError(2.0, 1.0, 3.0, 40.0)
    assert whole.rate == pytest.approx(0.15)


@pytest.mark.parametrize(
    "side", [[(0, 2, "a"), (1, 3, "a")], [(2, 1, "a")], [(0, 5, "a")], [(math.nan, 1, "a")]]
)
def test_a_side_that_is_no_timeline_is_refused(side):
    with pytest.raises(UndefinedMetricError, match="The hypothesis has a stretch"):
        emotion_diarization_error([], side, duration=4)


@pytest.mark.parametrize("duration", [0, -1, math.nan, math.inf])
def test_a_recording_without_length_has_no_rate(duration):
    with pytest.raises(UndefinedMetricError, match="no error rate"):
        emotion_diarization_error([], [], duration=duration)
