"""Timelines against their definition, streams against timelines, both in bounded memory."""

import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.recognizers import LABELS, LoudnessModel, speech
from koser.audio.activity import ActivityOptions, find_speech
from koser.config import resolve_config
from koser.errors import AudioError, ConfigError
from koser.inference.recognizer import Recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.stream import EmotionStream
from koser.inference.timeline import make_timeline

RATE = 16_000
OFF = ActivityOptions(kind="off")


@pytest.fixture(scope="module")
def sound():
    return speech(40)


@pytest.fixture
def recognizer():
    return Recognizer(LoudnessModel())


def cells_by_definition(recognizer, waveform, options):
    """The docstring of `koser.inference.tracking`, read over the whole sound at once."""
    window, hop = round(options.window * RATE), round(options.hop * RATE)
    cells = []
    for first, last in find_speech(waveform, options.activity):
        whole = [
            (start, start + window) for start in range(first, last, hop) if start + window <= last
        ]
        rest = [] if whole and whole[-1][1] == last else [(max(first, last - window), last)]
        rows = recognizer.predict_waveforms([waveform[a:b] for a, b in whole + rest])
        for place, start in enumerate(range(first, last, hop)):
            end = min(start + hop, last)
            said = [
                (min(end, b) - max(start, a), row)
                for number, ((a, b), row) in enumerate(zip(whole + rest, rows, strict=True))
                if min(end, b) > max(start, a) and (number < len(whole) or place >= len(whole))
            ]
            weights, heard = zip(*said, strict=True)
            cells.append((first, start, end, np.average(heard, axis=0, weights=weights)))
    return cells


def segments_by_definition(cells, options):
    segments = []
    for region, start, end, row in cells:
        label = LABELS[int(row.argmax())]
        if (
            segments
            and segments[-1]["region"] == region
            and segments[-1]["label"] == label
            and end - segments[-1]["start"] <= round(options.max_segment * RATE)
        ):
            segments[-1]["end"] = end
        else:
            segments.append({"region": region, "start": start, "end": end, "label": label})
    return segments


def fed_in_pieces(recognizer, waveform, options, lengths):
    stream, results, position = EmotionStream(recognizer, options), [], 0
    for length in itertools.cycle([*lengths, 16_000]):
        results += stream.feed(waveform[position : position + length])
        position += length
        if position >= len(waveform):
            break
    return [*results, *stream.finish()]


def as_rows(segments):
    return [(each.start, each.end, each.label) for each in segments]


@settings(max_examples=25, deadline=None)
@given(
    seconds=st.floats(0.001, 40),
    window=st.sampled_from([0.5, 1.3, 4.0, 60.0]),
    hop=st.sampled_from([0.25, 0.5, 0.31]),
    max_segment=st.sampled_from([0.6, 2.0, 30.0]),
    is_off=st.booleans(),
)
def test_a_timeline_is_what_its_definition_says(sound, seconds, window, hop, max_segment, is_off):
    recognizer = Recognizer(LoudnessModel())
    options = TimelineOptions(
        window=window,
        hop=hop,
        max_segment=max_segment,
        activity=OFF if is_off else ActivityOptions(),
    )
    waveform = sound[: max(1, round(seconds * RATE))]
    timeline = make_timeline(recognizer, [waveform], options)
    cells = cells_by_definition(recognizer, waveform, options)
    assert [(each.start, each.end) for each in timeline.cells] == [
        (start / RATE, end / RATE) for _, start, end, _ in cells
    ]
    for found, (_, _, _, row) in zip(timeline.cells, cells, strict=True):
        assert list(found.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-9)
    expected = segments_by_definition(cells, options)
    assert as_rows(timeline.segments) == [
        (each["start"] / RATE, each["end"] / RATE, each["label"]) for each in expected
    ]
    assert timeline.duration == len(waveform) / RATE


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40_000), min_size=1, max_size=8),
    window=st.sampled_from([0.5, 4.0]),
    is_off=st.booleans(),
)
def test_a_stream_ends_up_with_the_timeline_however_it_is_cut(sound, lengths, window, is_off):
    recognizer = Recognizer(LoudnessModel())
    options = TimelineOptions(
        window=window,
        hop=0.5,
        max_segment=5,
        partial_every=0.2,
        activity=OFF if is_off else ActivityOptions(),
    )
    waveform = sound[: 12 * RATE]
    timeline = make_timeline(recognizer, [waveform], options)
    results = fed_in_pieces(recognizer, waveform, options, lengths)
    final = [result.segment for result in results if result.is_final]
    assert as_rows(final) == as_rows(timeline.segments)
    for one, other in zip(final, timeline.segments, strict=True):
        for label in LABELS:
            # Silero's sums may round differently in other pieces, ours do not.
            assert one.probabilities[label] == pytest.approx(other.probabilities[label], abs=1e-6)


def test_a_file_and_its_samples_have_the_same_timeline(recognizer, sound, tmp_path):
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    seconds = []
    from_file = make_timeline(recognizer, tmp_path / "a.wav", progress=seconds.append)
    from_pieces = make_timeline(recognizer, np.array_split(sound, 7))
    assert as_rows(from_file.segments) == as_rows(from_pieces.segments)
    assert (from_file.path, from_pieces.path) == (str(tmp_path / "a.wav"), None)
    assert seconds == [10.0, 20.0, 30.0, 40.0]
    assert len(from_file.segments) > 5
    assert {segment.label for segment in from_file.segments} == set(LABELS)


def test_a_partial_result_is_what_the_newest_speech_sounds_like(recognizer, sound):
    options = TimelineOptions(window=2.0, partial_every=0.3, activity=OFF)
    stream, times = EmotionStream(recognizer, options), []
    for place, piece in enumerate(np.split(sound[: 8 * RATE], 80), start=1):
        partial = [each.segment for each in stream.feed(piece) if not each.is_final]
        now = place / 10
        if partial:
            times.append(now)
            (segment,) = partial
            assert (segment.start, segment.end) == pytest.approx((max(0, now - 2.0), now))
            heard = sound[round(segment.start * RATE) : round(now * RATE)]
            expected = recognizer.predict_array(heard, RATE)
            assert segment.probabilities == pytest.approx(expected.probabilities)
    assert times == pytest.approx(np.arange(3, 81, 3) / 10)


def test_silence_is_not_told_of(recognizer):
    stream = EmotionStream(recognizer)
    silence = np.zeros(RATE, np.float32)
    assert [result for _ in range(5) for result in stream.feed(silence)] == []
    assert stream.finish() == []
    assert make_timeline(recognizer, [silence]).segments == ()


@pytest.mark.parametrize("activity", [OFF, ActivityOptions()])
def test_memory_is_bounded_by_the_window(activity, sound):
    options = TimelineOptions(activity=activity)
    stream = EmotionStream(Recognizer(LoudnessModel()), options)
    held = []
    for _ in range(4):
        for piece in np.array_split(sound, 100):
            stream.feed(piece)
            held.append(len(stream._tracker._sound._samples) / RATE)
    assert stream.duration == pytest.approx(160)
    assert max(held) < options.window + options.activity.hangover + 0.5


def test_a_final_result_comes_within_the_promised_time(recognizer, sound):
    options = TimelineOptions(window=1.0, hop=0.5, max_segment=3.0, activity=OFF, partial_every=0)
    stream = EmotionStream(recognizer, options)
    told = 0.0
    for place, piece in enumerate(np.split(sound, 400), start=1):
        for result in stream.feed(piece):
            told = result.segment.end
        # What was not told yet is one segment that goes on, and cells that windows may change.
        assert place / 10 - told <= options.max_segment + options.window + options.hop


def test_a_window_is_recognised_like_an_utterance_of_its_own(sound):
    model = LoudnessModel()
    recognizer = Recognizer(model)
    options = TimelineOptions(window=2.0, hop=2.0, activity=OFF)
    timeline = make_timeline(recognizer, [sound[: 10 * RATE]], options)
    assert set(model.n_seconds) == {2.0}
    for place, cell in enumerate(timeline.cells):
        window = sound[2 * RATE * place : 2 * RATE * (place + 1)]
        alone = recognizer.predict_array(window, RATE)
        assert cell.probabilities == pytest.approx(alone.probabilities)


def test_the_recognizers_doubts_and_choices_hold_over_time(sound):
    doubtful = Recognizer(LoudnessModel(), threshold=0.6, labels=["calm", "angry"])
    timeline = make_timeline(doubtful, [sound])
    assert timeline.labels == ("angry", "calm")
    labels = set()
    for segment in timeline.segments:
        labels.add(segment.label)
        assert (segment.label is None) == (segment.confidence < 0.6)
        assert sum(segment.probabilities.values()) == pytest.approx(1)
    assert labels == {None, "angry", "calm"}


def test_a_stream_at_another_rate_is_resampled(recognizer, sound):
    from koser.audio.resampling import resample

    at_48_khz = resample(sound[: 5 * RATE], RATE, 48_000)
    stream = EmotionStream(recognizer, sampling_rate=48_000)
    results = [result for piece in np.array_split(at_48_khz, 50) for result in stream.feed(piece)]
    results += stream.finish()
    whole = make_timeline(recognizer, [resample(at_48_khz, 48_000, RATE)])
    assert as_rows(each.segment for each in results if each.is_final) == as_rows(whole.segments)
    assert stream.duration == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(5, np.int16), "Divide 16-bit integers by 32768"),
        (np.zeros((5, 2), np.float32), r"of shape \(5, 2\)"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
        (np.array([0.0, -3e38]), "absurdly large"),
    ],
)
def test_what_is_no_mono_sound_is_refused(recognizer, samples, message):
    with pytest.raises(AudioError, match=message):
        EmotionStream(recognizer).feed(samples)


def test_a_finished_stream_takes_no_more(recognizer, sound):
    stream = EmotionStream(recognizer)
    stream.feed(sound[:RATE])
    stream.finish()
    assert stream.finish() == []
    with pytest.raises(AudioError, match="finished"):
        stream.feed(sound[:RATE])


@pytest.mark.parametrize(
    ("override", "message"),
    [("hop=5", "would not be heard"), ("max_segment=0.5", "less than hop"), ("hops=1", "known:")],
)
def test_options_that_contradict_each_other_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config(TimelineOptions, overrides=[override])
